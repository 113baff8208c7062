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

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.statistics import schemas
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics
from mlops_mini.statistics.schemas import TYPES, number_domain, range_text

N_EXAMPLES = 5
_Reason = anomalies_pb2.AnomalyInfo
_Fault = tuple[int, str, str]  # type, short description, description


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

    Raises:
        InvalidArgumentError: The schema expects something that is not looked at here, such as
            unique values, so that nothing would ever be wrong with it.

    >>> from mlops_mini.statistics import mergeable, schemas
    >>> def counted(*temp_c):
    ...     return mergeable.add(mergeable.create(), pd.DataFrame({"temp_c": temp_c}))
    >>> schema = schemas.infer(counted(18.5, 21.0, 30.0), literal=True)
    >>> table(validate(counted(19.0, 2100.0), schema))["description"].to_dict()
    {'temp_c': '1 of 2 values outside 18.5 to 30, such as 2100'}
    """
    for feature in schema.feature:
        _require_known(schema, feature)
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
            texts = schemas.vocabulary(schema, feature)
            expected = _expected_kind(feature, texts)
            for fault in (*_presence(feature, column), *_values(feature, column, expected)):
                report(anomalies, name, fault)
            _report_unseen(anomalies, feature, column, texts)
    return anomalies


def table(anomalies: anomalies_pb2.Anomalies) -> pd.DataFrame:
    """Show anomalies as a table.

    Args:
        anomalies: As `validate` gives them.

    Returns:
        One row per column of the data, index `column`: `severity` ERROR or WARNING, `anomaly` in a
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
    anomalies: anomalies_pb2.Anomalies, name: str, fault: _Fault, *, warning: bool = False
) -> None:
    """Add a finding on a column to what is known of it; the worst severity stays.

    Args:
        anomalies: Gets the finding.
        name: The column.
        fault: An `AnomalyInfo.Type`, a few words, and a sentence with numbers.
        warning: Whether the data may be used all the same.
    """
    info = anomalies.anomaly_info[name]
    info.path.step[:] = [name]
    info.severity = max(info.severity, info.WARNING if warning else info.ERROR)
    kind, short, text = fault
    info.reason.add(type=kind, short_description=short, description=text)
    info.short_description = short if len(info.reason) == 1 else "several"
    info.description = "; ".join(reason.description for reason in info.reason)


# What is looked at, and what holds of every table or says nothing about values.
_KNOWN_FIELDS = {
    *("name", "type", "presence", "domain", "int_domain", "float_domain", "string_domain"),
    *("distribution_constraints", "drift_comparator", "skew_comparator", "value_count", "shape"),
    *("annotation", "deprecated", "lifecycle_stage", "in_environment", "not_in_environment"),
}


def _require_known(schema: schema_pb2.Schema, feature: Any) -> None:
    """Refuse expectations that nothing here would ever check."""
    fields = {field.name for field, _ in feature.ListFields()}
    unknown = sorted(fields - _KNOWN_FIELDS)
    if feature.type not in TYPES:
        unknown.append(f"type {schema_pb2.FeatureType.Name(feature.type)}")
    if feature.HasField("domain") and feature.domain not in {d.name for d in schema.string_domain}:
        unknown.append(f"domain {feature.domain!r}, which the schema does not define,")
    if (number_domain(feature) is not None) and feature.type == schema_pb2.BYTES:
        unknown.append("a range of texts")
    if fields & {"domain", "string_domain"} and feature.type in {schema_pb2.INT, schema_pb2.FLOAT}:
        unknown.append("a vocabulary of numbers")
    if unknown:
        raise InvalidArgumentError(
            f"the schema expects {', '.join(unknown)} of {feature.name!r}, which is not checked"
            " here: use type, presence, a range of numbers or a vocabulary of texts, or take it out"
        )


def _expected_kind(feature: Any, texts: frozenset[str]) -> str | None:
    """Tell what a column must hold: `text` or `number`, None if the schema does not say."""
    if feature.type == schema_pb2.TYPE_UNKNOWN:
        if number_domain(feature) is not None:
            return "number"
        return "text" if texts else None
    return "text" if feature.type == schema_pb2.BYTES else "number"


def _presence(feature: Any, column: ColumnStatistics) -> Iterator[_Fault]:
    n_rows = column.n_present + column.n_missing
    least = feature.presence.min_fraction
    if column.n_present < feature.presence.min_count and column.n_present:
        text = f"{column.n_present} values, expected at least {feature.presence.min_count}"
        yield _Reason.FEATURE_TYPE_LOW_NUMBER_PRESENT, "too few values", text
    if feature.presence.min_count and not column.n_present:
        text = f"not one value in {n_rows} rows"
        yield _Reason.FEATURE_TYPE_NOT_PRESENT, "wholly empty", text
    elif n_rows and column.n_present / n_rows < least:
        text = f"a value in {column.n_present / n_rows:.4f} of {n_rows} rows, expected {least:.4g}"
        yield _Reason.FEATURE_TYPE_LOW_FRACTION_PRESENT, "too many missing", text


def _values(feature: Any, column: ColumnStatistics, expected: str | None) -> Iterator[_Fault]:
    if not column.n_present:
        return
    if expected not in {column.kind, None}:
        is_unknown = feature.type == schema_pb2.TYPE_UNKNOWN
        text = f"{column.kind}s, expected {f'{expected}s' if is_unknown else TYPES[feature.type]}"
        yield _Reason.UNEXPECTED_DATA_TYPE, "other type", text
        return
    if feature.type == schema_pb2.INT and column.n_fractional:
        values = column.counts.index.to_numpy()
        parts = values[np.floor(values) != np.where(np.isfinite(values), values, np.nan)]
        example = f", such as {parts[0]:g}" if len(parts) else ""  # rounding may hide them all
        text = f"{column.n_fractional} of {column.n_present} values not whole{example}"
        yield _Reason.UNEXPECTED_DATA_TYPE, "other type", text
    domain = number_domain(feature)
    if domain is not None:
        yield from _not_finite(domain, column)
        yield from _range(domain, column)


def _not_finite(domain: Any, column: ColumnStatistics) -> Iterator[_Fault]:
    n_infinite = column.n_present - column.n_finite
    if getattr(domain, "disallow_inf", False) and n_infinite:
        text = f"{n_infinite} of {column.n_present} values are infinite"
        yield _Reason.FLOAT_TYPE_HAS_INF, "infinite values", text
    if getattr(domain, "disallow_nan", False) and column.n_missing:
        text = f"{column.n_missing} of {column.n_missing + column.n_present} rows are NaN"
        yield _Reason.FLOAT_TYPE_HAS_NAN, "NaN", text


def _range(domain: Any, column: ColumnStatistics) -> Iterator[_Fault]:
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
    anomalies: anomalies_pb2.Anomalies,
    feature: Any,
    column: ColumnStatistics,
    texts: frozenset[str],
) -> None:
    is_asked = feature.HasField("string_domain") or feature.HasField("domain")
    if not is_asked or column.kind != "text" or not column.n_present:
        return
    unseen = column.counts[~column.counts.index.isin(list(texts))]
    if unseen.empty:
        return
    n_rows = column.counts.sum()
    share = unseen.sum() / n_rows
    least = feature.distribution_constraints.min_domain_mass
    most_frequent = unseen.sort_values(ascending=False, kind="stable")[:N_EXAMPLES]
    examples = ", ".join(f"{text} {n}" for text, n in most_frequent.items())
    dots = ", ..." if len(unseen) > N_EXAMPLES else ""
    text = f"{share:.5f} of {column.n_present} values outside the vocabulary: {examples}{dots}"
    fault = (_Reason.ENUM_TYPE_UNEXPECTED_STRING_VALUES, "unseen values", text)
    report(anomalies, feature.name, fault, warning=(n_rows - unseen.sum()) / n_rows >= least)
