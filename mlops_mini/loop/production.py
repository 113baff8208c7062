"""What a loop works with: the world outside, and the rooms with their processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd

from mlops_mini import use_case
from mlops_mini.data.periods import Period
from mlops_mini.loop import world
from mlops_mini.loop.gateway import Gateway
from mlops_mini.loop.state import State
from mlops_mini.loop.world import World
from mlops_mini.monitoring import inputs
from mlops_mini.monitoring.journal import Journal
from mlops_mini.runner.records import TaskRecord
from mlops_mini.runner.runner import Runner
from mlops_mini.statistics import mergeable
from mlops_mini.statistics.mergeable import TableStatistics
from mlops_mini.triggers import settings
from mlops_mini.triggers.ledger import Ledger

_SHARE = 0.95  # as periods differ a little
# Of the flights that's every 5 weeks, which benchmarks/policy_prices.md replays with this network.
_SETTINGS = """\
# A model is retrained once there's about as much new data as the first one has learned from.
new_data: {{min_rows: {min_rows}}}
cool_down: {cool_down_s:.0f}s
"""


class Production:
    """Everything that's open while a loop is played; it ends with the `with`, or with us.

    Attributes:
        workspace: The loop's.
        plan: What is played.
        case: The use case.
        periods: All of them, in order.
        played: Those that are served.
        world: Rows, requests and labels.
        models: Folder of the model's versions.
        journal: What was asked and answered.
        settings: When to retrain: `triggers.yaml` of the workspace, made if nobody has.
        ledger: Of the reasons to retrain.
        gateway: Who answers.
        runner: Of pipelines.
    """

    def __init__(
        self,
        workspace: Path,
        known: State,
        *,
        on_task: Callable[[TaskRecord], None] = lambda _task: None,
        has_router: bool | None = None,
    ) -> None:
        """Open everything; servers and the router start when they are needed.

        Args:
            workspace: The loop's, which nobody else uses.
            known: How far it has come.
            on_task: Told of each change of a pipeline's task, in another thread.
            has_router: See `Gateway`.
        """
        self.workspace, self.plan = workspace, known.plan
        self.case = use_case.load(self.plan.use_case)
        self.periods = self.plan.periods(self.case.calendar)
        self.played = self.periods[self.plan.n_first :]
        self.models = workspace / "models" / self.case.name
        with ExitStack() as stack:
            self.runner = stack.enter_context(Runner(workspace / "runs", on_task=on_task))
            self.runner.warm_up()  # while the world is read
            self.world = World(self.case, Path(self.plan.data_folder), self.periods)
            self.journal = Journal(
                workspace / "journal.sqlite",
                model=self.case.name,
                calendar=self.case.calendar,
                instant=lambda record: world.due_s(record.request_id),
            )
            self.settings = self._settings()
            self._clock = self.now(known)
            self.ledger = Ledger(
                workspace / settings.LEDGER, limits=self.settings.limits, clock=lambda: self._clock
            )
            gateway = Gateway(workspace, self.case.name, has_router=has_router)
            self.gateway = stack.enter_context(gateway)
            self._opened = stack.pop_all()

    @cached_property
    def reference(self) -> TableStatistics:
        """What the inputs of the first periods were like."""
        first = [self.world.examples_of(each)[0] for each in self.periods[: self.plan.n_first]]
        return mergeable.add(mergeable.create(), inputs.of_features(pd.concat(first)))

    def period(self, known: State) -> Period:
        """Tell which period is played."""
        return self.case.calendar.period(known.period)

    def now(self, known: State) -> datetime:
        """Tell the time: when the labels of the period before have just matured.

        If they take longer than a period, it's the end of the one that's played.
        """
        period = self.period(known)
        if known.step == "begin":
            return period.start
        return min(self.world.matured_at(period.previous()), period.end)

    def tick(self, known: State) -> None:
        """Set the ledger's clock."""
        self._clock = self.now(known)

    def n_requests(self, period: Period) -> int:
        """Count the requests of a period."""
        return len(self.world.outcomes(period))

    def _settings(self) -> settings.Settings:
        file = self.workspace / settings.FILE
        if not file.exists():
            first = self.periods[: self.plan.n_first]
            text = _SETTINGS.format(
                min_rows=round(_SHARE * sum(map(self.n_requests, first))),
                cool_down_s=(first[-1].end - first[0].start).total_seconds(),
            )
            file.write_text(text)
        return settings.read(file)

    def close(self) -> None:
        """End all processes."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
