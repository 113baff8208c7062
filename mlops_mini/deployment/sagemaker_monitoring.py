"""What SageMaker's Model Monitor reads, from our log, statistics and schema.

Two files are its baseline, `statistics.json` and `constraints.json`; what an endpoint was asked is
captured as JSON lines. AWS's analyzer, which compares them, has not run here.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-statistics.html,
model-monitor-byoc-constraints.html and model-monitor-data-capture-endpoint.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0 import schema_pb2

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.prediction_log import Record
from mlops_mini.statistics import schemas
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics

JsonObject = dict[str, Any]

_N_BUCKETS = 10
_TYPES = {schema_pb2.BYTES: "String", schema_pb2.INT: "Integral", schema_pb2.FLOAT: "Fractional"}
_DRIFT = {"perform_comparison": "Enabled", "comparison_threshold": 0.1}


def statistics(table: TableStatistics) -> JsonObject:
    """Make the contents of `statistics.json`.

    Args:
        table: Of what the model learned from.

    Returns:
        A feature for each column. Numbers have the buckets of a histogram, but not the sketch that
        the analyzer would add, so it compares their distribution by the buckets' counts alone.

    >>> import pandas as pd
    >>> from mlops_mini.statistics import mergeable
    >>> counted = mergeable.add(mergeable.create(), pd.DataFrame({"plan": ["a", "b", "a"]}))
    >>> statistics(counted)["features"][0]["string_statistics"]["distinct_count"]
    2.0
    """
    return {
        "version": 0.0,
        "dataset": {"item_count": table.n_rows},
        "features": [_feature(name, column) for name, column in table.columns.items()],
    }


def constraints(schema: schema_pb2.Schema) -> JsonObject:
    """Make the contents of `constraints.json`.

    Args:
        schema: The reviewed one. Of its ranges only "not negative" can be expressed there, and of
            shares of texts outside a vocabulary a single one for all columns: the largest.

    Returns:
        A feature for each column.
    """
    masses = [
        feature.distribution_constraints.min_domain_mass
        for feature in schema.feature
        if schemas.vocabulary(schema, feature)
    ]
    return {
        "version": 0.0,
        "features": [_constraint(schema, feature) for feature in schema.feature],
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": 1.0,
            "domain_content_threshold": min(masses, default=1.0),
            "distribution_constraints": {**_DRIFT, "comparison_method": "Robust"},
        },
    }


def captured(record: Record) -> list[JsonObject]:
    """Write a record of the request log as the lines that data capture would have written.

    Args:
        record: A Predict request.

    Returns:
        A line for each row, with inputs and outputs as flat JSON, which the analyzer reads without
        a script of ours. The id of a row is that of its request and its number in it.

    Raises:
        InvalidArgumentError: It isn't a Predict request in rows.
    """
    arrays = [*record.inputs.values(), *record.outputs.values()]
    n_rows = {len(array) if array.ndim else -1 for array in arrays}
    if record.method != "predict" or len(n_rows) != 1 or -1 in n_rows:
        raise InvalidArgumentError(
            f"request {record.request_id} ({record.method}) isn't a Predict request in rows"
        )
    time = datetime.fromtimestamp(record.time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        {
            "captureData": {
                "endpointInput": _side("INPUT", record.inputs, row),
                "endpointOutput": _side("OUTPUT", record.outputs, row),
            },
            "eventMetadata": {
                "eventId": f"{record.request_id}-{row}",
                "inferenceId": record.request_id,
                "inferenceTime": time,
            },
            "eventVersion": "0",
        }
        for row in range(n_rows.pop())
    ]


def write_captured(
    records: Iterable[Record], folder: Path, *, endpoint: str, variants: Mapping[int, str]
) -> list[Path]:
    """Write records where data capture would have put them.

    Args:
        records: Such as a `prediction_log.Reader`.
        folder: Receives `ENDPOINT/VARIANT/yyyy/mm/dd/hh/captured.jsonl`.
        endpoint: Name of the endpoint.
        variants: Name of each version's variant; records of other versions are passed over.

    Returns:
        The files, in order.

    Raises:
        InvalidArgumentError: A record isn't a Predict request in rows.
    """
    lines: dict[Path, list[str]] = {}
    for record in records:
        variant = variants.get(record.version) if record.version is not None else None
        if variant is not None:
            hour = datetime.fromtimestamp(record.time_s, UTC).strftime("%Y/%m/%d/%H")
            file = folder / endpoint / variant / hour / "captured.jsonl"
            lines.setdefault(file, []).extend(json.dumps(line) for line in captured(record))
    for file, texts in lines.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{text}\n" for text in texts))
    return sorted(lines)


def _feature(name: str, column: ColumnStatistics) -> JsonObject:
    common = {"num_present": column.n_present, "num_missing": column.n_missing}
    if column.kind == "text":
        top = column.counts.sort_values(ascending=False, kind="stable").head(_N_BUCKETS)
        buckets = [{"value": str(text), "count": int(count)} for text, count in top.items()]
        return {
            "name": name,
            "inferred_type": "String" if column.n_present else "Unknown",
            "string_statistics": {
                "common": common,
                "distinct_count": float(column.n_distinct),
                "distribution": {"categorical": {"buckets": buckets}},
            },
        }
    numbers: JsonObject = {"common": common}
    if column.n_finite:
        edges = column.equal_width_edges(_N_BUCKETS)
        # The last bucket includes its upper bound.
        n_each = column.counts_between(np.append(edges[:-1], np.nextafter(edges[-1], np.inf)))
        numbers |= {
            "mean": column.mean,
            "sum": column.mean * column.n_finite,
            "std_dev": column.std,
            "min": float(edges[0]),
            "max": float(edges[-1]),
            "distribution": {"kll": {"buckets": _buckets(edges, n_each[1:-1])}},
        }
    is_whole = not column.n_fractional
    return {
        "name": name,
        "inferred_type": "Integral" if is_whole else "Fractional",
        "numerical_statistics": numbers,
    }


def _buckets(
    edges: npt.NDArray[np.float64], n_each: npt.NDArray[np.int64]
) -> list[dict[str, float]]:
    return [
        {"lower_bound": float(low), "upper_bound": float(high), "count": float(count)}
        for low, high, count in zip(edges[:-1], edges[1:], n_each, strict=True)
    ]


def _constraint(schema: schema_pb2.Schema, feature: Any) -> JsonObject:
    constraint: JsonObject = {
        "name": feature.name,
        "inferred_type": _TYPES.get(feature.type, "Unknown"),
        "completeness": feature.presence.min_fraction,
    }
    domain = schemas.number_domain(feature)
    if domain is not None:
        is_non_negative = domain.HasField("min") and domain.min >= 0
        constraint["num_constraints"] = {"is_non_negative": is_non_negative}
    if texts := schemas.vocabulary(schema, feature):
        constraint["string_constraints"] = {"domains": sorted(texts)}
    return constraint


def _side(mode: str, arrays: Mapping[str, npt.NDArray[Any]], row: int) -> JsonObject:
    values = {name: _plain(array[row].tolist()) for name, array in arrays.items()}
    return {
        "observedContentType": "application/json",
        "mode": mode,
        "data": json.dumps(values),
        "encoding": "JSON",
    }


def _plain(value: Any) -> Any:
    """Make a value what JSON can hold: NaN and infinite numbers become null."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value
