"""What a candidate must keep: a reviewed file, whose fields are those of TFMA's EvalConfig.

TensorFlow Model Analysis has no say about days, coverage, features or servers, so what it doesn't
know stands in a part of its own, `gate`. The rest converts both ways.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mlops_mini.errors import InvalidArgumentError, NotFoundError

DEFAULT = Path(__file__).with_name("gate.yaml")
LOG_LOSS, AUC, CALIBRATION = "BinaryCrossEntropy", "AUC", "Calibration"
# The same of more classes than two, in the words of TFMA.
_OF_CLASSES = "SparseCategoricalCrossentropy"
_DIRECTION = {LOG_LOSS: "LOWER_IS_BETTER", AUC: "HIGHER_IS_BETTER"}
_BOUNDS = {"lower_bound", "upper_bound"}
_BY_CLASS = {"aggregate": {"macro_average", "class_weights"}, "binarize": {"k_list"}}
_METRIC = {"class_name", "module", "config", "threshold", "per_slice_thresholds"}
_UNUSED_OPTIONS = {"include_default_metrics", "disabled_outputs"}


def _check_margin(margin: float, of: str) -> None:
    if not 0 <= margin < math.inf:
        raise InvalidArgumentError(
            f"the margin of {of} is {margin}: a candidate may be worse by 0 or more"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Between what a metric must be, both ends included.

    Attributes:
        lower_bound: At least this much.
        upper_bound: At most this much.
    """

    lower_bound: float = -math.inf
    upper_bound: float = math.inf

    def __post_init__(self) -> None:
        if not self.lower_bound <= self.upper_bound:
            raise InvalidArgumentError(
                f"lower_bound {self.lower_bound} isn't below upper_bound {self.upper_bound}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceMargin:
    """By how much a slice may be worse.

    Attributes:
        metric: `BinaryCrossEntropy`, the log loss in nats, or `AUC`.
        column: Whose values are the slices; empty for all columns of the use case.
        value: The one slice; empty for each value of the column.
        margin: How much worse than the baseline's, not below 0.
    """

    metric: str = LOG_LOSS
    column: str = ""
    value: str = ""
    margin: float

    def __post_init__(self) -> None:
        _check_margin(self.margin, f"{self.metric} of slices by {self.column or 'any column'}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """What TFMA doesn't know; the file's part `gate`.

    Attributes:
        confidence: Of each one-sided limit, above .5 and below 1. The slices share 1 - confidence.
        min_rows: Judged rows.
        min_days: Days with judged rows.
        min_per_class: Rows of either label, overall and in a slice.
        min_labeled: Share of the arrived rows that have a label, 0 to 1.
        max_excess_log_loss: Log loss above that of always predicting the base rate, nats.
        min_coverage: Share of training rows over share of arrivals, 0 to 1, of any slice.
        max_different_features: Judged rows whose features differ when they're computed online.
        max_latency_ms: Shortest of some single predictions over REST.
        undecided: What becomes of a candidate of which nothing sure can be said.
    """

    confidence: float = 0.95
    min_rows: int = 2_000
    min_days: int = 14
    min_per_class: int = 20
    min_labeled: float = 0.9
    max_excess_log_loss: float = 0.0
    min_coverage: float = 0.5
    max_different_features: int = 0
    max_latency_ms: float = 100.0
    undecided: Literal["keep", "promote"] = "keep"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = value if isinstance(value, int | float) else math.nan
            if name != "undecided" and not number >= (0 if name != "max_excess_log_loss" else -9):
                raise InvalidArgumentError(f"gate: {name} is {value!r}, expected a number from 0")
        if not 0.5 < self.confidence < 1:
            raise InvalidArgumentError(
                f"gate: confidence is {self.confidence}, expected above .5 and below 1"
            )
        if self.undecided not in ("keep", "promote"):
            raise InvalidArgumentError(
                f"gate: undecided is {self.undecided!r}; it's keep, the baseline, or promote"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """What a candidate must keep.

    Attributes:
        margin: Its log loss must surely not be worse than the baseline's by this much, nats.
        slice_margins: By how much slices may be worse; of those that name a slice the last counts.
        floors: Bounds of the metrics `BinaryCrossEntropy`, `AUC` and `Calibration` themselves.
        min_slice_size: Rows from which a slice is judged.
        gate: The rules that TFMA doesn't know.
        digest: SHA-256 of the file, empty if there's none.
    """

    margin: float = 0.002
    slice_margins: tuple[SliceMargin, ...] = (
        SliceMargin(margin=0.01),
        SliceMargin(metric=AUC, margin=0.005),
    )
    floors: Mapping[str, Bounds] = field(default_factory=dict)
    min_slice_size: int = 200
    gate: GateRules = field(default_factory=GateRules)
    digest: str = ""

    def __post_init__(self) -> None:
        _check_margin(self.margin, "all rows")

    def slice_margin(self, metric: str, column: str, value: str) -> float | None:
        """Find the margin of a slice; None if it has none.

        >>> rules = (SliceMargin(margin=0.01), SliceMargin(column="plan", value="pro", margin=0.03))
        >>> thresholds = Thresholds(slice_margins=rules)
        >>> [thresholds.slice_margin(LOG_LOSS, "plan", value) for value in ("pro", "basic")]
        [0.03, 0.01]
        """
        margins = [
            each.margin
            for each in self.slice_margins
            if each.metric == metric and each.column in ("", column) and each.value in ("", value)
        ]
        return margins[-1] if margins else None

    def check_slices(self, slices: Mapping[str, Collection[str]]) -> None:
        """Refuse a rule for a slice that doesn't exist.

        Args:
            slices: The values that there are, by column.

        Raises:
            InvalidArgumentError: A rule names another column or value.
        """
        for each in self.slice_margins:
            if each.column and each.column not in slices:
                raise InvalidArgumentError(
                    f"the thresholds have a rule for slices by {each.column!r}; models are judged"
                    f" by {sorted(slices) or 'no column'}: name one of these, or add it to the use"
                    " case's slices"
                )
            if each.value and each.value not in slices[each.column]:
                raise InvalidArgumentError(
                    f"the thresholds have a rule for the slice {each.column}={each.value}; there"
                    f" are {sorted(slices[each.column])}: correct it, or take it out"
                )


def read(file: Path | None = None) -> Thresholds:
    """Read a file of thresholds.

    Args:
        file: YAML (or JSON, which is YAML too) with fields of an EvalConfig, and `gate`; the
            package's own if left out.

    Raises:
        NotFoundError: There's no such file.
        InvalidArgumentError: It's no YAML, or has an unknown field, or a margin below 0.

    >>> read().margin, read().gate.min_days
    (0.002, 14)
    """
    import yaml

    path = file or DEFAULT
    if not path.is_file():
        raise NotFoundError(f"no thresholds in {path}: name a file, or leave it out")
    content = path.read_bytes()
    try:
        return from_eval_config(yaml.safe_load(content), digest=hashlib.sha256(content).hexdigest())
    except yaml.YAMLError as exc:
        problem = " ".join(str(exc).split())
        raise InvalidArgumentError(f"{path} is no YAML: {problem}") from exc
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"{path}: {exc}") from exc


def from_eval_config(config: Any, *, digest: str = "") -> Thresholds:
    """Make thresholds from an EvalConfig.

    Args:
        config: As `json_format.MessageToDict` gives it, with names as in the proto file or in
            JSON's own way (`metricsSpecs`), and perhaps a part `gate`. What describes models is not
            read; a threshold that isn't supported is refused, never passed over.
        digest: Of the file that it's from.

    Returns:
        The thresholds; without `gate` the rules of that part are the defaults.

    Raises:
        InvalidArgumentError: A field is unknown, a threshold isn't supported or below 0.
    """
    known = {"model_specs", "slicing_specs", "metrics_specs", "options", "gate"}
    top = _fields(config, known, "the file")
    margin = math.inf
    floors: dict[str, Bounds] = {}
    slice_margins: list[SliceMargin] = []
    for spec in _list(top, "metrics_specs"):
        own = _fields(spec, {"metrics", *_BY_CLASS}, "metrics_specs")
        for metric in _list(own, "metrics"):
            name, limits, by_slice = _metric(metric)
            _check_by_class(name, own)
            bounds, change = _threshold(limits, name)
            if bounds:
                floors[name] = bounds
            if change is not None and name != LOG_LOSS:
                raise InvalidArgumentError(f"{name} has no change_threshold but in slices")
            margin = margin if change is None else change
            slice_margins += by_slice
    computed = {_slice(spec)[0] for spec in _list(top, "slicing_specs")}
    if computed and (missing := {each.column for each in slice_margins} - computed - {""}):
        raise InvalidArgumentError(
            f"thresholds of slices by {sorted(missing)}; slicing_specs has {sorted(computed)}: add"
            " them there too"
        )
    if math.isinf(margin):
        raise InvalidArgumentError(
            f"no change_threshold of {LOG_LOSS}: say by how much a candidate may be worse"
        )
    options = _fields(top.get("options", {}), {"min_slice_size", *_UNUSED_OPTIONS}, "options")
    return Thresholds(
        margin=margin,
        slice_margins=tuple(slice_margins),
        floors=floors,
        min_slice_size=options.get("min_slice_size", 0),
        gate=GateRules(
            **_fields(top.get("gate", {}), {each.name for each in fields(GateRules)}, "gate")
        ),
        digest=digest,
    )


def to_eval_config(
    thresholds: Thresholds, *, label: str, slices: Sequence[str], n_classes: int = 2
) -> dict[str, Any]:
    """Make what TFMA reads: `json_format.ParseDict(config, tfma.proto.config_pb2.EvalConfig())`.

    Args:
        thresholds: What a candidate must keep. The rules of its part `gate` are left out, for TFMA
            has none like them.
        label: The column that's predicted, with 0 or 1 or the number of a class.
        slices: The columns to slice by.
        n_classes: How many classes there are. With more than two, TFMA is told to take the mean of
            each class's AUC against all others, and the calibration of the most probable class.

    Returns:
        An EvalConfig of two models, `candidate` and `baseline`.

    >>> config = to_eval_config(read(), label="churned", slices=["plan"])
    >>> rules = config["metrics_specs"][0]["metrics"][0]["per_slice_thresholds"]
    >>> [rule["slicing_specs"] for rule in rules]
    [[{}], [{'feature_keys': ['plan']}]]
    >>> [(each.metric, each.column, each.margin) for each in from_eval_config(config).slice_margins]
    [('BinaryCrossEntropy', 'plan', 0.01), ('AUC', 'plan', 0.005)]
    """
    by_slice: dict[str, list[dict[str, Any]]] = {}
    for each in thresholds.slice_margins:
        columns = [each.column] if each.column else list(slices)
        specs: list[dict[str, Any]] = [{"feature_keys": [column]} for column in columns]
        if each.value:
            specs = [{"feature_values": {each.column: each.value}}]
        rule = {"slicing_specs": specs, "threshold": _change(each.margin, each.metric)}
        by_slice.setdefault(each.metric, []).append(rule)
    metrics: list[dict[str, Any]] = []
    for name in dict.fromkeys([LOG_LOSS, *by_slice, *thresholds.floors]):
        of_all = _change(thresholds.margin, name) if name == LOG_LOSS else {}
        if name in thresholds.floors:
            bounds = asdict(thresholds.floors[name])
            of_all["value_threshold"] = {
                key: value for key, value in bounds.items() if math.isfinite(value)
            }
        # TFMA holds each slice against what stands in the field `threshold`.
        rules = [{"slicing_specs": [{}], "threshold": of_all}] if of_all else []
        metrics.append(
            {"class_name": name, "per_slice_thresholds": [*rules, *by_slice.get(name, [])]}
        )
    values = [
        {"feature_values": {each.column: each.value}}
        for each in thresholds.slice_margins
        if each.value
    ]
    model = {"label_key": label, "prediction_key": "probability"}
    metrics_specs: list[dict[str, Any]] = [{"metrics": metrics}]
    if n_classes > 2:
        metrics_specs = [
            {"metrics": [each], **_by_class(each["class_name"], n_classes)} for each in metrics
        ]
        metrics[0]["class_name"] = _OF_CLASSES
    return {
        "model_specs": [
            {"name": "candidate", **model},
            {"name": "baseline", "is_baseline": True, **model},
        ],
        "slicing_specs": [{}, *({"feature_keys": [column]} for column in slices), *values],
        "metrics_specs": metrics_specs,
        "options": {"min_slice_size": thresholds.min_slice_size},
    }


def _by_class(metric: str, n_classes: int) -> dict[str, Any]:
    """Say how TFMA is to treat several classes, so that a metric is the same there as here."""
    weights = {str(at): 1.0 for at in range(n_classes)}
    by_metric: dict[str, dict[str, Any]] = {
        LOG_LOSS: {},
        AUC: {"aggregate": {"macro_average": True, "class_weights": weights}},
        CALIBRATION: {"binarize": {"k_list": {"values": [1]}}},
    }
    return by_metric[metric]


def _check_by_class(metric: str, spec: Mapping[str, Any]) -> None:
    """Refuse other ways of treating several classes."""
    given = {
        name: _fields(spec[name], known, name) for name, known in _BY_CLASS.items() if name in spec
    }
    weights = given.get("aggregate", {}).get("class_weights")
    judged = _by_class(metric, len(weights) if isinstance(weights, Mapping) else 3)
    if given and given != judged:
        raise InvalidArgumentError(
            f"{metric} of several classes with {given}; it's judged with {judged or 'neither'}"
        )


def _change(margin: float, metric: str) -> dict[str, Any]:
    sign = 1 if _DIRECTION[metric] == "LOWER_IS_BETTER" else -1
    return {"change_threshold": {"absolute": sign * margin, "direction": _DIRECTION[metric]}}


def _metric(metric: Any) -> tuple[str, Any, list[SliceMargin]]:
    """Read a metric: its name, its thresholds of all rows and those of slices."""
    own = _fields(metric, _METRIC, "metrics")
    name = own.get("class_name")
    name = LOG_LOSS if name == _OF_CLASSES else name
    if name not in (LOG_LOSS, AUC, CALIBRATION) or own.get("config"):
        raise InvalidArgumentError(
            f"a metric {name!r}; those judged are"
            f" {[LOG_LOSS, _OF_CLASSES, AUC, CALIBRATION]}, without config"
        )
    margins = []
    of_all = own.get("threshold", {})
    for rule in _list(own, "per_slice_thresholds"):
        parts = _fields(rule, {"slicing_specs", "threshold"}, "per_slice_thresholds")
        if _list(parts, "slicing_specs") == [{}]:
            if of_all:
                raise InvalidArgumentError(f"{name} has two thresholds of all rows: leave one out")
            of_all = parts.get("threshold")
            continue
        bounds, change = _threshold(parts.get("threshold"), name)
        if change is None or bounds:
            raise InvalidArgumentError(
                f"slices have a change_threshold and no other, of {sorted(_DIRECTION)}"
            )
        for spec in _list(parts, "slicing_specs") or [{}]:
            column, value = _slice(spec)
            margins.append(SliceMargin(metric=name, column=column, value=value, margin=change))
    return name, of_all, margins


def _threshold(threshold: Any, name: str) -> tuple[Bounds | None, float | None]:
    """Read a MetricThreshold: bounds of the metric, and by how much it may get worse."""
    own = _fields(threshold, {"value_threshold", "change_threshold"}, "threshold")
    bounds, change = None, None
    if "value_threshold" in own:
        limits = _fields(own["value_threshold"], _BOUNDS, "value_threshold")
        bounds = Bounds(**{key: _number(value, key) for key, value in limits.items()})
    if "change_threshold" in own:
        limits = _fields(own["change_threshold"], {"absolute", "direction"}, "change_threshold")
        if name not in _DIRECTION or limits.get("direction") != _DIRECTION[name]:
            raise InvalidArgumentError(
                f"a change_threshold of {name} with direction {limits.get('direction')}; changes"
                f" are judged of {_DIRECTION}"
            )
        absolute = _number(limits.get("absolute"), "absolute")
        change = absolute if name == LOG_LOSS else 0 - absolute
    return bounds, change


def _slice(spec: Any) -> tuple[str, str]:
    """Read a SlicingSpec: its column and value, each empty if it names none."""
    own = _fields(spec, {"feature_keys", "feature_values"}, "slicing_specs")
    columns, values = _list(own, "feature_keys"), own.get("feature_values") or {}
    if len(columns) + len(values) > 1:
        raise InvalidArgumentError(
            f"a slice by {[*columns, *values]}: slices are by one column; have `prepare` add one"
            " that combines them"
        )
    for column, value in values.items():
        return str(column), str(value)
    return (str(columns[0]), "") if columns else ("", "")


def _fields(given: Any, known: Collection[str], where: str) -> dict[str, Any]:
    """Read a message's fields by their names in the proto file, and refuse others."""
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{where} must have fields, got {given!r}")
    named = {re.sub("(?<=[a-z])([A-Z])", r"_\1", str(name)).lower(): given[name] for name in given}
    if unknown := sorted(set(named) - set(known)):
        raise InvalidArgumentError(
            f"{where} has unknown fields {unknown}; those known are {sorted(known)}"
        )
    return named


def _list(own: Mapping[str, Any], name: str) -> Sequence[Any]:
    values = own.get(name) or ()
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a list, got {values!r}")
    return values


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidArgumentError(f"{name} must be a number, got {value!r}")
    return float(value)
