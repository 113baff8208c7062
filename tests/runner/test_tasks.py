"""How one task comes to its result: here, from the cache, after its server was killed."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp import compiler, dsl
from kfp.dsl import Dataset, Output

from mlops_mini.errors import AbortedError
from mlops_mini.runner.runner import Runner
from tests.runner.faults import component, of_one
from tests.serving.servers import wait_until


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with Runner(tmp_path / "runs", n_workers=2) as runner:
        yield runner


@component
def where() -> str:
    import os
    from pathlib import Path

    here = str(Path.cwd())
    os.chdir("/")
    return here


@component
def kills_its_server(folder: str) -> str:
    """Kills it once: the second time it finds that it did."""
    import os
    import signal
    import time
    from pathlib import Path

    mark = Path(folder) / "killed"
    if not mark.exists():
        mark.touch()
        print("about to kill")  # noqa: T201 - it is what a component does
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return "done"


@component
def waits_for_long(folder: str):
    import time
    from pathlib import Path

    (Path(folder) / "waits").touch()
    time.sleep(600)


@component
def prints_a_path_and_dies(made: Output[Dataset]):
    import os
    from pathlib import Path

    Path(made.path).write_text("half")
    raise RuntimeError(f"cannot go on with {made.path} of {os.getpid()}")


@dsl.container_component
def copied(made: Output[Dataset]):
    return dsl.ContainerSpec(
        image="debian:12", command=["sh", "-c", 'echo 1 > "$0"'], args=[made.path]
    )


@dsl.pipeline
def tried_again(folder: str):
    kills_its_server(folder=folder).set_retry(1, backoff_duration="0s")


@dsl.pipeline
def tried_once(folder: str):
    kills_its_server(folder=folder)


@dsl.pipeline
def long(folder: str):
    waits_for_long(folder=folder)


def test_inline_a_task_begins_in_its_own_folder_too_and_leaves_this_process_where_it_was(
    tmp_path: Path,
) -> None:
    before = Path.cwd()
    with Runner(tmp_path, mode="inline") as runner:
        task = runner.run(of_one(where)).tasks["where"]

    assert Path(task.outputs["parameters"]["Output"]) == Path(task.folder) / "work"
    assert Path.cwd() == before


def test_another_type_of_output_is_another_task(runner: Runner, tmp_path: Path) -> None:
    package = tmp_path / "copied.yaml"
    compiler.Compiler().compile(of_one(copied), str(package))
    first, again = runner.run(package), runner.run(package)
    text = package.read_text()
    assert "schemaTitle: system.Dataset" in text
    package.write_text(text.replace("system.Dataset", "system.Metrics"))

    other = runner.run(package)

    states = [run.tasks["copied"].state for run in (first, again, other)]
    assert states == ["SUCCEEDED", "CACHED", "SUCCEEDED"]
    made = other.tasks["copied"].outputs["artifacts"]["made"]
    assert made["type"]["schemaTitle"] == "system.Metrics"


def test_a_task_whose_server_was_killed_is_tried_again_as_its_policy_says(
    runner: Runner, tmp_path: Path
) -> None:
    run = runner.run(tried_again, {"folder": str(tmp_path)})

    task = run.tasks["kills-its-server"]
    assert (task.attempt, task.outputs["parameters"]) == (2, {"Output": "done"})


def test_a_task_whose_server_was_killed_keeps_its_number_and_its_log(
    runner: Runner, tmp_path: Path
) -> None:
    with pytest.raises(AbortedError, match=r"kills-its-server.*fork server has ended") as caught:
        runner.run(tried_once, {"folder": str(tmp_path)})
    failed = runner.show(runner.runs()[0].id)
    task = failed.tasks["kills-its-server"]
    assert (task.attempt, task.log_file.read_text()) == (1, "about to kill\n")
    assert str(task.log_file) in str(caught.value)

    task = runner.resume(failed.id, tried_once).tasks["kills-its-server"]

    assert (task.state, task.attempt) == ("SUCCEEDED", 2)


def test_paths_in_an_error_are_those_where_the_files_are(runner: Runner) -> None:
    with pytest.raises(AbortedError, match="cannot go on with"):
        runner.run(of_one(prints_a_path_and_dies))

    task = runner.show(runner.runs()[0].id).tasks["prints-a-path-and-dies"]
    named = Path(task.error.split("with ")[1].split(" of ")[0])
    assert named.read_text() == "half"


def test_a_canceled_task_is_not_said_to_have_failed_of_memory(
    runner: Runner, tmp_path: Path
) -> None:
    def interrupt() -> None:
        wait_until((tmp_path / "waits").exists, "the task")
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(AbortedError, match="was canceled") as caught:
        runner.run(long, {"folder": str(tmp_path)})
    interrupting.join()

    assert "memory" not in str(caught.value)
    task = runner.show(runner.runs()[0].id).tasks["waits-for-long"]
    assert (task.state, task.error) == ("CANCELLED", "")


@component
def reaches_sklearn(imports: bool) -> bool:
    """Tell whether sklearn was imported before it began."""
    import sys

    import mlops_mini_test_rarely as rarely

    was_there = "sklearn.metrics" in sys.modules
    if imports:
        rarely.use()
    return was_there


@pytest.fixture
def rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlops_mini_test_rarely.py").write_text("def use():\n    import sklearn.metrics\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("rarely")
def test_a_package_that_a_task_only_might_import_every_time_waits_until_one_does(
    runner: Runner,
) -> None:
    @dsl.pipeline
    def three() -> None:
        first = reaches_sklearn(imports=False).set_caching_options(enable_caching=False)
        second = reaches_sklearn(imports=True).set_caching_options(enable_caching=False)
        third = reaches_sklearn(imports=False).set_caching_options(enable_caching=False)
        third.after(second.after(first))

    tasks = runner.run(three).tasks

    was_there = [task.outputs["parameters"]["Output"] for task in tasks.values()]
    assert was_there == [False, False, True]


@pytest.mark.usefixtures("rarely")
def test_a_task_that_was_not_in_the_cache_begins_with_all_that_it_can_reach(runner: Runner) -> None:
    @dsl.pipeline
    def one() -> None:
        reaches_sklearn(imports=True)

    [task] = runner.run(one).tasks.values()

    assert task.outputs["parameters"]["Output"] is True
