"""Components as kfp's executor runs them: in a module that can be imported, in a process."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kfp import dsl
from kfp.dsl import Dataset, Output, OutputPath

from mlops_mini.errors import AbortedError
from mlops_mini.runner.runner import Runner
from tests.conformance.components import component
from tests.runner.faults import of_one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A runner for tests that look at their own run only."""
    with Runner(tmp_path_factory.mktemp("runs"), n_workers=2) as runner:
        yield runner


@component
def exits_with_0(x: OutputPath(int)):
    import sys
    from pathlib import Path

    Path(x).write_text("1")
    sys.exit(0)


@component
def exits_with_none(x: OutputPath(int)):
    import sys
    from pathlib import Path

    Path(x).write_text("1")
    sys.exit()


@component
def ends_its_process(x: OutputPath(int)):
    import os
    from pathlib import Path

    Path(x).write_text("1")
    os._exit(0)


@component
def runs_click(x: OutputPath(int)):
    from pathlib import Path

    import click

    @click.command()
    @click.option("--n", type=int)
    def main(n: int) -> None:
        Path(x).write_text(str(n))

    main(["--n", "1"])


@component
def runs_typer(x: OutputPath(int)):
    from pathlib import Path

    import typer

    app = typer.Typer()

    @app.command()
    def main(n: int) -> None:
        Path(x).write_text(str(n))

    app(["1"])


@component
def exits_with_a_text():
    import sys

    sys.exit("no rows")


@component
def click_fails():
    import click

    @click.command()
    def main() -> None:
        raise click.UsageError("no such thing")

    main([])


@component
def exits_too_early() -> int:
    import sys

    sys.exit(0)


@component
def maps_in_a_pool() -> list[int]:
    import multiprocessing

    global double  # noqa: PLW0603 - what is pickled must have a name in its module

    def double(x: int) -> int:
        return 2 * x

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(double, [1, 2, 3])


@component
def maps_in_new_processes() -> list[int]:
    """As macOS starts them: a child finds the module by its name alone."""
    import multiprocessing

    from ephemeral_component import maps_in_new_processes as itself

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(len, [[itself.__name__], []])


@component
def maps_by_joblib() -> list[int]:
    import joblib

    def triple(x: int) -> int:
        return 3 * x

    return joblib.Parallel(n_jobs=2)(joblib.delayed(triple)(x) for x in (1, 2))


@component
def defines_classes() -> str:
    import dataclasses
    import enum
    import pickle
    import sys

    global Color  # noqa: PLW0603

    class Color(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: "int"

    point = Point(1)
    assert pickle.loads(pickle.dumps(Color.RED)) is Color.RED
    assert sys.modules[Point.__module__].__dict__["Color"] is Color
    return f"{point.x} {Color.__module__}"


@component
def logs() -> str:
    import logging

    logging.info("rows: %d", 3)  # noqa: LOG015
    logging.getLogger("mine").info("and more")
    logging.getLogger("mine").debug("not this")
    return "done"


@component
def leaves_work_for_the_end(made: Output[Dataset]):
    import atexit
    from pathlib import Path

    atexit.register(lambda: Path(made.path).write_text("written at exit"))


@component
def knows_its_file() -> str:
    import inspect
    import sys
    from pathlib import Path

    source = inspect.getsource(sys.modules[__name__])
    assert "def knows_its_file" in source
    return Path(__file__).name


@component
def takes_much(text: str, items: list) -> NamedTuple("Sizes", [("n_text", int), ("n_items", int)]):
    return (len(text), len(items))


@dsl.container_component
def takes_much_by_command(text: str):
    return dsl.ContainerSpec(image="debian:12", command=["true", text])


@pytest.mark.parametrize(
    "ending",
    [exits_with_0, exits_with_none, ends_its_process, runs_click, runs_typer],
    ids=lambda one: one.name,
)
def test_a_component_may_end_its_process_well(ending: object, shared: Runner) -> None:
    task = shared.run(of_one(ending)).tasks[ending.name]

    assert (task.state, task.outputs["parameters"]) == ("SUCCEEDED", {"x": 1})


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (exits_with_a_text, r"sys\.exit\('no rows'\), which is exit status 1"),
        (click_fails, r"sys\.exit\(2\), which is exit status 2"),
        (exits_too_early, r"output 'Output' of task 'exits-too-early' was not made"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_component_that_ends_badly_is_told(ending: object, message: str, shared: Runner) -> None:
    with pytest.raises(AbortedError, match=message):
        shared.run(of_one(ending))


@pytest.mark.parametrize(
    ("component", "returned"),
    [
        (maps_in_a_pool, [2, 4, 6]),
        (maps_in_new_processes, [1, 0]),
        (maps_by_joblib, [3, 6]),
        (defines_classes, "1 ephemeral_component"),
        (knows_its_file, "ephemeral_component.py"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_what_a_component_defines_is_found_by_its_name(
    component: object, returned: object, shared: Runner
) -> None:
    task = shared.run(of_one(component)).tasks[component.name]

    assert task.outputs["parameters"] == {"Output": returned}


def test_what_is_defined_is_gone_after_an_inline_run(tmp_path: Path) -> None:
    import sys

    before = list(sys.path)
    with Runner(tmp_path, mode="inline") as runner:
        run = runner.run(of_one(defines_classes))

    assert run.tasks["defines-classes"].outputs["parameters"] == {"Output": "1 ephemeral_component"}
    assert "ephemeral_component" not in sys.modules
    assert sys.path == before


def test_what_a_component_logs_is_in_its_log(shared: Runner) -> None:
    log = shared.run(of_one(logs)).tasks["logs"].log_file.read_text()

    assert "INFO root: rows: 3" in log
    assert "INFO mine: and more" in log
    assert "not this" not in log


def test_what_is_left_for_the_end_is_done_before_outputs_are_read(shared: Runner) -> None:
    task = shared.run(of_one(leaves_work_for_the_end)).tasks["leaves-work-for-the-end"]

    made = task.outputs["artifacts"]["made"]
    assert Path(made["uri"]).read_text() == "written at exit"
    # Of the file, not of the metadata that stands for a missing one.
    assert shared.run(of_one(leaves_work_for_the_end)).tasks[task.path].state == "CACHED"


def test_values_may_be_longer_than_an_argument(shared: Runner) -> None:
    @dsl.pipeline
    def much(text: str, items: list):
        takes_much(text=text, items=items)

    task = shared.run(much, {"text": "é" * 300_000, "items": list(range(50_000))}).tasks[
        "takes-much"
    ]

    assert task.outputs["parameters"] == {"n_text": 300_000, "n_items": 50_000}


def test_values_for_another_interpreter_may_be_longer_than_an_argument(tmp_path: Path) -> None:
    import sys

    from tests.runner.test_attempts import attempt, function

    container = function("def f(s: str) -> int:\n    return len(s)")
    outputs = {"parameters": {"Output": {"parameterType": "NUMBER_INTEGER"}}}
    result = attempt(tmp_path, container, outputs=outputs, python=sys.executable, s="x" * 300_000)

    assert result["error"] == ""
    assert result["parameters"] == {"Output": 300_000}


def test_a_command_that_is_given_too_much_says_how_much(shared: Runner) -> None:
    @dsl.pipeline
    def much(text: str):
        takes_much_by_command(text=text)

    with pytest.raises(AbortedError, match=r"the longest of 300,000 characters.*as artifacts"):
        shared.run(much, {"text": "x" * 300_000})


def test_code_that_is_in_an_image_only_is_refused_in_words(tmp_path: Path) -> None:
    from tests.runner.test_attempts import attempt

    container = {
        "image": "mine:1",
        "command": ["python3", "-m", "kfp.dsl.executor_main"],
        "args": ["--executor_input", "{{$}}", "--function_to_execute", "f"],
    }

    error = attempt(tmp_path, container)["error"]

    assert "the code of 'f' is in its image, 'mine:1'" in error
