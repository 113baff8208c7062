"""What our runner makes of the cases: the same in processes of their own and in this one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp import compiler

from mlops_mini.errors import AbortedError, InvalidArgumentError
from mlops_mini.pipeline import kubeflow
from mlops_mini.runner.runner import Runner
from tests.conformance import pipelines
from tests.conformance.pipelines import CASES, Case

RUNNABLE = [pytest.param(case, id=case.name) for case in CASES if case.name != "literal_quote"]


@pytest.fixture(scope="module", params=["fork", "inline"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """One for all cases: each is a run of its own under the same root, and finds no cache."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_MINI_TEST_LINES", str(folder / "lines"))
        with Runner(folder / "runs", n_workers=2, mode=request.param) as runner:
            yield runner


@pytest.fixture
def lines(runner: Runner) -> Path:
    """The file of the lines, not there yet."""
    file = Path(os.environ["MLOPS_MINI_TEST_LINES"])
    for left_by_another_case in file.parent.glob(f"{file.name}*"):
        left_by_another_case.unlink()
    return file


@pytest.mark.parametrize("case", RUNNABLE)
def test_our_runner_does_as_it_must(case: Case, runner: Runner, lines: Path) -> None:
    error = None
    try:
        runner.run(case.pipeline, arguments=case.arguments_in(lines.parent))
    except AbortedError as exc:
        error = exc

    assert case.difference(lines, error) == ""
    assert runner.runs()[0].state == ("FAILED" if case.raises else "SUCCEEDED")


def test_a_compiled_file_runs_like_its_pipeline(
    runner: Runner, lines: Path, tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.name == "nested")
    compiler.Compiler().compile(case.pipeline, str(tmp_path / "nested.yaml"))

    run = runner.run(tmp_path / "nested.yaml", arguments={})

    assert case.difference(lines, None) == ""
    assert run.state == "SUCCEEDED"


def test_a_literal_that_holds_a_quote_is_refused_before_it_runs(
    runner: Runner, lines: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="it's"):
        kubeflow.check(pipelines.literal_quote)
    with pytest.raises((InvalidArgumentError, AbortedError), match="condition-branches-1"):
        runner.run(pipelines.literal_quote, arguments={})

    assert not lines.exists()
