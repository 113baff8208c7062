"""Components that fail, pipelines that cannot run, and what the cache takes for the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp import compiler

from mlops_mini.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from mlops_mini.runner.runner import Runner
from tests.runner import faults, gates
from tests.serving.servers import wait_until


@pytest.fixture(scope="module")
def lines_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set before the fork server starts: it keeps the variables that it has started with."""
    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path_factory.mktemp("lines") / "lines"
        patch.setenv("MLOPS_MINI_TEST_LINES", str(file))
        yield file


@pytest.fixture(scope="module")
def shared(lines_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A runner for tests that look at their own run only."""
    with Runner(tmp_path_factory.mktemp("runs"), n_workers=2) as runner:
        yield runner


@pytest.fixture(autouse=True)
def lines(lines_of_all: Path) -> Path:
    for left in lines_of_all.parent.iterdir():
        left.unlink()
    return lines_of_all


@pytest.fixture
def fresh(lines: Path, tmp_path: Path) -> Iterator[Runner]:
    """A runner with nothing in its cache."""
    with Runner(tmp_path / "runs", n_workers=2) as runner:
        yield runner


def compiled(pipeline: object, file: Path, *, replace: tuple[str, str] = ("", "")) -> Path:
    compiler.Compiler().compile(pipeline, str(file))
    text = file.read_text()
    assert replace[0] in text
    file.write_text(text.replace(*replace) if replace[0] else text)
    return file


def leaves(run: object) -> list:
    return [task for task in run.tasks.values() if task.outputs]


# Components that fail.


def test_the_last_error_of_exhausted_retries_is_told_and_each_had_its_own_folder(
    shared: Runner,
) -> None:
    with pytest.raises(AbortedError, match=r"unlucky.*failure 3"):
        shared.run(faults.retried)

    paths = gates.said()
    assert len(paths) == len(set(paths)) == 3
    task = shared.show(shared.runs()[0].id).tasks["unlucky"]
    assert (task.state, task.attempt) == ("FAILED", 3)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (faults.exits, r"exits.*sys\.exit\(3\)"),
        (faults.is_killed, r"is-killed.*SIGKILL"),
        (faults.returns_text, r"returns-text.*want type <class 'int'>"),
        (faults.boom, r"boom.*RuntimeError: boom went off"),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_a_failed_task_is_named_with_its_error_and_its_log(
    component: object, message: str, shared: Runner
) -> None:
    with pytest.raises(AbortedError, match=message) as caught:
        shared.run(faults.of_one(component))

    run = shared.show(shared.runs()[0].id)
    assert run.state == "FAILED"
    (task,) = run.tasks.values()
    assert task.state == "FAILED"
    assert task.error in run.reason
    assert task.log_file.exists()
    assert str(task.log_file) in str(caught.value)
    assert run.id in str(caught.value)


def test_a_megabyte_of_print_is_kept_and_does_not_reach_the_terminal(
    shared: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    run = shared.run(faults.of_one(faults.chatty))

    log = run.tasks["chatty"].log_file.read_text()
    assert len(log) > 1_000_000
    assert " 9999" + "x" * 100 in log
    shown = capfd.readouterr()
    assert len(shown.out + shown.err) < 10_000


def test_a_root_may_have_any_name(lines: Path, tmp_path: Path) -> None:
    with Runner(tmp_path / 'Läufe "neu" \\ alt [0]') as runner:
        run = runner.run(faults.measured)

    assert run.tasks["measure"].outputs["parameters"] == {"n_chars": 4}


def test_a_process_that_a_task_leaves_behind_ends_with_it(shared: Runner) -> None:
    run = shared.run(faults.of_one(faults.leaves_a_child))

    assert run.state == "SUCCEEDED"
    pid = int(gates.said()[0])
    wait_until(lambda: not gates.is_running(pid), "the end of the child")


def test_what_a_task_leaves_in_a_session_of_its_own_ends_with_it(shared: Runner) -> None:
    gates.open_gates("detached")

    assert shared.run(faults.detached).state == "SUCCEEDED"

    pids = [int(pid) for pid in gates.said(beginning="detached begins")[0].split()[2:]]
    wait_until(lambda: not any(map(gates.is_running, pids)), "the end of what was left")


def test_a_failed_exit_task_does_not_hide_the_first_error(shared: Runner) -> None:
    with pytest.raises(AbortedError, match="boom went off"):
        shared.run(faults.broken_exit)

    run = shared.show(shared.runs()[0].id)
    assert "boom went off" in run.reason
    assert "the exit handler broke too" in run.tasks["late-boom"].error


def test_a_failed_exit_task_alone_fails_the_run(shared: Runner) -> None:
    with pytest.raises(AbortedError, match=r"late-boom.*the exit handler broke too"):
        shared.run(faults.broken_exit_alone)

    assert shared.runs()[0].state == "FAILED"
    assert gates.said() == ["in"]


def test_one_failing_item_of_a_loop_is_named_and_the_others_finish(shared: Runner) -> None:
    with pytest.raises(AbortedError, match=r"for-loop-1\[1\]/say-unless.*cannot say b"):
        shared.run(faults.one_item_fails)

    tasks = shared.show(shared.runs()[0].id).tasks
    states = [tasks[f"for-loop-1[{i}]/say-unless"].state for i in range(3)]
    assert states == ["SUCCEEDED", "FAILED", "SUCCEEDED"]


def test_a_condition_that_says_nothing_fails_the_run_with_its_text_and_value(
    shared: Runner,
) -> None:
    with pytest.raises(AbortedError, match=r"condition-branches-1/.*> 0\.5.*nan"):
        shared.run(faults.if_nan)

    assert gates.said() == []


@pytest.mark.parametrize("pipeline", [faults.at_once, faults.branches_at_once])
def test_what_is_ready_runs_at_once(pipeline: object, shared: Runner) -> None:
    run = shared.run(pipeline)

    assert {task.outputs["parameters"]["Output"] for task in leaves(run)} == {"together"}


def test_a_loop_with_parallelism_1_takes_turns(shared: Runner) -> None:
    run = shared.run(faults.in_turn)

    assert [task.outputs["parameters"]["Output"] for task in leaves(run)] == ["alone"] * 3


# What cannot run.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a value for 'name'"),
        ({"name": "x", "title": "y"}, r"takes no 'title'; it takes 'name'"),
        ({"name": 3}, r"'name'.*must be STRING, got 3"),
    ],
    ids=["missing", "unknown", "wrong type"],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    arguments: dict[str, object], message: str, fresh: Runner
) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        fresh.run(faults.waiting, arguments=arguments)

    assert "waiting" in str(caught.value)
    assert (fresh.runs(), gates.said()) == ([], [])


def test_an_artifact_from_outside_is_refused_and_the_importer_named(fresh: Runner) -> None:
    with pytest.raises(InvalidArgumentError, match=r"from-outside.*\['d'\].*dsl\.importer"):
        fresh.run(faults.from_outside)

    assert fresh.runs() == []


def test_a_field_that_is_not_known_is_refused(fresh: Runner, tmp_path: Path) -> None:
    field = ("componentRef:", "bogusField: 1\n        componentRef:")
    package = compiled(faults.gated, tmp_path / "gated.yaml", replace=field)

    with pytest.raises(InvalidArgumentError, match=r"gated\.yaml.*bogusField"):
        fresh.run(package)

    assert (fresh.runs(), gates.said()) == ([], [])


def test_a_run_is_resumed_with_an_equal_pipeline_only(fresh: Runner, tmp_path: Path) -> None:
    with pytest.raises(AbortedError, match=r"needs-gate.*the gate is shut.*resume"):
        fresh.run(compiled(faults.gated, tmp_path / "one.yaml"))
    run_id = fresh.runs()[0].id
    gates.open_gates("needs_gate")

    with pytest.raises(FailedPreconditionError, match="is not the one that run") as caught:
        fresh.resume(run_id, compiled(faults.gated_twice, tmp_path / "changed.yaml"))
    run = fresh.resume(run_id, compiled(faults.gated, tmp_path / "equal.yaml"))

    assert run_id in str(caught.value)
    assert (run.id, run.state) == (run_id, "SUCCEEDED")
    assert gates.said() == ["first", "needs_gate", "needs_gate"]


def test_a_finished_task_runs_again_on_resume_if_its_artifact_was_touched(fresh: Runner) -> None:
    with pytest.raises(AbortedError, match="the gate is shut"):
        fresh.run(faults.gated_data)
    failed = fresh.show(fresh.runs()[0].id)
    Path(failed.tasks["mk"].outputs["artifacts"]["made"]["uri"]).write_text("edited")
    gates.open_gates("needs_gate")

    run = fresh.resume(failed.id, faults.gated_data)

    assert run.tasks["mk"].attempt == 2
    made = run.tasks["mk"].outputs["artifacts"]["made"]
    assert Path(made["uri"]).read_text() == "four"
    assert run.tasks["measure"].outputs["parameters"] == {"n_chars": 4}


def test_a_run_that_has_succeeded_is_returned_as_it_is(fresh: Runner) -> None:
    run = fresh.run(faults.measured)

    assert fresh.resume(run.id, faults.measured) == run


def test_a_run_is_resumed_only_where_it_is(fresh: Runner) -> None:
    with pytest.raises(NotFoundError, match=r"'no-such-run'.*none"):
        fresh.resume("no-such-run", faults.gated)


# What the cache must not take for the same, and what it must.


def states(run: object) -> dict[str, str]:
    return {path: task.state for path, task in run.tasks.items()}


def test_the_second_run_takes_all_from_the_first(fresh: Runner) -> None:
    first = fresh.run(faults.measured)
    second = fresh.run(faults.measured)

    assert gates.said() == ["measure"]
    assert states(second) == {"mk": "CACHED", "measure": "CACHED"}
    assert second.tasks["measure"].cached_from == f"{first.id}/measure"
    assert second.tasks["measure"].outputs == first.tasks["measure"].outputs


def test_equal_content_at_another_path_is_the_same(fresh: Runner) -> None:
    fresh.run(faults.measured)
    run = fresh.run(faults.measured_elsewhere)

    assert states(run) == {"make-other": "SUCCEEDED", "measure": "CACHED"}
    assert gates.said() == ["measure", "make_other"]


def test_another_parameter_is_another_task_but_its_equal_output_is_the_same(
    fresh: Runner,
) -> None:
    fresh.run(faults.measured_elsewhere, arguments={"n": 1})
    run = fresh.run(faults.measured_elsewhere, arguments={"n": 2})

    assert states(run) == {"make-other": "SUCCEEDED", "measure": "CACHED"}


def test_other_content_is_not_the_same(fresh: Runner) -> None:
    fresh.run(faults.measured)
    run = fresh.run(faults.measured, arguments={"s": "seven"})

    assert states(run) == {"mk": "SUCCEEDED", "measure": "SUCCEEDED"}
    assert run.tasks["measure"].outputs["parameters"] == {"n_chars": 5}


def test_another_source_is_another_task(fresh: Runner, tmp_path: Path) -> None:
    fresh.run(compiled(faults.measured, tmp_path / "one.yaml"))
    edit = ("return (len(", "return (10 * len(")
    run = fresh.run(compiled(faults.measured, tmp_path / "two.yaml", replace=edit))

    assert states(run) == {"mk": "CACHED", "measure": "SUCCEEDED"}
    assert run.tasks["measure"].outputs["parameters"] == {"n_chars": 40}


def test_another_library_is_another_task(
    fresh: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "lib")
    library = tmp_path / "lib" / "library_of_a_test.py"
    library.parent.mkdir()
    answers = []
    for text in ("one", "one", "another"):
        library.write_text(f"def answer():\n    return {text!r}\n")
        run = fresh.run(faults.of_one(faults.asks_library))
        task = run.tasks["asks-library"]
        answers.append((task.state, task.outputs["parameters"]["Output"]))

    assert answers == [("SUCCEEDED", "one"), ("CACHED", "one"), ("SUCCEEDED", "another")]


@pytest.mark.parametrize("way", ["edited", "deleted"])
def test_an_artifact_that_was_touched_is_made_anew(
    way: str, fresh: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    first = fresh.run(faults.measured)
    file = Path(first.tasks["mk"].outputs["artifacts"]["made"]["uri"])
    file.write_text("edited") if way == "edited" else file.unlink()

    run = fresh.run(faults.measured)

    assert states(run) == {"mk": "SUCCEEDED", "measure": "CACHED"}
    made = Path(run.tasks["mk"].outputs["artifacts"]["made"]["uri"])
    assert made.read_text() == "four"
    assert first.tasks["mk"].folder in caplog.text


def test_without_cache_a_task_always_runs(fresh: Runner) -> None:
    gates.open_gates("x")

    runs = [fresh.run(faults.waiting, arguments={"name": "x"}) for _ in range(2)]

    assert [states(run) for run in runs] == [{"waits": "SUCCEEDED"}] * 2
