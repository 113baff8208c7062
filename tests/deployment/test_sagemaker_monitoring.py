"""Files for Model Monitor, from our statistics, schema and request log."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.deployment import sagemaker_monitoring as monitoring
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import tables
from mlops_mini.prediction_log import Reader, Record, frame
from mlops_mini.statistics import mergeable, schemas
from tests.test_prediction_log import predict_record

TABLE = pd.DataFrame(
    {
        "distance": [100, 200, 300, 1100, None],
        "plan": ["a", "b", "a", "a", None],
        "temp": [0.5, -1.5, np.inf, 2.0, 3.0],
        "nothing": [None] * 5,
    }
)


def record(
    inputs: dict[str, list[object]], outputs: dict[str, list[object]], method: str = "predict"
) -> Record:
    return Record(
        method=method, request_id="r", time_s=1_354_320_000.5, model="m", version=3,
        signature_name="", sampling_rate=1.0,
        inputs={name: np.array(values) for name, values in inputs.items()},
        outputs={name: np.array(values) for name, values in outputs.items()},
    )  # fmt: skip


def test_statistics_say_what_ours_say() -> None:
    document = monitoring.statistics(mergeable.add(mergeable.create(), TABLE))

    assert document["dataset"] == {"item_count": 5}
    distance, plan, temp, nothing = document["features"]
    numbers = distance["numerical_statistics"]
    assert (distance["name"], distance["inferred_type"]) == ("distance", "Integral")
    assert numbers["common"] == {"num_present": 4, "num_missing": 1}
    assert [numbers[key] for key in ("mean", "sum", "min", "max")] == [425.0, 1700.0, 100.0, 1100.0]
    assert numbers["std_dev"] == pytest.approx(TABLE["distance"].std(ddof=0))
    buckets = numbers["distribution"]["kll"]["buckets"]
    assert len(buckets) == 10
    assert sum(bucket["count"] for bucket in buckets) == 4
    assert buckets[0] == {"lower_bound": 100.0, "upper_bound": 200.0, "count": 1.0}
    assert buckets[-1] == {"lower_bound": 1000.0, "upper_bound": 1100.0, "count": 1.0}
    assert plan["string_statistics"]["distinct_count"] == 2
    categorical = plan["string_statistics"]["distribution"]["categorical"]
    assert categorical == {"buckets": [{"value": "a", "count": 3}, {"value": "b", "count": 1}]}
    assert temp["inferred_type"] == "Fractional"
    assert temp["numerical_statistics"]["max"] == 3.0  # JSON has no infinite numbers
    assert nothing["inferred_type"] == "Unknown"
    json.dumps(document, allow_nan=False)


def test_constraints_of_the_reviewed_schema_of_the_flights() -> None:
    schema = schemas.read(tables.FLIGHTS.schema)
    document = monitoring.constraints(schema)

    by_name = {feature["name"]: feature for feature in document["features"]}
    assert list(by_name) == [feature.name for feature in schema.feature]
    assert by_name["distance"]["num_constraints"] == {"is_non_negative": True}
    assert "num_constraints" not in by_name["dep_delay"]
    assert by_name["origin"]["string_constraints"] == {"domains": ["EWR", "JFK", "LGA"]}
    assert by_name["dep_delay"]["completeness"] == 0.8
    assert document["monitoring_config"]["domain_content_threshold"] == 0.99
    json.dumps(document, allow_nan=False)


def test_a_range_that_goes_below_0_is_not_non_negative() -> None:
    document = monitoring.constraints(schemas.read(tables.WEATHER.schema))

    (temp,) = (feature for feature in document["features"] if feature["name"] == "temp")
    assert temp["num_constraints"] == {"is_non_negative": False}
    assert temp["inferred_type"] == "Fractional"


def test_each_row_of_a_request_is_captured_as_flat_json() -> None:
    lines = monitoring.captured(
        record(
            {"x": [1.5, np.nan], "carrier": [b"AA", b"\xff"], "pixels": [[1, 2], [3, 4]]},
            {"p_late": [0.25, 0.75]},
        )
    )

    sides = [line["captureData"] for line in lines]
    assert [json.loads(side["endpointInput"]["data"]) for side in sides] == [
        {"x": 1.5, "carrier": "AA", "pixels": [1, 2]},
        {"x": None, "carrier": "\ufffd", "pixels": [3, 4]},
    ]
    assert [side["endpointOutput"]["data"] for side in sides] == [
        '{"p_late": 0.25}', '{"p_late": 0.75}',
    ]  # fmt: skip
    assert sides[0]["endpointInput"]["mode"] == "INPUT"
    assert sides[0]["endpointInput"]["encoding"] == "JSON"
    assert lines[1]["eventMetadata"] == {
        "eventId": "r-1", "inferenceId": "r", "inferenceTime": "2012-12-01T00:00:00Z",
    }  # fmt: skip
    assert lines[0]["eventVersion"] == "0"


@pytest.mark.parametrize(
    "wrong",
    [
        record({"x": [1, 2]}, {"y": [1]}),
        record({"inputs": [b"e"]}, {"outputs": [1]}, method="regress"),
    ],
)
def test_what_has_no_rows_is_not_captured(wrong: Record) -> None:
    with pytest.raises(InvalidArgumentError, match=r"request r \(\w+\) isn't a Predict request"):
        monitoring.captured(wrong)


def test_a_log_becomes_files_by_variant_and_hour(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(frame(predict_record(1)) + frame(predict_record(2)))

    written = monitoring.write_captured(
        Reader(log), tmp_path / "s3", endpoint="flights", variants={3: "v3"}
    )

    expected = tmp_path / "s3/flights/v3/1970/01/01/00/captured.jsonl"
    assert written == [expected]
    lines = [json.loads(line) for line in expected.read_text().splitlines()]
    inputs = [json.loads(line["captureData"]["endpointInput"]["data"]) for line in lines]
    assert inputs == [{"x": 1.0}, {"x": 2.0}]
    others = {"endpoint": "flights", "variants": {4: "v4"}}
    assert monitoring.write_captured(Reader(log), tmp_path / "none", **others) == []
