"""The command as a person types it: exit status, one-line errors, JSON for scripts."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("mlops-mini"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", [["loop"], ["serve"], ["data", "check"], ["data", "rebuild"]])
def test_help_shows_an_example(verb):
    shown = run(*verb, "--help")

    assert shown.returncode == 0
    assert f"mlops-mini {' '.join(verb)}" in shown.stdout.partition("Example:")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["loop", "--first", "March"], "'March' is not a period: write a month as 2013-03"),
        (["loop", "--first", "2013-13"], "no month 13 of 2013"),
        (["loop", "--data", "nowhere"], "no data folder nowhere"),
        (["serve", "nowhere"], "no model folder nowhere: publish a model there first"),
        (["data", "check", "--data", "nowhere"], "no data folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(arguments, words, tmp_path):
    workspace = ["--workspace", str(tmp_path / "loop")] if arguments[0] == "loop" else []
    failed = run(*arguments, *workspace)

    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith(f"mlops-mini: {words}")
    assert "Traceback" not in failed.stderr


def test_a_wrong_flag_is_status_2():
    assert run("loop", "--frist", "2013-01").returncode == 2


def test_an_empty_model_folder_is_not_served(tmp_path):
    failed = run("serve", str(tmp_path))

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"mlops-mini: no versions in {tmp_path}; it holds nothing")


def test_a_taken_port_is_named(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = run("serve", str(tmp_path / "m"), "--rest-port", str(port))

    assert failed.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in failed.stderr.splitlines()[-1]


def test_data_check_counts_every_file():
    checked = run("data", "check", "--json")

    assert checked.returncode == 0
    n_rows = json.loads(checked.stdout)
    assert sum(n for name, n in n_rows.items() if name.startswith("flights/")) == 336_776
    assert n_rows["weather.parquet"] == 26_115
