"""Tasks in containers: what they see, that they make the same, and that none is left behind."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlops_mini import containers
from mlops_mini.errors import AbortedError, FailedPreconditionError, NotFoundError, UnavailableError
from mlops_mini.runner.records import RunRecord
from mlops_mini.runner.runner import Runner
from tests.runner import container_pipelines as pipelines
from tests.serving.servers import wait_until
from tools.image import DEBIAN

pytestmark = pytest.mark.docker
REPOSITORY = Path(__file__).parents[2]
WAITING = "echo begun; sleep 600"
RUN = """
import signal, sys
from pathlib import Path
from mlops_mini.runner.runner import Runner
from tests.runner import container_pipelines

signal.signal(signal.SIGTERM, signal.default_int_handler)
root, folder, script = sys.argv[1:]
with Runner(Path(root), mode="docker", volumes={"folder": "write"}) as runner:
    runner.run(container_pipelines.scripted, {"folder": folder, "script": script})
"""


@pytest.fixture(autouse=True)
def debian(base_image: str) -> None:
    containers.docker("tag", base_image, f"{containers.LOCAL}/{DEBIAN}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the tasks are named and may write, with a comma in its path."""
    folder = tmp_path / "a,b"
    folder.mkdir()
    return folder


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with Runner(tmp_path / "runs", mode="docker", volumes={"folder": "write"}) as runner:
        yield runner


@pytest.fixture
def start(tmp_path: Path, folder: Path) -> Iterator:
    """Starts a runner in a process of its own, and waits until its container runs."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(script: str = WAITING) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUN, str(tmp_path / "runs"), str(folder), script]
        with (tmp_path / "output.txt").open("ab") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=output, cwd=REPOSITORY))

        def has_begun() -> bool:
            assert started[-1].poll() is None, (tmp_path / "output.txt").read_text()
            logs = (tmp_path / "runs").glob("*/command/*/log.txt")
            return any("begun" in log.read_text() for log in logs)

        wait_until(has_begun, "the container")
        assert there(tmp_path)
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()


def there(folder: Path) -> list[str]:
    """The containers of the attempts below a folder, ended ones too."""
    form = '--format={{.ID}} {{.Label "mlops-mini.attempt"}}'
    lines = containers.docker("ps", "--all", form).splitlines()
    return [line for line in lines if str(folder) in line]


def says(runner: Runner, folder: Path, script: str) -> list[str]:
    """Run a script as a task, and return the lines that it prints."""
    run = runner.run(pipelines.scripted, {"folder": str(folder), "script": script})
    return run.tasks["command"].log_file.read_text().splitlines()


def made(run: RunRecord) -> dict[str, list[str]]:
    return {
        path: [artifact["digest"] for artifact in task.outputs["artifacts"].values()]
        + list(task.outputs["parameters"].values())
        for path, task in run.tasks.items()
    }


def test_the_same_pipeline_makes_the_same_by_process_and_by_container(
    runner: Runner, folder: Path, tmp_path: Path
) -> None:
    in_containers = runner.run(pipelines.letters, {"folder": str(folder)})
    with Runner(tmp_path / "processes") as by_process:
        as_processes = by_process.run(pipelines.letters, {"folder": str(folder)})

    assert made(in_containers) == made(as_processes)
    assert made(in_containers)["upper"][-1] == "hello"
    assert not there(tmp_path)


def test_a_result_is_kept_for_the_image_that_made_it(runner: Runner, folder: Path) -> None:
    first, second = (runner.run(pipelines.letters, {"folder": str(folder)}) for _ in range(2))
    assert {task.state for task in second.tasks.values()} == {"CACHED"}

    name = f"{containers.LOCAL}/{DEBIAN}"
    container = containers.docker("create", name, "true")
    containers.docker("commit", "--message=the same under another digest", container, name)
    containers.docker("rm", container)
    try:
        third = runner.run(pipelines.letters, {"folder": str(folder)})
    finally:
        containers.docker("image", "rm", name)

    assert {task.state for task in third.tasks.values()} == {"SUCCEEDED"}
    assert made(first) == made(third)


def test_a_task_is_who_runs_it_and_alone_with_its_files(runner: Runner, folder: Path) -> None:
    status = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status"
    script = (
        f"id -u; id -g; {status}; tail -n +3 /proc/net/dev | cut -d: -f1; "
        "touch /x 2>&1; touch /tmp/x && echo temporary; "
        f'echo more 2>&1 >> "$0"; cat "$0"; echo; ls {REPOSITORY} 2>&1; ls "$PWD/.."'
    )
    lines = says(runner, folder, script)

    assert lines[:2] == [str(os.getuid()), str(os.getgid())]
    assert lines[2:5] == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    assert lines[5].strip() == "lo"
    assert "Read-only file system" in lines[6]
    assert lines[7] == "temporary"
    assert "Read-only file system" in lines[8] or "Permission denied" in lines[8]
    assert lines[9] == "abc"
    assert "No such file or directory" in lines[10]
    assert "job.json" in lines


def test_what_is_no_volume_is_not_there(tmp_path: Path, folder: Path) -> None:
    with (
        Runner(tmp_path / "runs", mode="docker") as runner,
        pytest.raises(AbortedError, match=r"cannot create regular file .*No such file"),
    ):
        runner.run(pipelines.letters, {"folder": str(folder)})


def test_a_failing_command_is_named_with_its_status_and_last_words(
    runner: Runner, folder: Path
) -> None:
    with pytest.raises(AbortedError, match="'sh' ended with exit status 3: no rows"):
        says(runner, folder, "echo no rows; exit 3")


def test_a_missing_image_is_named_before_anything_runs(runner: Runner, folder: Path) -> None:
    with pytest.raises(NotFoundError, match=r"image nobody/has-this:1 isn't on this machine.*pull"):
        runner.run(pipelines.elsewhere, {"folder": str(folder)})
    assert not runner.runs()
    assert not list(folder.iterdir())


def test_an_image_for_another_processor_is_named(tmp_path: Path) -> None:
    layer = bytes(10240)
    config = {
        "architecture": "s390x",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["other:1"], "Layers": ["layer.tar"]}]
    contents = {"config.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, data in {**contents, "layer.tar": layer.decode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data.encode()))
    containers.docker("load", f"--input={tmp_path}/image.tar")

    with pytest.raises(FailedPreconditionError, match="other:1 is for linux/s390x, and this"):
        containers.image("other:1")
    containers.docker("image", "rm", "other:1")


def test_no_engine_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(
        UnavailableError, match=r"^no Docker engine answers at unix://.*DOCKER_HOST"
    ):
        containers.image(DEBIAN)


def test_a_canceled_run_leaves_no_container(start, tmp_path: Path) -> None:
    process = start()
    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 1
    assert "was canceled" in (tmp_path / "output.txt").read_text()
    assert not there(tmp_path)


def test_a_killed_runner_leaves_no_container(start, tmp_path: Path) -> None:
    start().kill()

    wait_until(lambda: not there(tmp_path), "the end of the container")


def test_a_killed_fork_server_leaves_no_container(start, tmp_path: Path) -> None:
    process = start()
    (fork_server,) = psutil.Process(process.pid).children()
    fork_server.kill()

    wait_until(lambda: not there(tmp_path), "the end of the container")


def test_what_all_are_killed_for_is_removed_when_the_run_is_resumed(
    start, tmp_path: Path, folder: Path
) -> None:
    process = start('echo begun; test -e "$1/go" || sleep 600')
    (fork_server,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGSTOP)
    fork_server.kill()
    process.kill()
    process.wait()
    assert there(tmp_path)

    (folder / "go").touch()
    with Runner(tmp_path / "runs", mode="docker", volumes={"folder": "write"}) as runner:
        run = runner.resume(runner.runs()[0].id, pipelines.scripted)

    assert run.state == "SUCCEEDED"
    assert not there(tmp_path)
