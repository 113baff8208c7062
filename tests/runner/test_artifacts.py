"""Artifacts as files: what a task edits in place, and what an importer names."""

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from mlops_mini.errors import AbortedError, InvalidArgumentError
from mlops_mini.runner import artifacts
from mlops_mini.runner.runner import Runner
from tests.conformance.components import component, mk
from tests.runner import gates


@pytest.fixture(autouse=True)
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lines").mkdir()
    monkeypatch.setenv("MLOPS_MINI_TEST_LINES", str(tmp_path / "lines" / "lines"))
    return gates.lines_file()


@pytest.fixture
def runner(lines: Path, tmp_path: Path) -> Iterator[Runner]:
    with Runner(tmp_path / "runs", n_workers=2) as runner:
        yield runner


@component
def edits(d: Input[Dataset]):
    import os
    from pathlib import Path

    os.chmod(d.path, 0o644)  # noqa: PTH101 - what root need not do
    Path(d.path).write_text("edited")


@component
def edits_and_fails(d: Input[Dataset]):
    import os
    from pathlib import Path

    os.chmod(d.path, 0o644)  # noqa: PTH101
    Path(d.path).write_text("edited")
    raise ValueError("it was all for nothing")


@component
def adds_a_file(d: Input[Dataset]):
    from pathlib import Path

    (Path(d.path) / "another").touch()


@component
def removes(d: Input[Dataset]):
    from pathlib import Path

    Path(d.path).unlink()


@component
def touches(d: Input[Dataset]) -> str:
    """Writes what is there already, and sets another time: no edit."""
    import os
    from pathlib import Path

    text = Path(d.path).read_text()
    os.chmod(d.path, 0o644)  # noqa: PTH101
    Path(d.path).write_text(text)
    os.utime(d.path, (1, 1))
    return text


@component
def reads(d: Input[Dataset]) -> str:
    from pathlib import Path

    return Path(d.path).read_text()


@component
def reads_anyhow(d: Input[Dataset] = None) -> str:
    """Has a default, so that it may run after a failure."""
    from pathlib import Path

    return Path(d.path).read_text()


@component
def makes_a_folder(made: Output[Dataset]):
    import os
    from pathlib import Path

    folder = Path(made.path)
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "rows").write_text("1")
    (folder / "link").symlink_to("/etc/hostname")
    outside = Path(os.environ["MLOPS_MINI_TEST_LINES"]).with_name("outside")
    outside.write_text("of the user's own")
    (folder / "second_name").hardlink_to(outside)


@component
def waits_then_reads(d: Input[Dataset]) -> str:
    from pathlib import Path

    from tests.runner import gates

    gates.say("reader waits")
    gates.wait_at("reader")
    return Path(d.path).read_text()


@component
def edits_when_read(d: Input[Dataset]):
    import os
    import time
    from pathlib import Path

    from tests.runner import gates

    while not gates.said(beginning="reader waits"):
        time.sleep(0.01)
    os.chmod(d.path, 0o644)  # noqa: PTH101
    Path(d.path).write_text("edited")
    gates.open_gates("reader")


@component
def copies_and_appends(d: Input[Dataset], made: Output[Dataset]):
    import shutil

    shutil.copyfile(d.path, made.path)
    with open(made.path, "a") as file:  # noqa: PTH123
        file.write(" and more")


@component
def outputs_named_as_our_own_files(
    work: Output[Dataset], parameters: Output[Dataset], artifacts: Output[Dataset]
) -> NamedTuple("Outputs", [("result", str), ("job", str)]):
    from pathlib import Path

    for made in (work, parameters, artifacts):
        Path(made.path).write_text(made.name)
    return ("r", "j")


@dsl.container_component
def output_named_job_json(made: Output[Dataset]):
    return dsl.ContainerSpec(image="debian:12", command=["sh", "-c", 'echo 1 > "$0"', made.path])


def after_editing(editor, name: str):
    @dsl.pipeline(name=name)
    def pipeline():
        made = mk(s="four").outputs["made"]
        reads_anyhow(d=made).after(editor(d=made)).ignore_upstream_failure()

    return pipeline


@dsl.pipeline
def innocent():
    reads(d=mk(s="four").outputs["made"])


@dsl.pipeline
def touching():
    touches(d=mk(s="four").outputs["made"])


@dsl.pipeline
def at_once():
    made = mk(s="four").outputs["made"]
    waits_then_reads(d=made)
    edits_when_read(d=made)


@dsl.pipeline
def folders():
    made = makes_a_folder().outputs["made"]
    adds_a_file(d=made)


@dsl.pipeline
def retried():
    edits(d=mk(s="four").outputs["made"]).set_retry(3, backoff_duration="0s")


@dsl.pipeline
def copied():
    reads(d=copies_and_appends(d=mk(s="four").outputs["made"]).outputs["made"])


@dsl.pipeline
def named_as_ours():
    made = outputs_named_as_our_own_files()
    for name in ("work", "parameters", "artifacts"):
        reads(d=made.outputs[name])


@pytest.mark.parametrize("editor", [edits, edits_and_fails, removes], ids=lambda one: one.name)
def test_an_edit_in_place_fails_its_task_and_no_later_one_gets_it(
    editor: object, runner: Runner
) -> None:
    with pytest.raises(AbortedError, match="changed its input 'd'"):
        runner.run(after_editing(editor, "edited"))
    tasks = runner.show(runner.runs()[0].id).tasks

    run = runner.run(innocent)

    assert tasks[editor.name].error.startswith("it changed its input 'd'")
    assert "copy it (shutil.copyfile)" in tasks[editor.name].error
    assert tasks["reads-anyhow"].state == "FAILED"
    assert f"task {editor.name!r} has changed it" in tasks["reads-anyhow"].error
    assert run.tasks["reads"].state == "SUCCEEDED"
    assert run.tasks["reads"].outputs["parameters"] == {"Output": "four"}


def test_an_edit_fails_the_first_attempt_of_several_for_the_next_has_no_input(
    runner: Runner,
) -> None:
    with pytest.raises(AbortedError, match="has changed it"):
        runner.run(retried)

    assert runner.show(runner.runs()[0].id).tasks["edits"].attempt == 1


def test_a_task_that_reads_while_another_edits_fails_too(runner: Runner) -> None:
    with pytest.raises(AbortedError, match="did at the same time"):
        runner.run(at_once)

    tasks = runner.show(runner.runs()[0].id).tasks
    states = {name: tasks[name].state for name in ("waits-then-reads", "edits-when-read")}
    assert set(states.values()) == {"FAILED"}
    assert runner.run(innocent).tasks["reads"].outputs["parameters"] == {"Output": "four"}


def test_a_file_more_in_a_folder_is_an_edit(runner: Runner) -> None:
    with pytest.raises(AbortedError, match="task 'adds-a-file' failed: it changed its input 'd'"):
        runner.run(folders)


def test_the_same_bytes_again_are_no_edit(runner: Runner) -> None:
    assert runner.run(touching).tasks["touches"].outputs["parameters"] == {"Output": "four"}


def test_what_a_task_has_made_is_read_only_and_what_is_not_ours_stays(
    runner: Runner, lines: Path
) -> None:
    @dsl.pipeline
    def made():
        makes_a_folder()

    folder = Path(runner.run(made).tasks["makes-a-folder"].outputs["artifacts"]["made"]["uri"])

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode) & 0o222

    assert mode(folder / "sub" / "rows") == 0
    assert mode(lines.with_name("outside")) != 0
    assert mode(folder / "sub") != 0  # Who made it can remove it.
    shutil.rmtree(folder)


def test_who_may_not_write_an_input_is_told_why(tmp_path: Path) -> None:
    from mlops_mini.runner import attempts

    read = tmp_path / "read"
    error = PermissionError(13, "Permission denied", str(read))
    given = {"inputs": {"artifacts": {"d": {"artifacts": [{"uri": str(read)}]}}}}

    assert "shutil.copyfile" in attempts._advice(error, given, tmp_path / "attempt")
    error.filename = "/etc/shadow"
    assert attempts._advice(error, given, tmp_path / "attempt") == ""


def test_a_copy_may_be_changed(runner: Runner) -> None:
    assert runner.run(copied).tasks["reads"].outputs["parameters"] == {"Output": "four and more"}


def test_outputs_may_bear_the_names_of_our_own_files(runner: Runner) -> None:
    tasks = runner.run(named_as_ours).tasks

    said = [tasks[name].outputs["parameters"]["Output"] for name in ("reads", "reads-2", "reads-3")]
    assert said == ["work", "parameters", "artifacts"]
    made = tasks["outputs-named-as-our-own-files"]
    assert made.outputs["parameters"] == {"result": "r", "job": "j"}


@pytest.mark.parametrize("name", ["job.json", "result.json", "log.txt", "has_run"])
def test_a_command_may_name_its_output_as_a_file_of_ours(
    name: str, runner: Runner, tmp_path: Path
) -> None:
    from kfp import compiler

    @dsl.pipeline
    def pipeline():
        output_named_job_json()

    compiler.Compiler().compile(pipeline, str(tmp_path / "one.yaml"))
    text = (tmp_path / "one.yaml").read_text()
    marks = ("[''made'']", "        made:")
    assert all(mark in text for mark in marks)
    for mark in marks:
        text = text.replace(mark, mark.replace("made", name))
    (tmp_path / "one.yaml").write_text(text)

    task = runner.run(tmp_path / "one.yaml").tasks["output-named-job-json"]

    assert Path(task.outputs["artifacts"][name]["uri"]).read_text() == "1\n"


# Importers.


def importing(uri: str, metadata: dict | None = None):
    @dsl.pipeline
    def imports():
        reads_uri(
            d=dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata=metadata or {}).output
        )

    return imports


@component
def reads_uri(d: Input[Artifact]) -> str:
    from pathlib import Path

    return f"{d.uri} {Path(d.path).read_text() if Path(d.path).exists() else 'nothing'}"


@pytest.mark.parametrize("way", ["relative", "file://", "file://localhost", "absolute"])
def test_an_importer_looks_where_its_reader_opens(
    way: str, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data of mine" / "rows"
    file.parent.mkdir()
    file.write_text("rows")
    monkeypatch.chdir(tmp_path)
    uri = {
        "relative": "data of mine/rows",
        "file://": file.as_uri(),
        "file://localhost": f"file://localhost{file.as_uri().removeprefix('file://')}",
        "absolute": str(file),
    }[way]

    task = runner.run(importing(uri)).tasks["reads-uri"]

    assert task.outputs["parameters"] == {"Output": f"{file} rows"}


def test_an_importer_of_a_file_notices_another_content(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    said = []
    for text in ("one", "one", "two"):
        file.write_text(text)
        task = runner.run(importing(file.as_uri())).tasks["reads-uri"]
        said.append((task.state, task.outputs["parameters"]["Output"].split()[-1]))

    assert said == [("SUCCEEDED", "one"), ("CACHED", "one"), ("SUCCEEDED", "two")]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/rows", r"gs://bucket/rows.*would open /gcs/bucket/rows.*mlops_mini_remote"),
        ("s3://bucket/rows", r"s3://bucket/rows.*would open /s3/bucket/rows"),
        ("https://example.com/rows", r"https://example\.com/rows.*cannot be looked at"),
        ("no/such/file", r"imports /.*/no/such/file, and there is nothing"),
        ("file:///no/such/file", r"imports /no/such/file, and there is nothing"),
        ("file://elsewhere/rows", r"a file of the machine 'elsewhere'"),
    ],
)
def test_what_an_importer_cannot_find_fails_it(uri: str, message: str, runner: Runner) -> None:
    with pytest.raises(AbortedError, match=f"task 'importer' failed: task 'importer' .*{message}"):
        runner.run(importing(uri))


def test_an_importer_may_say_that_its_readers_fetch_it(runner: Runner) -> None:
    task = runner.run(importing("gs://bucket/rows", {artifacts.REMOTE: True})).tasks["reads-uri"]

    assert task.outputs["parameters"] == {"Output": "gs://bucket/rows nothing"}


def test_an_empty_address_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="empty address"):
        artifacts.imported("", {}, task="task 'importer'")


def test_the_system_refuses_an_edit_by_whoever_is_not_root() -> None:
    script = (
        "import os, tempfile\n"
        "from pathlib import Path\n"
        "from mlops_mini.runner import artifacts\n"
        "os.getuid() or os.setuid(65534)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    made = Path(folder, 'made'); made.write_text('four')\n"
        "    artifacts.protect(str(made), within=Path(folder))\n"
        "    made.write_text('edited')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "PermissionError: [Errno 13] Permission denied" in done.stderr.splitlines()[-1]
