"""The loop on real flights, with real processes: what it ends with, and what may go wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest

from mlops_mini.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from mlops_mini.loop.play import play

ROOT = Path(__file__).resolve().parents[2]
NAME = "mlops_mini.flights.use_case:FLIGHTS"
COMMAND = [str(Path(sys.executable).with_name("mlops-mini")), "loop"]


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_listening(log: Path) -> bool:
    return log.exists() and "Running gRPC ModelServer" in log.read_text()


def start_loop(workspace: Path, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--workspace", str(workspace), "--data", str(data)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def few_flights(
    folder: Path, change: Callable[[str, pd.DataFrame], None], *, one_in: int = 10
) -> Path:
    """Make a data folder with some flights of the loop's months, after a change to each."""
    (folder / "flights").mkdir(parents=True)
    shutil.copy(ROOT / "data" / "weather.parquet", folder)
    for month in ("2013-01", "2013-02", "2013-03"):
        flights = pd.read_parquet(ROOT / "data" / "flights" / f"{month}.parquet")[::one_in]
        change(month, flights)
        flights.to_parquet(folder / "flights" / f"{month}.parquet")
    return folder


def test_two_months_end_in_a_verdict_and_the_version_it_calls_for(tmp_path):
    played = subprocess.run(
        [*COMMAND, "--json", "--workspace", str(tmp_path / "loop")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert played.returncode == 0, played.stderr
    report = json.loads(played.stdout)
    assert [part["n_arrived"] for part in report["partitions"]] == [27004, 24951, 28834]
    baseline, candidate = report["baseline"], report["candidate"]
    assert baseline["n_rows"] == candidate["n_rows"] == 12836  # of the last 14 days
    assert max(baseline["log_loss"], candidate["log_loss"]) < baseline["base_rate_log_loss"]
    verdict = report["verdict"]
    assert verdict["decision"] in ("blessed", "undecided")
    rules = {rule["rule"]: rule for rule in verdict["rules"]}
    assert {rule["verdict"] for rule in verdict["rules"]} <= {"pass", "undecided", "too small"}
    assert rules["log loss"]["value"] == pytest.approx(candidate["log_loss"] - baseline["log_loss"])
    assert verdict["is_blessed"] == (rules["log loss"]["upper"] < 0.002)
    assert report["before"]["version"] == 1
    assert report["after"]["version"] == (2 if verdict["is_blessed"] else 1)
    for asked in (report["before"], report["after"]):
        assert asked["n_asked"] == {"rest": 200, "grpc": 200}
        assert max(asked["max_difference"].values()) < 1e-6
    assert "TensorFlow" not in played.stderr
    record = (tmp_path / "loop" / "quarantine.csv").read_text().splitlines()
    assert record[0] == "period,table,row,column,rule,value"
    assert [line.split(",")[:2] for line in record[1:]] == [["2013-02", "weather"]]


@pytest.mark.slow
def test_a_worse_candidate_is_refused_and_the_baseline_stays(tmp_path):
    """Early March with its outcomes turned round teaches the candidate nonsense."""

    def turn_early_march_round(month: str, flights: pd.DataFrame) -> None:
        if month == "2013-03":
            is_early = flights["day"] < 18
            flights.loc[is_early, "arr_delay"] = 15 - flights.loc[is_early, "arr_delay"]

    data = few_flights(tmp_path / "data", turn_early_march_round, one_in=3)

    played = subprocess.run(
        [*COMMAND, "--json", "--workspace", str(tmp_path / "loop"), "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert played.returncode == 0, played.stderr
    report = json.loads(played.stdout)
    assert report["verdict"]["decision"] == "refused"
    failed = {rule["rule"] for rule in report["verdict"]["rules"] if rule["verdict"] == "fail"}
    assert "log loss" in failed
    assert report["before"]["version"] == report["after"]["version"] == 1
    assert not (tmp_path / "loop" / "models" / "flights" / "2").exists()


def test_a_killed_server_ends_the_loop_in_one_line_and_the_next_loop_can_begin(tmp_path):
    data = few_flights(tmp_path / "data", lambda _month, _flights: None)
    workspace = tmp_path / "loop"
    log = workspace / "server" / "server.log"
    playing = start_loop(workspace, data)
    wait_until(lambda: is_listening(log) or playing.poll() is not None)
    (server,) = (
        child
        for child in psutil.Process(playing.pid).children()
        if "mlops_mini.serving.server" in child.cmdline()
    )
    server.kill()

    _, errors = playing.communicate(timeout=120)

    assert playing.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("mlops-mini: the model server was killed by SIGKILL")
    assert "server.log" in last
    assert "Traceback" not in errors

    again = start_loop(workspace, data)
    begun = ""
    while not begun.lstrip().startswith("[2/7]"):
        begun = again.stderr.readline()
        assert begun, "ended before its time"
    assert not log.exists()
    wait_until(psutil.Process(again.pid).children, timeout_s=60.0)
    children = psutil.Process(again.pid).children(recursive=True)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=120)
    assert again.returncode != 0
    wait_until(lambda: not any(is_running(child.pid) for child in children), timeout_s=60.0)


def test_a_folder_with_other_files_is_not_emptied(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(FailedPreconditionError, match=r"mark of a loop.*name an empty or a new"):
        play(NAME, first="2013-01", workspace=tmp_path)

    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_workspace_that_holds_the_data_is_not_emptied(tmp_path):
    """Not even an earlier loop's, in which somebody has put data since."""
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / ".mlops-mini-loop").touch()
    data = few_flights(tmp_path / "loop" / "data", lambda _month, _flights: None)

    with pytest.raises(FailedPreconditionError, match="holds what is needed"):
        play(NAME, first="2013-01", workspace=tmp_path / "loop", data_folder=data)

    assert len(list((data / "flights").iterdir())) == 3


def test_without_data_an_earlier_loop_stays(tmp_path):
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / ".mlops-mini-loop").touch()
    (tmp_path / "loop" / "quarantine.csv").touch()

    with pytest.raises(NotFoundError, match="no data folder"):
        play(
            NAME,
            first="2013-01",
            workspace=tmp_path / "loop",
            data_folder=tmp_path / "nowhere",
        )

    assert (tmp_path / "loop" / "quarantine.csv").exists()


def test_a_workspace_in_use_is_refused(tmp_path):
    def play_again_inside(_step, _n_done, _n_all):
        play(NAME, first="2013-01", workspace=tmp_path)

    with pytest.raises(AlreadyExistsError, match=r"another process works in .*, as a loop"):
        play(NAME, first="2013-01", workspace=tmp_path, on_step=play_again_inside)


def test_a_missing_third_month_is_told_before_anything_is_trained(tmp_path):
    steps = []

    with pytest.raises(
        NotFoundError, match=r"no flights of 2014-01 .* there is 2013-01 to 2013-12"
    ):
        play(
            NAME,
            first="2013-11",
            workspace=tmp_path,
            on_step=lambda step, _n_done, _n_all: steps.append(step),
        )

    assert len(steps) == 1


def test_the_loop_plays_months_not_weeks(tmp_path):
    with pytest.raises(InvalidArgumentError, match="plays months, got 2013-W03"):
        play(NAME, first="2013-W03", workspace=tmp_path)
