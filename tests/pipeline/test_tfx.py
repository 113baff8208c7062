"""The module that TFX runs: its text alone, for TFX isn't here; `make platforms` runs it."""

import ast
from dataclasses import replace

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.model import training
from mlops_mini.pipeline import tfx
from mlops_mini.use_case import Label


def constants(text):
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
    }


def test_the_module_names_each_feature_once_and_has_the_network_of_training():
    text = tfx.module(FLIGHTS, epochs=3, seed=7)

    given = constants(text)
    assert given["CATEGORIES"] == ["carrier", "origin", "dest"]
    assert sorted(given["CATEGORIES"] + given["NUMBERS"]) == sorted(FLIGHTS.features.names)
    assert given["LABEL"] == "late"
    assert (given["EPOCHS"], given["SEED"]) == (3, 7)
    assert given["HIDDEN_UNITS"] == training.HIDDEN_UNITS
    assert given["MAX_DEVIATIONS"] == training.MAX_DEVIATIONS
    functions = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert {"preprocessing_fn", "run_fn"} <= functions
    assert "@" not in text


@pytest.mark.parametrize(
    "case",
    [
        replace(FLIGHTS, label=Label("how", classes=["early", "on time", "late"])),
        replace(FLIGHTS, train=training.train),
    ],
)
def test_what_another_network_learns_is_refused(case):
    with pytest.raises(InvalidArgumentError, match="use case flights has no module for TFX"):
        tfx.module(case)
