"""What a task is given, whatever type its parameter has and wherever the value comes from."""

import itertools
import math
from collections.abc import Iterator

import pytest

from mlops_mini.errors import AbortedError, InvalidArgumentError
from mlops_mini.runner import values
from mlops_mini.runner.runner import Runner
from mlops_mini.runner.values import CONVERSIONS, TYPES, Source
from tests.runner.value_cases import CASES


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("values"), mode="inline") as runner:
        yield runner


@pytest.mark.parametrize("name", CASES)
def test_tasks_are_given_what_kubeflows_driver_would_give(name: str, runner: Runner) -> None:
    case = CASES[name]
    if case.error:
        with pytest.raises(AbortedError, match=case.error):
            runner.run(case.pipeline, case.arguments)
        return

    run = runner.run(case.pipeline, case.arguments)

    said = {
        path: task.outputs["parameters"].get("Output")
        for path, task in run.tasks.items()
        if task.outputs
    }
    assert {path: said.get(path) for path in case.given} == case.given


def test_one_task_forked_is_given_the_same(tmp_path) -> None:
    case = CASES["defaults"]
    with Runner(tmp_path) as runner:
        run = runner.run(case.pipeline)

    assert run.tasks["by-default"].outputs["parameters"]["Output"] == case.given["by-default"]


def test_each_combination_is_in_at_most_one_row_and_each_row_says_where_it_is_from() -> None:
    combinations = [
        (source, parameter_type, kind)
        for row in CONVERSIONS
        for source, parameter_type, kind in itertools.product(
            row.sources, row.parameter_types, row.kinds
        )
    ]

    assert len(set(combinations)) == len(combinations)
    assert {source for source, _, _ in combinations} == set(Source)
    for row in CONVERSIONS:
        assert ".go: " in row.cited
        assert set(row.parameter_types) <= set(TYPES)


@pytest.mark.parametrize(
    ("value", "parameter_type", "source", "expected"),
    [
        (3, "NUMBER_INTEGER", Source.ARGUMENT, 3),
        (3.0, "NUMBER_INTEGER", Source.ARGUMENT, 3),
        (3.0, "NUMBER_DOUBLE", Source.UPSTREAM, 3),
        (2.5, "NUMBER_INTEGER", Source.UPSTREAM, 2.5),
        (1e25, "NUMBER_DOUBLE", Source.CONSTANT, 1e25),
        (2**60 + 1, "NUMBER_INTEGER", Source.UPSTREAM, 2**60 + 1),
        (True, "BOOLEAN", Source.RETURNED, True),
        ([1.0, "a"], "LIST", Source.RETURNED, [1, "a"]),
        ({}, "STRUCT", Source.OUTER, {}),
        ({"state": "FAILED"}, "TASK_FINAL_STATUS", Source.STATUS, {"state": "FAILED"}),
        (None, "STRING", Source.ITEM, ""),
        (5, "STRING", Source.RETURNED, "5"),
        ("True", "BOOLEAN", Source.FILE, True),
        ("0\n", "BOOLEAN", Source.FILE, False),
        (" +3\n", "NUMBER_INTEGER", Source.FILE, 3),
        ("1e-7", "NUMBER_DOUBLE", Source.FILE, 1e-7),
        ("-inf", "NUMBER_DOUBLE", Source.FILE, -math.inf),
        ('"quoted"', "STRING", Source.FILE, '"quoted"'),
        ("", "STRING", Source.FILE, ""),
        (' {"a": null}\n', "STRUCT", Source.FILE, {"a": None}),
        ("[1.0]", "LIST", Source.FILE, [1]),
    ],
)
def test_a_value_becomes_what_the_parameter_takes(
    value: object, parameter_type: str, source: Source, expected: object
) -> None:
    found = values.convert(value, parameter_type, source, what="x")

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "parameter_type", "source"),
    [
        (3.5, "NUMBER_INTEGER", Source.ARGUMENT),
        (3.5, "NUMBER_INTEGER", Source.RETURNED),
        (math.inf, "NUMBER_INTEGER", Source.RETURNED),
        (math.nan, "NUMBER_DOUBLE", Source.ARGUMENT),
        (True, "NUMBER_INTEGER", Source.UPSTREAM),
        (False, "NUMBER_DOUBLE", Source.UPSTREAM),
        ("1", "NUMBER_DOUBLE", Source.CONSTANT),
        (1, "BOOLEAN", Source.ITEM),
        (1, "STRING", Source.ARGUMENT),
        (None, "NUMBER_INTEGER", Source.ITEM),
        (None, "STRING", Source.FIELD),
        ("[]", "LIST", Source.OUTER),
        ([], "STRUCT", Source.UPSTREAM),
        (1, "BYTES", Source.UPSTREAM),
        ("", "LIST", Source.FILE),
        ("{}", "LIST", Source.FILE),
        ("[NaN]", "LIST", Source.FILE),
        ("yes", "BOOLEAN", Source.FILE),
        ("1 2", "STRUCT", Source.FILE),
        ("3.0", "NUMBER_INTEGER", Source.FILE),
        ("9223372036854775808", "NUMBER_INTEGER", Source.FILE),
        ("1_000", "NUMBER_DOUBLE", Source.FILE),
        ("1e999", "NUMBER_DOUBLE", Source.FILE),
    ],
)
def test_a_value_that_the_parameter_does_not_take_is_refused(
    value: object, parameter_type: str, source: Source
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"output 'x'.*{parameter_type}"):
        values.convert(value, parameter_type, source, what="output 'x'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-7, "0.0000001"),
        (-0.0, "-0"),
        (1e22, "10000000000000000000000"),
        (123456789.125, "123456789.125"),
        (math.nan, "NaN"),
        (-math.inf, "-Inf"),
        (
            [1e-7, 1e-6, 1e20, 1e21, 1.5e-9, 0.0],
            "[1e-7,0.000001,100000000000000000000,1e+21,1.5e-9,0]",
        ),
        (
            {"b": [True, None], "a": "\n<é>\u2028\x7f"},
            '{"a":"\\n\\u003cé\\u003e\\u2028\x7f","b":[true,null]}',
        ),
        ({}, "{}"),
    ],
)
def test_a_text_is_written_letter_for_letter_as_go_writes_it(value: object, text: str) -> None:
    assert values.text_of(value) == text


def test_a_default_fills_in_for_a_missing_value_and_an_optional_one_stays_away() -> None:
    definitions = {
        "n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
        "s": {"parameterType": "STRING", "isOptional": True},
        "b": {"parameterType": "BOOLEAN"},
    }

    assert values.complete(definitions, {"b": False}, what="task 't'") == {"n": 3, "b": False}
    with pytest.raises(InvalidArgumentError, match=r"task 't' needs a value for 'b' \(BOOLEAN\)"):
        values.complete(definitions, {}, what="task 't'")


def test_fields_of_a_loops_item_are_taken_and_a_missing_one_is_named() -> None:
    item = {"a b": {"c": [1]}}
    assert values.select('parseJson(string_value)["a b"]["c"]', item, what="x") == [1]

    with pytest.raises(InvalidArgumentError, match="input 's' asks for field 'd'"):
        values.select('parseJson(string_value)["a b"]["d"]', item, what="input 's'")
    with pytest.raises(InvalidArgumentError, match="asks for field 'd' of 'no JSON'"):
        values.select('parseJson(string_value)["d"]', "no JSON", what="input 's'")
    with pytest.raises(InvalidArgumentError, match="cannot read"):
        values.select('jsonPath("$.a")', item, what="input 's'")


def test_a_loop_is_over_a_list_or_its_json_and_nothing_else() -> None:
    task = {"parameterIterator": {"items": {"inputParameter": "xs"}, "itemInput": "x"}}

    assert values.loop_items(task, {"xs": []}) == ("x", [])
    assert values.loop_items(task, {"xs": '[1,"a"]'}) == ("x", [1, "a"])
    with pytest.raises(InvalidArgumentError, match="loops over 'xs', which has no value"):
        values.loop_items(task, {})
    with pytest.raises(InvalidArgumentError, match=r"loops over '\{\}', which is no list"):
        values.loop_items(task, {"xs": "{}"})
