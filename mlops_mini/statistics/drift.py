"""Which columns of a table have moved, how far, and whether that matters.

A comparison has one of tensorflow-metadata's two roles: *drift* is a period against an earlier one,
*skew* is training against serving. Thresholds come from a schema (`validate`) or from the data's
own past (`calibrate`); .1 and .25 are rules of thumb for the PSI that ring every week on data with
weather in it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.statistics import anomalies
from mlops_mini.statistics.distances import (
    MIN_SHARE,
    jensen_shannon,
    ks,
    l_infinity,
    psi,
    psi_bins,
)
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Distance = Callable[[ColumnStatistics, ColumnStatistics], float]
_RULES_OF_THUMB = (0.1, 0.25)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnDrift:
    """How far a column has moved.

    Attributes:
        column: Its name.
        psi: See `distances.psi`; 0 and up.
        jensen_shannon: See `distances.jensen_shannon`; 0 to 1.
        l_infinity: Of texts, see `distances.l_infinity`, 0 to 1; NaN of numbers.
        ks: Of numbers, see `distances.ks`, 0 to 1; NaN of texts.
        importance: What the model loses without the column, such as its permutation importance, in
            any unit; NaN if not given.
        threshold: PSI above which the column counts as moved; NaN if not given.
    """

    column: str
    psi: float
    jensen_shannon: float
    l_infinity: float
    ks: float
    importance: float
    threshold: float

    @property
    def relevance(self) -> float:
        """PSI times importance; NaN without importance."""
        return self.psi * self.importance

    @property
    def has_moved(self) -> bool:
        """Whether the PSI is above its threshold; never without one."""
        return self.psi > self.threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftReport:
    """How far the columns of a table have moved.

    Attributes:
        columns: The most relevant first, or without importances that with the largest PSI.
    """

    columns: tuple[ColumnDrift, ...]

    @property
    def moved(self) -> tuple[str, ...]:
        """Names of the columns above their threshold, in the same order."""
        return tuple(column.column for column in self.columns if column.has_moved)

    def moved_among(self, relevant: Collection[str] | None = None) -> tuple[ColumnDrift, ...]:
        """List the columns above their threshold that count.

        Args:
            relevant: Names of those that do; without it those with an importance above 0, and all
                of a report without importances.
        """
        return tuple(
            column
            for column in self.columns
            if column.has_moved
            and (column.column in relevant if relevant is not None else not column.importance <= 0)
        )

    def table(self) -> pd.DataFrame:
        """Show it as a table: one row per column, index `column`, the attributes as columns."""
        names = [*ColumnDrift.__dataclass_fields__, "relevance", "has_moved"]
        rows = [[getattr(column, name) for name in names] for column in self.columns]
        return pd.DataFrame(rows, columns=names).set_index("column")


def compare(
    reference: TableStatistics,
    current: TableStatistics,
    *,
    importances: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> DriftReport:
    """Measure how far the columns that two tables share have moved.

    Args:
        reference: What things were like, such as the months a model has learned from.
        current: What they are like now.
        importances: How much a model needs each column; with them, columns it does not need rank
            last, however far they move. Columns left out are unimportant, 0.
        thresholds: PSI by column above which it counts as moved, as `calibrate` finds them.

    Returns:
        The report, ranked.

    Raises:
        InvalidArgumentError: A column holds texts on one side and numbers on the other; a side has
            no rows; the two share no column; or a threshold or importance is of none that they
            share.

    >>> from mlops_mini.statistics import mergeable
    >>> january = pd.DataFrame({"temp_c": range(1000), "load": [*range(500)] * 2})
    >>> july = january.assign(temp_c=january["temp_c"] + 400, load=january["load"] * 0.8)
    >>> before, now = (mergeable.add(mergeable.create(), month) for month in (january, july))
    >>> report = compare(before, now, importances={"temp_c": 0.001, "load": 0.1})
    >>> report.table()[["psi", "ks", "relevance"]].round(3)
              psi   ks  relevance
    column
    load    1.117  0.2      0.112
    temp_c  3.404  0.4      0.003
    """
    shared = [name for name in reference.columns if name in current.columns]
    if not (shared and reference.n_rows and current.n_rows):
        raise InvalidArgumentError(
            f"nothing to compare: the reference has {reference.n_rows} rows of"
            f" {list(reference.columns)}, and now there are {current.n_rows} of"
            f" {list(current.columns)}: give rows with the same columns"
        )
    asked = {*(importances or {}), *(thresholds or {})}
    if unknown := sorted(asked - set(shared)):
        raise InvalidArgumentError(
            f"there are thresholds or importances of {unknown}, which are not on both sides;"
            f" {shared} are: find out where they went with anomalies.validate, or leave them out"
        )
    columns = []
    for name in shared:
        a, b = reference.columns[name], current.columns[name]
        kinds = {column.kind for column in (a, b) if column.n_present}
        if len(kinds) > 1:
            raise InvalidArgumentError(
                f"column {name!r} holds {a.kind} in the reference and {b.kind} now; find out which"
                " is wrong: anomalies.validate"
            )
        is_text = kinds == {"text"}
        columns.append(
            ColumnDrift(
                column=name,
                psi=psi(a, b),
                jensen_shannon=jensen_shannon(a, b),
                l_infinity=l_infinity(a, b) if is_text else float("nan"),
                ks=float("nan") if is_text else ks(a, b),
                importance=float("nan") if importances is None else importances.get(name, 0.0),
                threshold=(thresholds or {}).get(name, float("nan")),
            )
        )
    columns.sort(key=lambda column: column.psi, reverse=True)
    if importances is not None:
        columns.sort(key=lambda column: column.relevance, reverse=True)
    return DriftReport(columns=tuple(columns))


def calibrate(
    spans: Sequence[TableStatistics],
    *,
    measure: _Distance = psi,
    quantile: float = 0.95,
) -> dict[str, float]:
    """Find thresholds in the data's own past.

    Args:
        spans: Statistics of consecutive spans, such as weeks, of a period when all was well; at
            least three.
        measure: A distance of `distances`, such as `psi`.
        quantile: Share of the past spans, 0 to 1, that raise no alarm.

    Returns:
        By column, that quantile of the distances from each span to the next.

    Raises:
        InvalidArgumentError: Fewer than three spans, a column that cannot be compared, or one
            without rows or values in a span, of which nothing can be measured.
    """
    if len(spans) < 3:
        raise InvalidArgumentError(
            f"{len(spans)} spans to calibrate thresholds on, expected at least 3, and 20 for a"
            " quantile of .95 to mean something: give more weeks"
        )
    if not 0 <= quantile <= 1:
        raise InvalidArgumentError(f"quantile is {quantile}, expected a share from 0 to 1")
    thresholds = {}
    for name in spans[0].columns:
        if all(name in span.columns for span in spans):
            past = [measure(a.columns[name], b.columns[name]) for a, b in pairwise(spans)]
            if np.isnan(past).any():
                raise InvalidArgumentError(
                    f"column {name!r} has nothing to compare between spans"
                    f" {int(np.argmax(np.isnan(past)))} and the next, counted from 0: leave out the"
                    " span, or the column"
                )
            thresholds[name] = float(np.quantile(past, quantile))
    return thresholds


_NO_REFERENCE = anomalies_pb2.AnomalyInfo.COMPARATOR_CONTROL_DATA_MISSING
_NO_CURRENT = anomalies_pb2.AnomalyInfo.COMPARATOR_TREATMENT_DATA_MISSING
_Comparator = tuple[_Distance, str, int, int]
_COMPARATORS: dict[str, _Comparator] = {
    "infinity_norm": (
        l_infinity,
        "L-infinity distance",
        anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY,
        anomalies_pb2.AnomalyInfo.COMPARATOR_L_INFTY_HIGH,
    ),
    "jensen_shannon_divergence": (
        jensen_shannon,
        "Jensen-Shannon divergence",
        anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE,
        anomalies_pb2.AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
    ),
}


def validate(
    reference: TableStatistics,
    current: TableStatistics,
    schema: schema_pb2.Schema,
    *,
    role: Literal["drift", "skew"] = "drift",
) -> anomalies_pb2.Anomalies:
    """Compare two tables where a schema asks for it.

    Args:
        reference: For drift the earlier span, for skew what the model was trained on.
        current: The span now, or what is asked of the model.
        schema: Its columns' `drift_comparator` or `skew_comparator` give the thresholds, of
            `infinity_norm` for texts and `jensen_shannon_divergence` for either.
        role: Which of the two comparators.

    Returns:
        One anomaly for each distance that is above its threshold or has no value to compare with;
        `drift_skew_info` holds every distance.

    Raises:
        InvalidArgumentError: The schema has no such comparator for any column, or another distance
            than these two, so that nothing would be compared.

    >>> from mlops_mini.statistics import mergeable, schemas
    >>> july, august = (mergeable.add(mergeable.create(), pd.DataFrame({"plan": plans}))
    ...                 for plans in (["basic", "gold"], ["gold", "gold"]))
    >>> schema = schemas.infer(july)
    >>> schema.feature[0].drift_comparator.infinity_norm.threshold = 0.3
    >>> validate(july, august, schema).anomaly_info["plan"].description
    'L-infinity distance 0.5, at most 0.3'
    """
    asked_of = {feature.name: _asked(feature, role) for feature in schema.feature}
    if not any(asked_of.values()):
        raise InvalidArgumentError(
            f"the schema has no {role}_comparator for any of its {len(asked_of)} columns: set the"
            " thresholds of those that matter"
        )
    deviations = anomalies_pb2.Anomalies(baseline=schema)
    for feature in schema.feature:
        a, b = (side.columns.get(feature.name) for side in (reference, current))
        asked = asked_of[feature.name]
        if not asked:
            continue
        info = deviations.drift_skew_info.add()
        info.path.step.append(feature.name)
        for threshold, (distance, name, measurement, anomaly) in asked:
            value = float("nan") if a is None or b is None else distance(a, b)
            measured = getattr(info, f"{role}_measurements")
            measured.add(type=measurement, value=value, threshold=threshold)
            if np.isnan(value):
                is_reference = a is None or not a.n_present
                text = "no values in the reference" if is_reference else "no values now"
                kind_of_gap = _NO_REFERENCE if is_reference else _NO_CURRENT
                anomalies.report(
                    deviations, feature.name, (kind_of_gap, f"no {role} measured", text)
                )
            elif value > threshold:
                text = f"{name} {value:.4g}, at most {threshold:.4g}"
                anomalies.report(deviations, feature.name, (anomaly, role, text))
    return deviations


def _asked(feature: Any, role: str) -> list[tuple[float, _Comparator]]:
    """List the distances that a schema wants to be measured of a column, with their thresholds."""
    if role not in ("drift", "skew"):
        raise InvalidArgumentError(f"no role {role!r}: use drift or skew")
    comparator = getattr(feature, f"{role}_comparator")
    kinds = [field.name for field, _ in comparator.ListFields()]
    if other := sorted(set(kinds) - set(_COMPARATORS)):
        raise InvalidArgumentError(
            f"the {role}_comparator of {feature.name!r} asks for {other}, which is not measured"
            f" here: use one of {sorted(_COMPARATORS)}"
        )
    thresholds = {kind: getattr(comparator, kind).threshold for kind in kinds}
    for kind, threshold in thresholds.items():
        if not 0 <= threshold <= 1:
            raise InvalidArgumentError(
                f"the {role}_comparator of {feature.name!r} has {kind} {threshold}, expected a"
                " threshold from 0 to 1"
            )
    return [(threshold, _COMPARATORS[kind]) for kind, threshold in thresholds.items()]


def plot(report: DriftReport, ax: "Axes", *, n_columns: int = 12) -> "Axes":
    """Draw how far columns have moved.

    Args:
        report: Ranked, the first on top.
        ax: Where to draw.
        n_columns: How many columns of the report at most, from the first.

    Returns:
        The same axes. One row per column: a dot for its PSI, filled if it is above its threshold,
        and a tick for the threshold. The scale is logarithmic; what is below 1e-4 is drawn there.
        The rules of thumb .1 and .25 are dotted lines.

    Raises:
        InvalidArgumentError: The report has no column.
    """
    columns = report.columns[:n_columns]
    if not columns:
        raise InvalidArgumentError("no column to draw; compare tables that share columns")
    rows = np.arange(len(columns))
    psi = np.array([max(column.psi, MIN_SHARE) for column in columns])
    threshold = np.array([column.threshold for column in columns])
    moved = np.array([column.has_moved for column in columns])
    ax.hlines(rows, MIN_SHARE, psi, color="0.8", linewidth=1)
    for is_filled, label in ((True, "above its threshold"), (False, "not above")):
        of_kind = moved == is_filled
        face = "0.1" if is_filled else "white"
        ax.plot(psi[of_kind], rows[of_kind], "o", color="0.1", markerfacecolor=face, label=label)
    if np.isfinite(threshold).any():
        ax.plot(threshold, rows, "|", color="0.4", markersize=14, label="threshold")
    for rule in _RULES_OF_THUMB:
        ax.axvline(rule, color="0.6", linestyle=":", linewidth=1)
        ax.annotate(
            f"{rule:g}",
            (rule, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    ax.set(xscale="log", xlabel="population stability index (no unit, log scale)")
    ax.set_yticks(rows, [column.column for column in columns])
    ax.set_ylim(len(columns) - 0.5, -0.5)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
    return ax


def plot_bins(reference: ColumnStatistics, current: ColumnStatistics, ax: "Axes") -> "Axes":
    """Draw the bins of a column's PSI.

    Args:
        reference: The column as it was.
        current: The column as it is.
        ax: Where to draw.

    Returns:
        The same axes: two bars per bin, the share then and now, and above them the bin's part of
        the PSI, where it's .005 or more. A bin of numbers is named by where it begins.
    """
    bins = psi_bins(reference, current)
    places = np.arange(len(bins))
    for shift, side, color in ((-0.2, "reference", "0.75"), (0.2, "current", "0.25")):
        ax.bar(places + shift, bins[side], width=0.4, color=color, label=side)
    heights = bins[["reference", "current"]].max(axis=1).to_numpy()
    for place, height, term in zip(places, heights, bins["psi"].to_numpy(), strict=True):
        if term >= 0.005:
            ax.annotate(
                f"{term:.2f}", (place, height), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize="small",
            )  # fmt: skip
    labels = [_bin_label(name) for name in bins["bin"]]
    ax.set_xticks(places, labels)
    ax.set(ylabel="share of the rows", ylim=(0, 1.15 * heights.max()))
    ax.legend(frameon=False)
    return ax


def _bin_label(name: Any) -> str:
    if isinstance(name, str):
        return name
    if np.isnan(name):
        return "missing"
    return "lower" if np.isinf(name) else f"{name:.3g}"
