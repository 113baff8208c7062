"""Environments of components: what is to be installed, once, whoever asks and whoever dies."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest
from kfp import dsl

from mlops_mini.errors import UnavailableError
from mlops_mini.runner import environments, spec
from tests.serving.servers import wait_until

KFP = ["kfp==2.17.0", "--no-deps", 'typing-extensions>=3.7.4,<5; python_version<"3.9"']
MAKE = """
import sys
from pathlib import Path
from mlops_mini.runner import environments
root, log_file, *install = sys.argv[1:]
print(environments.python_of([install], root=Path(root), log_file=Path(log_file)))
"""


def compiled(**options: object) -> dsl.base_component.BaseComponent:
    @dsl.component(base_image="python:3.11", **options)
    def told(x: int) -> int:
        return x

    return told


def command_of(component: dsl.base_component.BaseComponent) -> list[str]:
    (executor,) = component.pipeline_spec.deployment_spec["executors"].values()
    return list(executor["container"]["command"])


def tiny_wheel(folder: Path, version: str = "1.0") -> Path:
    """Make a package of one module, as a wheel in a folder that pip can look into."""
    folder.mkdir(exist_ok=True)
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


# What is to be installed.


@pytest.mark.parametrize(
    ("options", "installs"),
    [
        ({"install_kfp_package": False}, []),
        ({}, [KFP]),
        (
            {"packages_to_install": ["a==1", "b[x]>=2,<3", "c; python_version < '4'"]},
            [["a==1", "b[x]>=2,<3", "c; python_version < '4'"], KFP],
        ),
        (
            {
                "packages_to_install": ["a @ file:///a b"],
                "pip_index_urls": ["https://e.org/simple", "https://f.org/simple"],
                "pip_trusted_hosts": ["e.org"],
                "install_kfp_package": False,
            },
            [
                [
                    *("--index-url", "https://e.org/simple"),
                    *("--extra-index-url", "https://f.org/simple"),
                    *("--trusted-host", "e.org", "a @ file:///a b"),
                ]
            ],
        ),
        (
            {
                "packages_to_install": ["a"],
                "kfp_package_path": "git+https://g.org/kfp.git@main#subdirectory=sdk/python",
            },
            [["a"], ["git+https://g.org/kfp.git@main#subdirectory=sdk/python"]],
        ),
        ({"packages_to_install": ["a"], "use_venv": True}, [["a"], KFP]),
    ],
    ids=["nothing", "only kfp", "requirements", "indexes", "another kfp", "use_venv"],
)
@pytest.mark.filterwarnings("ignore:.*use_venv.*")
def test_what_a_compiled_component_would_install_is_read_from_its_command(
    options: dict[str, object], installs: list[list[str]]
) -> None:
    assert environments.installs_of(command_of(compiled(**options))) == installs


@pytest.mark.parametrize(
    "command", [[], ["python3", "-m", "pip"], ["sh", "-c", "echo hello"], ["sh"], ["sh", "-c"]]
)
def test_other_commands_install_nothing(command: list[str]) -> None:
    assert environments.installs_of(command) == []


def test_another_version_or_order_is_another_environment() -> None:
    names = {environments.digest_of(one) for one in ([["a==1"]], [["a==2"]], [["a==1"], ["b"]])}
    assert len(names) == 3
    assert environments.digest_of([["a==1"]]) in names


# Making it.


def test_two_who_need_the_same_at_once_make_it_once_and_apart_from_what_is_here(
    tmp_path: Path,
) -> None:
    wheels = tiny_wheel(tmp_path / "wheels")
    # pip would take this for installed already, if it could see it.
    here = tmp_path / "here" / "tiny-1.0.dist-info"
    here.mkdir(parents=True)
    (here / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    install = ["--no-index", "--find-links", str(wheels), "tiny==1.0"]
    env = {**os.environ, "PYTHONPATH": str(here.parent)}

    command = [sys.executable, "-c", MAKE, str(tmp_path / "all"), str(tmp_path / "pip.log")]
    both = [
        subprocess.Popen([*command, *install], stdout=subprocess.PIPE, env=env) for _ in range(2)
    ]
    said = {process.communicate(timeout=120)[0].decode().strip() for process in both}
    (python,) = said

    code = "import tiny, sys; print(tiny.version, 'numpy' in sys.modules)"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["1.0", "False"]
    assert len(list((tmp_path / "all").glob("component-*/"))) == 1
    hidden = subprocess.run([python, "-c", "import numpy"], capture_output=True, check=False)
    assert b"No module named 'numpy'" in hidden.stderr


def test_what_is_half_made_is_never_used_and_made_anew_once_nobody_writes_in_it(
    tmp_path: Path,
) -> None:
    root, log_file = tmp_path / "all", tmp_path / "pip.log"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        install = ["--index-url", index, "--retries", "0", "--timeout", "100", "tiny==1.0"]
        command = [sys.executable, "-c", MAKE, str(root), str(log_file), *install]
        killed = subprocess.Popen(command)
        silent.settimeout(60)
        asked, _ = silent.accept()
        (pip,) = psutil.Process(killed.pid).children()
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()

        (lock_file,) = root.glob("*.lock")
        with lock_file.open() as lock:
            with pytest.raises(BlockingIOError):  # held by pip, which still writes
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pip.kill()
            wait_until(lambda: not pip.is_running() or pip.status() == "zombie", "pip's end")
            asked.close()
    left = next(root.glob("component-*/")) / "half"
    left.touch()

    with pytest.raises(UnavailableError, match=r"tiny==1.0.*pip\.log.*network or a local"):
        environments.python_of([install], root=root, log_file=log_file)

    assert not left.exists()
    assert "ould not find a version" in log_file.read_text() or "refused" in log_file.read_text()
    assert not list(root.glob("component-*/.complete"))


def test_all_that_a_pipeline_needs_is_found_in_it_and_not_made_again(tmp_path: Path) -> None:
    needs = compiled(packages_to_install=["tiny==1.0"], install_kfp_package=False)

    @dsl.pipeline(name="one-of-two")
    def one_of_two():
        needs(x=1)
        compiled(install_kfp_package=False)(x=1)

    made = tmp_path / f"component-{environments.digest_of([['tiny==1.0']])[:12]}"
    made.mkdir()
    (made / ".complete").touch()

    pythons = environments.prepare(spec.load(one_of_two), root=tmp_path)

    assert pythons == [made / "bin" / "python"]
