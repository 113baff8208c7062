"""The build of deploy/cloudbuild.yaml, and copies of it with one rule broken each."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_mini.deployment import cloud_build
from mlops_mini.errors import InvalidArgumentError

FILE = Path(__file__).parents[2] / "deploy" / "cloudbuild.yaml"
BUILD: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICE = {"PROJECT_ID": "p", "BUILD_ID": "b"}


def test_our_build_has_nothing_wrong() -> None:
    assert cloud_build.findings(BUILD) == []


def test_it_tests_code_data_schemas_and_models_before_it_pushes_and_submits() -> None:
    steps = cloud_build.steps(BUILD, SERVICE)

    assert [step.id for step in steps] == [
        "build", "test-tools", "test-code", "test-data", "test-schemas", "test-models", "push",
        "compile", "smoke-run", "submit", "schedule",
    ]  # fmt: skip
    push = next(step for step in BUILD["steps"] if step["id"] == "push")
    assert {*push["waitFor"]} == {"test-code", "test-data", "test-schemas", "test-models"}


def test_steps_have_everything_filled_in() -> None:
    values = {**SERVICE, "_PERIOD": "2013-05", "_PYTHON": "local/python"}
    steps = {step.id: step for step in cloud_build.steps(BUILD, values)}

    image = "europe-docker.pkg.dev/p/mlops/mlops-mini:b"
    assert f"--tag={image}" in steps["build"].command
    assert steps["compile"].image == image
    assert (
        f"push mlops-mini:0.1.0 {image} {image.removesuffix(':b')}\n" in steps["push"].command[-1]
    )
    assert 'docker tag "$2" "$3:b"' in steps["push"].command[-1]
    assert steps["test-tools"].image == "local/python"
    assert "--period=2013-05" in steps["submit"].command
    assert "--cron=0 30 6 * * 1" in steps["schedule"].command
    assert (steps["build"].has_program, steps["push"].has_program) == (False, True)
    assert steps["build"].environment == ("DOCKER_BUILDKIT=1",)


def step(build: dict[str, Any], step_id: str) -> dict[str, Any]:
    (found,) = (each for each in build["steps"] if each["id"] == step_id)
    return found


Break = Callable[[dict[str, Any]], object]
BROKEN: dict[str, tuple[Break, str]] = {
    "no steps": (lambda b: b["steps"].clear(), "there are no steps"),
    "no name": (lambda b: step(b, "push").pop("name"), "step push: it has no name"),
    "no id": (lambda b: step(b, "schedule").pop("id"), "step 11: it has no id"),
    "two of an id": (
        lambda b: step(b, "schedule").update(id="submit"),
        "step submit: an earlier step has the same id",
    ),
    "dangling waitFor": (
        lambda b: step(b, "push")["waitFor"].append("tests"),
        "step push: it waits for 'tests', which is no earlier step",
    ),
    "waits for a later one": (
        lambda b: step(b, "build").update(waitFor=["schedule"]),
        "step build: it waits for 'schedule', which is no earlier step",
    ),
    "waits twice": (
        lambda b: step(b, "push")["waitFor"].append("test-code"),
        "step push: it waits for the same step twice",
    ),
    "args as one text": (
        lambda b: step(b, "build").update(args="build ."),
        "step build: args must be a list of texts",
    ),
    "a number in args": (
        lambda b: step(b, "submit")["args"].append(3),
        "step submit: args must be a list of texts",
    ),
    "undeclared": (
        lambda b: b["substitutions"].pop("_PERIOD"),
        "step submit: $_PERIOD is not declared in substitutions",
    ),
    "unused": (
        lambda b: b["substitutions"].update(_OTHER="x"),
        "substitution _OTHER: nothing uses it, and the service refuses that",
    ),
    "a shell variable": (
        lambda b: step(b, "push").update(args=["-c", "x=1; echo $x"]),
        "step push: $x is not declared in substitutions",
    ),
    "of a trigger": (
        lambda b: step(b, "build")["args"].append("--label=$COMMIT_SHA"),
        "step build: $COMMIT_SHA is empty unless a trigger starts the build",
    ),
    "a name of the service": (
        lambda b: (b["substitutions"].update(HOST="x"), step(b, "submit")["args"].append("$HOST")),
        "substitution HOST: names of one's own are like _NAME",
    ),
    "a number as a value": (
        lambda b: b["substitutions"].update(_CRON=5),
        "substitution _CRON: 5 must be a text: put it into quotes",
    ),
    "nested": (
        lambda b: b["options"].pop("dynamicSubstitutions"),
        "substitution _IMAGE: to refer to others, it needs dynamicSubstitutions",
    ),
    "script and args": (
        lambda b: step(b, "submit").update(script="echo"),
        "step submit: a script excludes args and entrypoint",
    ),
    "script without its values": (
        lambda b: b["steps"].append({"id": "s", "name": "n", "script": "echo $_PERIOD"}),
        "step s: a script sees substitutions only with automapSubstitutions",
    ),
    "an image that nobody builds": (
        lambda b: b["images"].append("gcr.io/p/other"),
        "images: no step builds gcr.io/p/other",
    ),
    "hours": (
        lambda b: b.update(timeout="2h"),
        "the build: timeout '2h' isn't seconds, such as '3600s'",
    ),
    "a bare number of seconds": (
        lambda b: step(b, "push").update(timeout=3600),
        "step push: timeout 3600 isn't seconds, such as '3600s'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_rule_is_found(name: str) -> None:
    build = copy.deepcopy(BUILD)
    breaks, finding = BROKEN[name]
    breaks(build)

    assert finding in cloud_build.findings(build)
    with pytest.raises(InvalidArgumentError):
        cloud_build.steps(build, SERVICE)


def test_a_trigger_knows_the_commit_and_is_loose() -> None:
    build = copy.deepcopy(BUILD)
    step(build, "build")["args"].append("--label=$SHORT_SHA")
    build["substitutions"]["_OTHER"] = "x"

    assert cloud_build.findings(build, is_by_trigger=True) == []
    steps = {s.id: s for s in cloud_build.steps(build, {**SERVICE, "SHORT_SHA": "abc1234"})}
    assert steps["build"].command[-1] == "--label=abc1234"


def test_a_value_of_the_service_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match="there's no value for"):
        cloud_build.steps(BUILD, {"PROJECT_ID": "p"})
