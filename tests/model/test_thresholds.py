"""The file of thresholds: what it says, what it can't say, and what TFMA reads of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    wrappers_pb2,
)

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.model import thresholds
from mlops_mini.model.thresholds import AUC, CALIBRATION, LOG_LOSS, Bounds, SliceMargin
from mlops_mini.photos.use_case import PHOTOS

# tensorflow_model_analysis/proto/config.proto of 0.52.0, compiled.
CONFIG_PROTO = Path(__file__).with_name("eval_config_0.52.0.binpb")


@pytest.fixture(scope="module")
def eval_config() -> Any:
    """TFMA's own message, without TFMA."""
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto.FromString(CONFIG_PROTO.read_bytes())
    assert list(file.dependency) == [wrappers_pb2.DESCRIPTOR.name]
    pool.AddSerializedFile(file.SerializeToString())
    named = pool.FindMessageTypeByName("tensorflow_model_analysis.EvalConfig")
    return message_factory.GetMessageClass(named)


def content() -> dict[str, Any]:
    return yaml.safe_load(thresholds.DEFAULT.read_text())


def write(folder: Path, fields: dict[str, Any]) -> Path:
    file = folder / "gate.yaml"
    file.write_text(yaml.safe_dump(fields))
    return file


def test_the_packages_own_file_says_what_the_defaults_are() -> None:
    ours = thresholds.read()

    assert ours.margin == 0.002
    assert ours.floors[CALIBRATION] == Bounds(lower_bound=0.5, upper_bound=2.0)
    assert ours.floors[AUC].lower_bound == 0.5
    assert len(ours.digest) == 64
    assert replace(ours, floors={}, digest="") == thresholds.Thresholds()


def test_tfma_reads_it_and_hands_it_back_the_same(eval_config) -> None:
    pro = SliceMargin(column="plan", value="pro", margin=0.03)
    ours = replace(thresholds.read(), slice_margins=(SliceMargin(column="plan", margin=0.01), pro))

    config = thresholds.to_eval_config(ours, label="churned", slices=["plan", "region"])
    message = json_format.ParseDict(config, eval_config())  # an unknown field is an error

    (metrics,) = (spec.metrics for spec in message.metrics_specs)
    assert [metric.class_name for metric in metrics] == [LOG_LOSS, AUC, CALIBRATION]
    of_all, *_ = metrics[0].per_slice_thresholds
    assert [each.ByteSize() for each in of_all.slicing_specs] == [0]  # all rows, and no slice
    assert of_all.threshold.change_threshold.absolute.value == 0.002
    assert not any(metric.HasField("threshold") for metric in metrics)
    assert message.options.min_slice_size.value == 200
    assert message.model_specs[1].is_baseline
    assert [dict(spec.feature_values) for spec in message.slicing_specs][-1] == {"plan": "pro"}
    for names in (True, False):  # those of the proto file, and JSON's own
        back = json_format.MessageToDict(message, preserving_proto_field_name=names)
        assert thresholds.from_eval_config(back, digest=ours.digest) == ours


def test_tfma_is_told_how_several_classes_are_judged(eval_config) -> None:
    slices = ["condition", "clothing"]
    photos = thresholds.read(PHOTOS.thresholds)

    config = thresholds.to_eval_config(photos, label="clothing_index", slices=slices, n_classes=10)
    message = json_format.ParseDict(config, eval_config())

    log_loss, auc, calibration = message.metrics_specs
    assert [each.metrics[0].class_name for each in message.metrics_specs] == [
        "SparseCategoricalCrossentropy", AUC, CALIBRATION
    ]  # fmt: skip
    assert [field.name for field, _ in log_loss.ListFields()] == ["metrics"]
    assert dict(auc.aggregate.class_weights) == dict.fromkeys(range(10), 1.0)
    assert list(calibration.binarize.k_list.values) == [1]
    by_column = [replace(each, column=column) for each in photos.slice_margins for column in slices]
    told = replace(photos, slice_margins=tuple(by_column), gate=thresholds.GateRules())
    for names in (True, False):
        back = json_format.MessageToDict(message, preserving_proto_field_name=names)
        assert thresholds.from_eval_config(back, digest=photos.digest) == told


def test_the_digest_is_the_files(tmp_path: Path) -> None:
    a = thresholds.read(write(tmp_path, content()))
    b = thresholds.read(write(tmp_path, content() | {"gate": {"min_days": 7}}))

    assert a.digest != b.digest
    assert b.gate == thresholds.GateRules(min_days=7)


def changed(path: list[str | int], value: Any) -> dict[str, Any]:
    """Change a field of the file, or add one."""
    fields = content()
    at: Any = fields
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return fields


LOSS: list[str | int] = ["metrics_specs", 0, "metrics", 0]
IN_SLICES = [*LOSS, "per_slice_thresholds", 0, "threshold", "change_threshold", "absolute"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["margin"], 0.1, r"the file has unknown fields \['margin'\]; those known are"),
        ([*LOSS, "limits"], {}, r"metrics has unknown fields \['limits'\]"),
        (["gate", "min_day"], 7, r"gate has unknown fields \['min_day'\]"),
        (["options", "k_anonymity"], 7, r"options has unknown fields \['k_anonymity'\]"),
        ([*LOSS, "threshold", "change_threshold", "absolute"], -0.1, "the margin of all rows is -"),
        (IN_SLICES, -0.1, "the margin of BinaryCrossEntropy of slices by any column is -0.1"),
        ([*LOSS, "threshold", "change_threshold", "absolute"], "low", "absolute must be a number"),
        ([*LOSS, "threshold", "change_threshold", "direction"], "UP", "with direction UP; changes"),
        ([*LOSS, "class_name"], "Recall", "a metric 'Recall'; those judged are"),
        (["metrics_specs"], [], "no change_threshold of BinaryCrossEntropy"),
        (["gate", "confidence"], 0.4, "confidence is 0.4, expected above .5"),
        (["gate", "min_days"], -1, "min_days is -1, expected a number from 0"),
        (["gate", "undecided"], "toss", "undecided is 'toss'; it's keep"),
        (["metrics_specs"], {"metrics": 1}, "metrics_specs must be a list"),
        ([*LOSS, "per_slice_thresholds", 0, "slicing_specs"], [{}], "two thresholds of all rows"),
        (
            ["metrics_specs", 0, "aggregate"],
            {"macro_average": True},
            "it's judged with neither",
        ),
        (["metrics_specs", 0, "binarize"], {"top_k_list": {}}, "binarize has unknown fields"),
        (["slicing_specs"], [{"feature_keys": ["a", "b"]}], r"a slice by \['a', 'b'\]: slices are"),
    ],
)
def test_what_it_cannot_say_is_told_with_the_file(tmp_path, path, value, message) -> None:
    file = write(tmp_path, changed(path, value))

    with pytest.raises(InvalidArgumentError, match=message) as refused:
        thresholds.read(file)

    assert str(refused.value).startswith(str(file))


def test_a_rule_for_a_slice_that_is_not_computed_is_refused() -> None:
    fields = changed([*LOSS, "per_slice_thresholds", 0, "slicing_specs"], [{"feature_keys": ["a"]}])

    thresholds.from_eval_config(fields)
    with pytest.raises(InvalidArgumentError, match=r"slices by \['a'\]; slicing_specs has"):
        thresholds.from_eval_config(fields | {"slicing_specs": [{}, {"feature_keys": ["b"]}]})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SliceMargin(column="region", margin=0.1), "a rule for slices by 'region'; models are"),
        (SliceMargin(column="plan", value="gold", margin=0.1), "the slice plan=gold; there are"),
    ],
)
def test_a_rule_for_a_slice_that_does_not_exist_is_refused(rule, message) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        thresholds.Thresholds(slice_margins=(rule,)).check_slices({"plan": ["basic", "pro"]})


def test_what_is_no_file_or_no_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no thresholds in"):
        thresholds.read(tmp_path / "gone.yaml")
    (tmp_path / "gate.yaml").write_text("metrics_specs: [")
    with pytest.raises(InvalidArgumentError, match=r"gate\.yaml is no YAML"):
        thresholds.read(tmp_path / "gate.yaml")
    (tmp_path / "gate.yaml").write_text("")
    with pytest.raises(InvalidArgumentError, match="must have fields, got None"):
        thresholds.read(tmp_path / "gate.yaml")
