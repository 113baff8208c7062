"""Arguments that a caller gives from Python: one obvious reading, or words that help."""

import dataclasses
import datetime as dt
import enum
import math
import os
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kfp import dsl

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.pipeline import kubeflow
from mlops_mini.runner import arguments
from mlops_mini.runner.runner import Runner
from tests.runner.value_cases import items, real, struct, text, whole


@dataclasses.dataclass
class Settings:
    folder: Path
    sizes: tuple[int, ...] = (64, 32)


class Color(enum.Enum):
    RED = "red"


class Level(enum.StrEnum):
    HIGH = "high"


Pair = namedtuple("Pair", ["low", "high"])


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("arguments"), mode="inline") as runner:
        yield runner


@dsl.pipeline
def all_types(s: str, n: int, x: float, many: list, d: dict):
    text(v=s)
    whole(v=n)
    real(v=x)
    items(v=many)
    struct(v=d)


def test_what_python_has_arrives_as_what_the_pipeline_declares(runner: Runner) -> None:
    run = runner.run(
        all_types,
        {
            "s": Path("/data"),
            "n": np.int64(3),
            "x": np.float32(0.5),
            "many": (np.arange(2), dt.date(2013, 3, 1)),
            "d": Settings(folder=Path("/runs")),
        },
    )

    said = {path: task.outputs["parameters"]["Output"] for path, task in run.tasks.items()}
    assert said == {
        "text": "'/data'",
        "whole": "3",
        "real": "0.5",
        "items": "[[0, 1], '2013-03-01']",
        "struct": "{'folder': '/runs', 'sizes': [64, 32]}",
    }


@pytest.mark.parametrize(
    ("value", "parameter_type", "expected"),
    [
        (np.str_("a"), "STRING", "a"),
        (Level.HIGH, "STRING", "high"),
        (dt.datetime(2013, 3, 1, 6, tzinfo=dt.UTC), "STRING", "2013-03-01T06:00:00+00:00"),
        (dt.time(6, 30), "STRING", "06:30:00"),
        (pd.Timestamp("2013-03-01"), "STRING", "2013-03-01T00:00:00"),
        (np.datetime64("2013-03-01"), "STRING", "2013-03-01"),
        (np.float64(3.0), "NUMBER_INTEGER", 3),
        (np.array(3), "NUMBER_INTEGER", 3),
        (3, "NUMBER_DOUBLE", 3),
        (np.bool_(True), "BOOLEAN", True),
        (range(3), "LIST", [0, 1, 2]),
        (Pair(low=1, high=np.int8(2)), "LIST", [1, 2]),
        (np.array([[1.0, 2.5]]), "LIST", [[1, 2.5]]),
        (np.array(["a", None], dtype=object), "LIST", ["a", None]),
        (np.array(["2013-03"], dtype="M8[M]"), "LIST", ["2013-03"]),
        (OrderedDict(b=Path("x"), a=1.0), "STRUCT", {"a": 1, "b": "x"}),
    ],
)
def test_what_has_one_obvious_reading_is_taken(
    value: object, parameter_type: str, expected: object
) -> None:
    bound = arguments.bind({"p": {"parameterType": parameter_type}}, {"p": value}, what="'it'")

    assert (bound["p"], type(bound["p"])) == (expected, type(expected))


def holds_itself() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, r"cannot be \{1, 2\} \(set\): it has no order.*give sorted"),
        (frozenset(), "frozenset.*give sorted"),
        ([{"a": {3}}], r"\[0\]\['a'\] cannot be \{3\} \(set\)"),
        ({"a": 1}.keys(), r"dict_keys.*give sorted"),
        (b"abc", r"cannot be b'abc' \(bytes\): it is no text: give .decode"),
        ([1.0, math.nan], r"\[1\] holds nan, which JSON, and so Kubeflow, cannot carry"),
        (np.array([np.inf]), r"\[0\] holds inf"),
        (np.array([1j]), r"\(ndarray\): give text, a number"),
        (1j, "JSON has no such number"),
        (np.datetime64("NaT"), r"\(datetime64\)"),
        (pd.NaT, r"cannot be NaT \(NaTType\)"),
        (np.ma.array([1, 2], mask=[0, 1]), "masked values: fill them"),
        (dt.timedelta(hours=1), "give .total_seconds"),
        (Color.RED, r"\(Color\): give its .value"),
        (Decimal("0.1"), r"cannot be Decimal\('0.1'\) \(Decimal\): give text, a number"),
        (Settings, r"\(type\): give text"),
        (pd.DataFrame({"a": [1]}), r"\(DataFrame\): .*write a file and read it with dsl.importer"),
        ((i for i in range(2)), r"\(generator\): give text, a number, a bool, a list"),
        ({1: "a"}, r"has the key 1 \(int\).*give str\(key\)"),
        (holds_itself(), "is nested deeper than 100 times, or holds itself"),
        (os.fsdecode(b"/data/\xff"), r"'/data/\\udcff', which is no Unicode text"),
        (Path(os.fsdecode(b"\xff")), "which is no Unicode text"),
        (["a"], r"must be NUMBER_INTEGER, got \['a'\] \(list\)"),
        (2.5, r"must be NUMBER_INTEGER, got 2.5 \(float\)"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_has_none_is_refused_in_words_with_the_way_out(value: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"parameter 'p' of 'it'.*{message}"):
        arguments.bind({"p": {"parameterType": "NUMBER_INTEGER"}}, {"p": value}, what="'it'")


def test_arguments_are_completed_and_unknown_ones_named() -> None:
    definitions = {
        "n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
        "s": {"parameterType": "STRING", "isOptional": True},
        "b": {"parameterType": "BOOLEAN"},
    }

    bound = arguments.bind(definitions, {"b": False, "s": None}, what="task 't'")

    assert bound == {"n": 3, "b": False}
    with pytest.raises(InvalidArgumentError, match=r"task 't' needs a value for 'b' \(BOOLEAN\)"):
        arguments.bind(definitions, {}, what="task 't'")
    with pytest.raises(InvalidArgumentError, match="takes no 'c'; it takes 'n', 's', 'b'"):
        arguments.bind(definitions, {"b": True, "c": 1}, what="task 't'")


def test_a_submission_reads_arguments_alike() -> None:
    with pytest.raises(InvalidArgumentError, match=r"parameter 's'.*\(set\).*give sorted"):
        kubeflow.submit(all_types, host="http://localhost:1", arguments={"s": {1}})
