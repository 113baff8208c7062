"""The set-up script: what it refuses before any download, and that it does nothing twice."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import set_up

ROOT = Path(__file__).resolve().parents[1]
FITS = {
    "version": (3, 12),
    "system": "Linux",
    "machine": "x86_64",
    "macos": "",
    "modules": ["venv", "ensurepip"],
}


def test_no_objection_to_a_machine_that_fits():
    assert set_up.objection(**FITS) is None
    assert (
        set_up.objection(**FITS | {"system": "Darwin", "machine": "arm64", "macos": "15.1"}) is None
    )


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"version": (3, 10)}, "Python 3.10 does not fit.*PYTHON=python3.12"),
        ({"version": (3, 14)}, "Python 3.14 does not fit"),
        ({"system": "Windows", "machine": "AMD64"}, "Windows on AMD64 .* use WSL2"),
        ({"system": "Darwin", "machine": "x86_64"}, "Darwin on x86_64 does not fit"),
        ({"system": "Darwin", "machine": "arm64", "macos": "14.7"}, "macOS 14.7 .* 15 or later"),
        ({"modules": ["venv"]}, "lacks its ensurepip module.*apt-get install python3-venv"),
        ({"modules": []}, "lacks its venv module"),
    ],
)
def test_each_objection_is_one_line_with_a_way_out(difference, words):
    line = set_up.objection(**FITS | difference)

    assert re.search(words, line)
    assert "\n" not in line


def test_a_python_that_does_not_fit_ends_make_in_one_line_before_any_download(tmp_path):
    # A Python that says it is 3.9, in front of the real one.
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 9, 0)\n")
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "requirements.txt", tmp_path)

    refused = subprocess.run(
        [sys.executable, "tools/set_up.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    assert refused.stdout.startswith("set-up: Python 3.9 does not fit")
    assert refused.stdout.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


def test_an_environment_is_ready_only_for_the_lock_it_was_made_from(tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").symlink_to(sys.executable)
    (tmp_path / ".lock-digest").write_text("abc")

    assert set_up.is_ready(str(tmp_path), "abc")
    assert not set_up.is_ready(str(tmp_path), "another")
    (bin_folder / "python").unlink()
    (bin_folder / "python").symlink_to("/nowhere/python")
    assert not set_up.is_ready(str(tmp_path), "abc")


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_set_up_has_not_made_is_not_removed(tmp_path, what):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "thesis.tex").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "paper")
    (tmp_path / "lock.txt").touch()
    folder = tmp_path / {"folder": "paper", "file": "paper/thesis.tex", "link": "link"}[what]

    refused = subprocess.run(
        [sys.executable, ROOT / "tools/set_up.py", folder, "--lock", tmp_path / "lock.txt"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    assert refused.stdout.startswith(f"set-up: {folder} is there, and set-up has not made it: move")
    assert (tmp_path / "paper" / "thesis.tex").read_text() == "years of work"


def test_what_a_killed_set_up_left_is_made_anew(tmp_path):
    (tmp_path / "venv" / "half").mkdir(parents=True)
    (tmp_path / "venv" / ".lock-digest").touch()
    (tmp_path / "lock.txt").touch()
    command = [sys.executable, ROOT / "tools/set_up.py", tmp_path / "venv"]

    for _ in range(2):
        subprocess.run([*command, "--lock", tmp_path / "lock.txt"], check=True)

    assert not (tmp_path / "venv" / "half").exists()
    assert (tmp_path / "venv" / "bin" / "python").exists()


def test_make_alone_lists_every_target():
    listed = subprocess.check_output(["make"], cwd=ROOT, text=True)

    for target in ("loop", "test", "lab", "check", "lock", "bench", "clean"):
        assert f"make {target} " in listed


def test_each_recorded_table_is_made_by_bench_or_by_replays():
    made = {}
    for target in ("bench", "replays"):
        shown = subprocess.check_output(["make", "--dry-run", target], cwd=ROOT, text=True)
        made[target] = set(re.search(r"for name in (.*?);", shown)[1].split())

    scripts = {script.stem for script in (ROOT / "benchmarks").glob("*.py")}
    recorded = {table.stem for table in (ROOT / "benchmarks").glob("*.md")}
    assert recorded <= made["bench"] | made["replays"] <= scripts
    assert not made["bench"] & made["replays"]


@pytest.mark.parametrize(("target", "leaves_out"), [("unit", True), ("test", False)])
def test_what_is_slow_or_needs_docker_runs_in_make_test_alone(target, leaves_out):
    env = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    shown = subprocess.check_output(["make", "--dry-run", target], cwd=ROOT, env=env, text=True)

    (command,) = re.findall(r"pytest .* -n logical (?:.*\\\n)*.*", shown)
    assert ('-m "not slow and not docker"' in command) == leaves_out
    assert "--durations=10" in command


def test_a_target_with_nothing_to_set_up_sets_up_nothing(tmp_path):
    """In a copy without packages: whatever it tried to make or install would show or fail."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    calls = tmp_path / "calls.txt"
    python.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n')
    python.chmod(0o755)
    stamp = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
    (tmp_path / ".venv" / ".lock-digest").write_text(stamp)

    said = subprocess.check_output(["make", "--silent", "ready"], cwd=tmp_path, text=True)

    assert said == ""
    assert calls.read_text() == "-c \n"  # it still starts; nothing else was asked of it
    assert sorted(path.name for path in (tmp_path / ".venv").iterdir()) == [".lock-digest", "bin"]


def test_every_dependency_is_locked_to_one_version():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]

    assert packages[-1] == "-e ."
    assert all(re.match(r"[A-Za-z0-9_.\-]+(\[[a-z,]+\])?==\S+", line) for line in packages[:-1])
    names = {re.split(r"[=\[]", line)[0].lower() for line in packages[:-1]}
    assert {
        "tensorflow",
        "tensorflow-serving-api",
        "albumentations",
        "jupyterlab",
        "nbval",
    } <= names
    assert "tensorflow-cpu" not in names
