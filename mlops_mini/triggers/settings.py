"""Which reasons a model is retrained for: a reviewed file beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_mini.data.table import duration
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.triggers.ledger import Limits
from mlops_mini.triggers.schedules import Schedule

FILE, LEDGER = "triggers.yaml", "triggers.sqlite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What fires, besides somebody who asks, and what the ledger allows.

    Attributes:
        limits: Of the ledger.
        schedule: When it's time; None for never.
        min_rows: How many new rows make data new enough; None for no such reason.
        degradation_margin: How much worse than when it was new the model may be, excess log loss in
            nats; None for no such reason.
        degradation_windows: How many windows are compared with the first ones.
        drift_threshold: PSI above which a feature has moved; None for no such reason.
        drift_features: Features that count; all that the model needs if empty.
        command: Told of refusals, rollbacks and alarms, see `Notifier`.
        webhook: The same, by HTTP.
    """

    limits: Limits = field(default_factory=Limits)
    schedule: Schedule | None = None
    min_rows: int | None = None
    degradation_margin: float | None = None
    degradation_windows: int = 2
    drift_threshold: float | None = None
    drift_features: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    webhook: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Tell in words when each of the five reasons fires: kind and when."""
        of = f" of {', '.join(self.drift_features)}" if self.drift_features else ""
        schedule = self.schedule
        return [
            ("on_demand", "when somebody asks"),
            ("schedule", f"{schedule.cron}, {schedule.zone}" if schedule else "never"),
            ("new_data", "never" if self.min_rows is None else f"{self.min_rows:,} new rows"),
            (
                "degradation",
                "never"
                if self.degradation_margin is None
                else f"worse by more than {self.degradation_margin:g} over"
                f" {self.degradation_windows} windows",
            ),
            (
                "drift",
                "never"
                if self.drift_threshold is None
                else f"PSI above {self.drift_threshold:g}{of}",
            ),
        ]


def read(file: Path) -> Settings:
    """Read the settings; the defaults if there's no such file.

    Args:
        file: YAML, such as

            ```yaml
            cool_down: 7d
            lease: 5min
            max_refusals: 3
            schedule: {cron: "30 6 * * mon", zone: Europe/Berlin, catches_up: false}
            new_data: {min_rows: 50000}
            degradation: {margin: 0.01, windows: 2}
            drift: {threshold: 0.25, features: [mins, block]}
            notify: {command: [notify-send, mlops-mini]}
            ```

    Raises:
        InvalidArgumentError: It holds something else.
    """
    import yaml

    if not file.is_file():
        return Settings()
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        given = {key: dict(v) if isinstance(v, Mapping) else v for key, v in loaded.items()}
        return _settings(given)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"{file}: {exc}") from exc
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, UnicodeDecodeError) as exc:
        raise InvalidArgumentError(f"{file} holds no settings of triggers: {exc}") from exc


def _settings(given: dict[str, Any]) -> Settings:
    parts = {name: given.pop(name, {}) for name in ("new_data", "degradation", "drift", "notify")}
    limits = {f.name: given.pop(f.name) for f in dataclasses.fields(Limits) if f.name in given}
    for name in {"cool_down", "lease"} & set(limits):
        limits[name] = duration(str(limits[name]), name).to_pytimedelta()
    schedule = given.pop("schedule", None)
    settings = Settings(
        limits=Limits(**limits),
        schedule=Schedule(schedule.pop("cron", ""), **schedule) if schedule else None,
        min_rows=parts["new_data"].pop("min_rows", None),
        degradation_margin=parts["degradation"].pop("margin", None),
        degradation_windows=parts["degradation"].pop("windows", 2),
        drift_threshold=parts["drift"].pop("threshold", None),
        drift_features=tuple(parts["drift"].pop("features", ())),
        command=tuple(parts["notify"].pop("command", ())),
        webhook=parts["notify"].pop("webhook", ""),
    )
    unknown = [*given, *(f"{name}.{key}" for name, part in parts.items() for key in part)]
    if unknown:
        raise InvalidArgumentError(
            f"nobody knows {unknown}; there are cool_down, lease, max_refusals, schedule, new_data,"
            " degradation, drift and notify"
        )
    return settings
