"""A compiled pipeline is read strictly, and values are checked against their types."""

import math
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.pipeline import spec
from tests.conformance.pipelines import CASES
from tests.pipeline import faults


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    compiler.Compiler().compile(faults.measured, str(tmp_path / "measured.yaml"))
    return tmp_path / "measured.yaml"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_conformance_case_is_read(case: Any) -> None:
    loaded = spec.load(case.pipeline)

    assert loaded.name == case.name.replace("_", "-").strip("-")
    for task in loaded.root["dag"]["tasks"].values():
        component = loaded.component(task)
        assert "dag" in component or loaded.executor(component)


def test_the_digest_is_that_of_the_pipeline_and_not_of_its_file(compiled: Path) -> None:
    text = compiled.read_text()
    elsewhere = compiled.with_name("é elsewhere.yaml")
    elsewhere.write_text(f"# A comment.\n{text}")
    changed = compiled.with_name("changed.yaml")
    changed.write_text(text.replace("defaultValue: four", "defaultValue: five"))

    digests = [spec.load(one).digest for one in (compiled, elsewhere, faults.measured)]

    assert len(set(digests)) == 1
    assert spec.load(changed).digest not in digests


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("schemaVersion: 2.1.0", "schemaVersion: 3.0.0"), r"'3\.0\.0'.*reads 2\.1\.0"),
        (("schemaVersion: 2.1.0", ""), r"schemaVersion None"),
        (("componentRef:", "bogus: 1\n        componentRef:"), "bogus"),
        (("  name: measured", "  description: x"), "lacks a name"),
        (("pipelineInfo:", "pipelineInfos:"), "holds 0"),
        (("root:", "rooms:"), "rooms"),
        (("# PIPELINE", "{"), "not YAML"),
    ],
)
def test_what_is_not_understood_is_refused_and_the_file_named(
    edit: tuple[str, str], message: str, compiled: Path
) -> None:
    text = compiled.read_text()
    assert edit[0] in text
    compiled.write_text(text.replace(*edit, 1))

    with pytest.raises(InvalidArgumentError, match=rf"(?s)measured\.yaml.*{message}"):
        spec.load(compiled)


def test_two_pipelines_in_one_file_are_refused_and_a_platform_spec_beside_one_is_not(
    compiled: Path,
) -> None:
    text = compiled.read_text()
    compiled.write_text(f"{text}\n---\nplatforms: {{}}\n")
    assert spec.load(compiled).name == "measured"

    compiled.write_text(f"{text}\n---\n{text}")
    with pytest.raises(InvalidArgumentError, match="holds 2"):
        spec.load(compiled)


@pytest.mark.parametrize("no_pipeline", [3, "pipeline.yaml", len, None])
def test_what_is_no_pipeline_is_refused(no_pipeline: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is no pipeline.*@dsl\.pipeline"):
        spec.load(no_pipeline)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.yaml"):
        spec.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, "NUMBER_INTEGER", 3),
        (3.0, "NUMBER_INTEGER", 3),
        (3, "NUMBER_DOUBLE", 3.0),
        (math.inf, "NUMBER_DOUBLE", math.inf),
        (True, "BOOLEAN", True),
        ([1, "a"], "LIST", [1, "a"]),
        ({}, "STRUCT", {}),
    ],
)
def test_a_value_of_its_type_passes(value: object, kind: str, expected: object) -> None:
    found = spec.typed(value, kind, what="x")

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3.5, "NUMBER_INTEGER"),
        (math.inf, "NUMBER_INTEGER"),
        (math.nan, "NUMBER_INTEGER"),
        (True, "NUMBER_INTEGER"),
        (False, "NUMBER_DOUBLE"),
        ("1", "NUMBER_DOUBLE"),
        (1, "BOOLEAN"),
        (1, "STRING"),
        ("[]", "LIST"),
        ([], "STRUCT"),
        (1, "BYTES"),
    ],
)
def test_a_value_of_another_type_is_refused(value: object, kind: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"output 'x'.*{kind}"):
        spec.typed(value, kind, what="output 'x'")


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("True", "BOOLEAN", True),
        ("false", "BOOLEAN", False),
        ("3.0", "NUMBER_INTEGER", 3),
        ("1e-7", "NUMBER_DOUBLE", 1e-7),
        ('"quoted"', "STRING", '"quoted"'),
        ("", "STRING", ""),
        ('{"a": null}', "STRUCT", {"a": None}),
    ],
)
def test_a_parameter_is_read_from_a_file(text: str, kind: str, expected: object) -> None:
    assert spec.parse(text, kind, what="x") == expected


@pytest.mark.parametrize(("text", "kind"), [("", "LIST"), ("yes", "BOOLEAN"), ("1 2", "STRUCT")])
def test_a_file_that_holds_something_else_is_shown(text: str, kind: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"output 'x' must be {kind}, got {text!r}"):
        spec.parse(text, kind, what="output 'x'")


def test_a_default_fills_in_for_a_missing_value_and_an_optional_one_stays_away() -> None:
    definitions = {
        "n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
        "s": {"parameterType": "STRING", "isOptional": True},
        "b": {"parameterType": "BOOLEAN"},
    }

    assert spec.bind(definitions, {"b": False, "s": None}, what="task 't'") == {"n": 3, "b": False}
    with pytest.raises(InvalidArgumentError, match=r"task 't' needs a value for 'b' \(BOOLEAN\)"):
        spec.bind(definitions, {}, what="task 't'")
    with pytest.raises(InvalidArgumentError, match="takes no 'c'; it takes 'n', 's', 'b'"):
        spec.bind(definitions, {"b": True, "c": 1}, what="task 't'")


def test_fields_of_a_loops_item_are_taken_and_a_missing_one_is_named() -> None:
    item = {"a b": {"c": [1]}}
    assert spec.select('parseJson(string_value)["a b"]["c"]', item, what="x") == [1]

    with pytest.raises(InvalidArgumentError, match="input 's' asks for field 'd'"):
        spec.select('parseJson(string_value)["a b"]["d"]', item, what="input 's'")
    with pytest.raises(InvalidArgumentError, match="cannot read"):
        spec.select('jsonPath("$.a")', item, what="input 's'")


def test_a_loop_over_a_value_that_is_not_there_is_told() -> None:
    task = {"parameterIterator": {"items": {"inputParameter": "xs"}, "itemInput": "x"}}

    assert spec.loop_items(task, {"xs": []}) == ("x", [])
    with pytest.raises(InvalidArgumentError, match="loops over 'xs', which has no value"):
        spec.loop_items(task, {})
