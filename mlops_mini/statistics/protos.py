"""Statistics as the messages of tensorflow-metadata, which TFDV and Facets read.

Everything that these tools show is in the fields where they look for it. The counts of values, from
which the rest follows, are there too: those of texts as the rank histogram, those of numbers as a
custom statistic, which other tools pass over. So a file holds all that `statistics` knows, and
drift against a past month needs its file and not its rows.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlops_mini import files
from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics, value_counts

N_BUCKETS = 10
N_TOP_VALUES = 20
_VALUE_COUNTS, _LEVEL, _FRACTIONAL = "value_counts", "level", "n_fractional"


def to_proto(
    statistics: TableStatistics, *, name: str = "", schema: schema_pb2.Schema | None = None
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Write statistics as a message.

    Args:
        statistics: Of one table.
        name: What tools call the data, such as `2013-01`.
        schema: Without it numbers that are all whole are an INT, even in a dry month's `precip`;
            with it they are what the schema says, for validators that compare types.

    Returns:
        One data set. Histograms have ten buckets: STANDARD of equal width, QUANTILES of equal mass.

    >>> import pandas as pd
    >>> from mlops_mini.statistics import mergeable
    >>> plans = pd.DataFrame({"plan": ["basic", "gold", "basic"]})
    >>> table = mergeable.add(mergeable.create(), plans)
    >>> print(to_proto(table).datasets[0].features[0].string_stats.top_values[0])
    value: "basic"
    frequency: 2
    <BLANKLINE>
    """
    floats = {f.name for f in schema.feature if f.type == schema_pb2.FLOAT} if schema else set()
    message = statistics_pb2.DatasetFeatureStatisticsList()
    table = message.datasets.add(name=name, num_examples=statistics.n_rows)
    for column_name, column in statistics.columns.items():
        feature = table.features.add()
        feature.path.step.append(column_name)
        if column.kind == "text":
            feature.type = feature.STRING
            _write_texts(column, feature)
        else:
            is_float = column.n_fractional or column_name in floats
            feature.type = feature.FLOAT if is_float else feature.INT
            _write_numbers(column, feature)
        feature.custom_stats.add(name=_LEVEL, num=column.level)
    return message


def from_proto(message: statistics_pb2.DatasetFeatureStatisticsList) -> TableStatistics:
    """Read statistics from a message.

    Args:
        message: As `to_proto` writes it.

    Returns:
        The same statistics; standard deviations to about 1e-15 of themselves.

    Raises:
        DataIntegrityError: It holds not one data set, or another tool wrote it, without the counts.
    """
    if len(message.datasets) != 1:
        raise DataIntegrityError(
            f"statistics of {len(message.datasets)} data sets, expected one: read a file that"
            " protos.write wrote"
        )
    (table,) = message.datasets
    columns = {}
    for feature in table.features:
        name = feature.name or ".".join(feature.path.step)
        custom = {statistic.name: statistic for statistic in feature.custom_stats}
        if _LEVEL not in custom:
            raise DataIntegrityError(
                f"statistics of column {name!r} hold no counts of its values: another tool wrote"
                " them; make them from the rows with mergeable.add"
            )
        read = _read_texts if feature.type == feature.STRING else _read_numbers
        columns[name] = read(feature, custom)
    return TableStatistics(n_rows=table.num_examples, columns=columns)


def write(statistics: TableStatistics, path: Path, *, name: str = "") -> None:
    """Write statistics into a file, as TFDV's `load_stats_binary` reads it.

    Args:
        statistics: Of one table.
        path: The file, such as `2013-01.pb`; an older one is replaced.
        name: What tools call the data.
    """
    content = to_proto(statistics, name=name).SerializeToString(deterministic=True)
    with files.whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def read(path: Path) -> TableStatistics:
    """Read statistics from a file.

    Args:
        path: As `write` wrote it.

    Returns:
        The statistics.

    Raises:
        NotFoundError: There is no such file.
        DataIntegrityError: It is cut off, or something else.
    """
    try:
        return from_proto(statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()))
    except FileNotFoundError as exc:
        raise NotFoundError(f"no statistics {path}; write them with protos.write") from exc
    except DecodeError as exc:
        raise DataIntegrityError(
            f"{path} holds no statistics ({exc}); write it again with protos.write"
        ) from exc


def _write_common(column: ColumnStatistics, common: Any) -> None:
    common.num_non_missing = common.tot_num_values = column.n_present
    common.num_missing = column.n_missing
    if column.n_present:
        common.min_num_values = common.max_num_values = 1
        common.avg_num_values = 1.0


def _write_texts(column: ColumnStatistics, feature: Any) -> None:
    stats = feature.string_stats
    _write_common(column, stats.common_stats)
    stats.unique = column.n_distinct
    stats.avg_length = column.n_characters / max(column.n_present, 1)
    by_rank = column.counts.sort_values(ascending=False, kind="stable")  # equal ones by name
    for rank, (text, n_rows) in enumerate(by_rank.items()):
        bucket = stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=text)
        bucket.sample_count = n_rows
        if rank < N_TOP_VALUES:
            stats.top_values.add(value=text, frequency=n_rows)


def _read_texts(feature: Any, custom: dict[str, Any]) -> ColumnStatistics:
    stats = feature.string_stats
    n_rows_by_text = {bucket.label: bucket.sample_count for bucket in stats.rank_histogram.buckets}
    n_present = stats.common_stats.num_non_missing
    return ColumnStatistics(
        kind="text",
        n_missing=stats.common_stats.num_missing,
        n_present=n_present,
        counts=value_counts(list(n_rows_by_text), list(n_rows_by_text.values())).sort_index(),
        level=int(custom[_LEVEL].num),
        n_characters=round(stats.avg_length * n_present),
    )


def _write_numbers(column: ColumnStatistics, feature: Any) -> None:
    stats = feature.num_stats
    _write_common(column, stats.common_stats)
    feature.custom_stats.add(name=_FRACTIONAL, num=column.n_fractional)
    exact = feature.custom_stats.add(name=_VALUE_COUNTS).histogram
    for value, n_rows in column.counts.items():
        exact.buckets.add(low_value=value, high_value=value, sample_count=n_rows)
    if not column.n_present:
        return
    stats.mean, stats.std_dev = column.mean, column.std
    stats.min, stats.max = column.minimum, column.maximum
    stats.median = column.quantiles([0.5])[0]
    stats.num_zeros = int(column.counts.get(0.0, 0))
    edges = column.equal_width_edges(N_BUCKETS)
    if not len(edges):  # nothing but infinite numbers
        return
    _write_histogram(stats, "STANDARD", edges, column.counts_between(edges[1:-1]))
    edges = column.quantiles(np.linspace(0, 1, N_BUCKETS + 1))
    _write_histogram(stats, "QUANTILES", edges, np.full(N_BUCKETS, column.n_present / N_BUCKETS))


def _write_histogram(stats: Any, kind: str, edges: Any, n_rows: Any) -> None:
    histogram = stats.histograms.add(type=statistics_pb2.Histogram.HistogramType.Value(kind))
    for low, high, count in zip(edges[:-1], edges[1:], n_rows, strict=True):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)


def _read_numbers(feature: Any, custom: dict[str, Any]) -> ColumnStatistics:
    stats = feature.num_stats
    common = stats.common_stats
    buckets = custom[_VALUE_COUNTS].histogram.buckets
    column = ColumnStatistics(
        n_missing=common.num_missing,
        n_present=common.num_non_missing,
        counts=value_counts(
            [bucket.low_value for bucket in buckets], [bucket.sample_count for bucket in buckets]
        ),
        level=int(custom[_LEVEL].num),
        n_fractional=int(custom[_FRACTIONAL].num),
    )
    if not column.n_present:
        return column
    return replace(
        column,
        mean=stats.mean,
        squares=stats.std_dev**2 * column.n_finite,
        minimum=stats.min,
        maximum=stats.max,
    )
