"""What is wrong with a table, by its statistics and a schema.

Row rules look at one row, a schema at a table as a whole: which columns there are, how many values
are missing, what share is outside the vocabulary. The result is tensorflow-metadata's message, as
TFDV gives it, and a table to read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlops_mini.data.inference import TYPES, number_domain, range_text
from mlops_mini.data.statistics import ColumnStatistics, TableStatistics

N_EXAMPLES = 5
_Reason = anomalies_pb2.AnomalyInfo
_Found = tuple[int, str, str]  # type, short description, description


def validate(statistics: TableStatistics, schema: schema_pb2.Schema) -> anomalies_pb2.Anomalies:
    """Validate a table against a schema.

    An error is a column that is missing, unknown to the schema, wholly empty, there in too few
    rows, of another type or out of its range, and a text column in which too many are outside the
    vocabulary. Fewer of those are a warning. Whole numbers will do where the schema says FLOAT, and
    a float64 column where it says INT, as pandas makes it of whole numbers with missing ones, as
    long as each value is whole.

    Args:
        statistics: Of the table.
        schema: What is expected of it, best a reviewed one.

    Returns:
        Anomalies by column; none if all is as expected.

    >>> from mlops_mini.data import datasets, inference, statistics
    >>> february = datasets.weather().query("month == 2")
    >>> counted = statistics.add(statistics.create(), february)
    >>> table(validate(counted, inference.reviewed("weather")))["description"].to_dict()
    {'wind_speed': '1 of 2010 values outside 0 to 100, such as 1048.36058'}
    """
    anomalies = anomalies_pb2.Anomalies(baseline=schema)
    features = {feature.name: feature for feature in schema.feature}
    for name in dict.fromkeys([*features, *statistics.columns]):
        feature, column = features.get(name), statistics.columns.get(name)
        if feature is None:
            text = f"column not in the schema, which has {len(features)} others"
            report(anomalies, name, (_Reason.SCHEMA_NEW_COLUMN, "new column", text))
        elif column is None:
            if feature.presence.min_count or feature.presence.min_fraction:
                text = f"no such column; there are {', '.join(statistics.columns)}"
                report(anomalies, name, (_Reason.SCHEMA_MISSING_COLUMN, "missing column", text))
        else:
            for found in (*_presence(feature, column), *_values(feature, column)):
                report(anomalies, name, found)
            _report_unseen(anomalies, feature, column)
    return anomalies


def table(anomalies: anomalies_pb2.Anomalies) -> pd.DataFrame:
    """Show anomalies as a table.

    Args:
        anomalies: As `validate` gives them.

    Returns:
        One row a column of the data, index `column`: `severity` ERROR or WARNING, `anomaly` in a
        few words, `description` with numbers. Errors first.
    """
    rows = [
        (name, info.Severity.Name(info.severity), reason.short_description, reason.description)
        for name, info in anomalies.anomaly_info.items()
        for reason in info.reason
    ]
    columns = ["column", "severity", "anomaly", "description"]
    frame = pd.DataFrame(rows, columns=columns, dtype=object).set_index("column")
    return frame.sort_index().sort_values("severity", kind="stable")


def report(
    anomalies: anomalies_pb2.Anomalies, name: str, found: _Found, *, warning: bool = False
) -> None:
    """Add a finding on a column to what is known of it; the worst severity stays.

    Args:
        anomalies: Gets the finding.
        name: The column.
        found: An `AnomalyInfo.Type`, a few words, and a sentence with numbers.
        warning: Whether the data may be used all the same.
    """
    info = anomalies.anomaly_info[name]
    info.path.step[:] = [name]
    info.severity = max(info.severity, info.WARNING if warning else info.ERROR)
    kind, short, text = found
    info.reason.add(type=kind, short_description=short, description=text)
    info.short_description = short if len(info.reason) == 1 else "several"
    info.description = "; ".join(reason.description for reason in info.reason)


def _presence(feature: Any, column: ColumnStatistics) -> Iterator[_Found]:
    n_rows = column.n_present + column.n_missing
    least = feature.presence.min_fraction
    if feature.presence.min_count and not column.n_present:
        text = f"not one value in {n_rows} rows"
        yield _Reason.FEATURE_TYPE_NOT_PRESENT, "wholly empty", text
    elif n_rows and column.n_present / n_rows < least:
        text = f"a value in {column.n_present / n_rows:.4f} of {n_rows} rows, expected {least:.4g}"
        yield _Reason.FEATURE_TYPE_LOW_FRACTION_PRESENT, "too many missing", text


def _values(feature: Any, column: ColumnStatistics) -> Iterator[_Found]:
    if not column.n_present:
        return
    is_text = feature.type == schema_pb2.BYTES
    if is_text != (column.kind == "text"):
        text = f"{'numbers' if is_text else 'texts'}, expected {TYPES[feature.type]}"
        yield _Reason.UNEXPECTED_DATA_TYPE, "other type", text
        return
    if feature.type == schema_pb2.INT and column.n_fractional:
        values = column.counts.index.to_numpy()
        parts = values[np.floor(values) != np.where(np.isfinite(values), values, np.nan)]
        example = f", such as {parts[0]:g}" if len(parts) else ""  # rounding may hide them all
        text = f"{column.n_fractional} of {column.n_present} values not whole{example}"
        yield _Reason.UNEXPECTED_DATA_TYPE, "other type", text
    if domain := number_domain(feature):
        yield from _range(domain, column)


def _range(domain: Any, column: ColumnStatistics) -> Iterator[_Found]:
    low = domain.min if domain.HasField("min") else -np.inf
    high = domain.max if domain.HasField("max") else np.inf
    is_int = isinstance(domain, schema_pb2.IntDomain)
    # A FloatDomain keeps its limits as float32: what rounds to a limit is within it.
    with np.errstate(over="ignore"):
        values = np.append([column.minimum, column.maximum], column.counts.index)
        values = values if is_int else values.astype(np.float32)
    (least, most), counted = values[:2], values[2:]
    if least >= low and most <= high:
        return
    outside = (counted < low) | (counted > high)
    n_outside = max(int(column.counts[outside].sum()), 1)  # rounding may hide the last one
    worst = column.maximum if most > high else column.minimum
    text = (
        f"{n_outside} of {column.n_present} values outside {range_text(domain)},"
        f" such as {worst:.10g}"
    )
    number, size = "INT" if is_int else "FLOAT", "BIG" if most > high else "SMALL"
    kind = _Reason.Type.Value(f"{number}_TYPE_{size}_{number}")
    yield kind, "out of range", text


def _report_unseen(
    anomalies: anomalies_pb2.Anomalies, feature: Any, column: ColumnStatistics
) -> None:
    if not feature.HasField("string_domain") or column.kind != "text" or not column.n_present:
        return
    unseen = column.counts[~column.counts.index.isin(list(feature.string_domain.value))]
    if unseen.empty:
        return
    n_rows = column.counts.sum()
    share = unseen.sum() / n_rows
    least = feature.distribution_constraints.min_domain_mass
    most_frequent = unseen.sort_values(ascending=False, kind="stable")[:N_EXAMPLES]
    examples = ", ".join(f"{text} {n}" for text, n in most_frequent.items())
    dots = ", ..." if len(unseen) > N_EXAMPLES else ""
    text = f"{share:.5f} of {column.n_present} values outside the vocabulary: {examples}{dots}"
    found = (_Reason.ENUM_TYPE_UNEXPECTED_STRING_VALUES, "unseen values", text)
    report(anomalies, feature.name, found, warning=(n_rows - unseen.sum()) / n_rows >= least)
