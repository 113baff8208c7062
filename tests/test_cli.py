"""The command as a person types it: exit status, one-line errors, JSON for scripts."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("mlops-mini"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)


VERBS = [
    ["loop"],
    ["loop", "report"],
    ["new"],
    ["describe"],
    ["predict"],
    ["serve"],
    ["explain"],
    ["compare"],
    ["reproduce"],
    ["history"],
    ["approve"],
    ["rollback"],
    ["reconcile"],
    ["prune"],
    ["review"],
    ["data", "check"],
    ["data", "send"],
    *(["pipeline", verb] for verb in ("run", "compile", "submit", "runs", "show", "prepare")),
]


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb):
    shown = run(*verb, "--help")

    assert shown.returncode == 0
    assert f"mlops-mini {' '.join(verb)}" in shown.stdout.partition("Example:")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["loop", "--weeks", "99"], "there are 47 weeks to play after the first 5, got 99"),
        (["loop", "--first", "1"], "2013-W00 to 2013-W51 are 52 weeks: the first 1 train"),
        (["loop", "--data", "nowhere"], "no data folder nowhere"),
        (["loop", "--resume"], "no loop in"),
        (["loop", "report"], "no loop in"),
        (["serve", "nowhere"], "no model folder nowhere: publish a model there first"),
        (["data", "check", "--data", "nowhere"], "no data folder nowhere"),
        (["pipeline", "run", "--period", "spring"], "'spring' is not a period"),
        (["pipeline", "run", "--period", "2013-01"], "use case flights: some periods before 2013"),
        (["pipeline", "run", "--period", "2014-05"], "use case flights: no flights of 2014-05"),
        (["pipeline", "run", "--period", "2013-03", "--resume", "gone"], "no run 'gone' in"),
        (
            ["explain", "1", "--workspace", "nowhere"],
            "no model has been published in nowhere/models yet: run",
        ),
        (["review", "nowhere.sqlite"], "no queue at nowhere.sqlite: name the one"),
        (["explain", "first", "--workspace", "nowhere"], "no records of runs in nowhere/runs"),
        (["pipeline", "show", "gone"], "no runs in"),
        (["pipeline", "runs"], "no runs in"),
        (
            ["pipeline", "submit", "--period", "2013-03", "--host", "http://127.0.0.1:9"],
            "GET experiments at http://127.0.0.1:9: no Kubeflow Pipelines answers there",
        ),
        (
            [
                *("pipeline", "submit", "--period", "2013-03", "--host", "http://127.0.0.1:9"),
                *("--package", "nowhere.yaml"),
            ],
            "no pipeline in nowhere.yaml: compile one",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(arguments, words, tmp_path):
    takes_workspace = arguments[0] == "loop" or arguments[1] in {"run", "runs", "show"}
    workspace = ["--workspace", str(tmp_path / "loop")] if takes_workspace else []
    failed = run(*arguments, *workspace)

    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith(f"mlops-mini: {words}")
    assert "Traceback" not in failed.stderr
    made = [path.name for path in tmp_path.rglob("*")]
    assert not made or arguments[0] == "loop" or "--resume" in arguments


@pytest.mark.parametrize("held", ["a thesis", "nothing"])
def test_a_loop_leaves_what_is_beside_its_workspace(tmp_path, held):
    (tmp_path / "paper").mkdir()
    if held == "a thesis":
        (tmp_path / "paper" / "thesis.tex").write_text("years of work")
    (tmp_path / "paper.log").write_text("of years of work")

    weeks = "1" if held == "a thesis" else "99"
    failed = run("loop", "--workspace", str(tmp_path / "paper"), "--weeks", weeks)

    assert failed.returncode == 1
    said = "the mark of a loop" if held == "a thesis" else "there are 47 weeks to play"
    assert said in failed.stderr.strip().splitlines()[-1]
    assert (tmp_path / "paper.log").read_text() == "of years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["paper", "paper.log"]


def test_a_wrong_flag_is_status_2():
    assert run("loop", "--wekes", "8").returncode == 2


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


def test_sigterm_cancels_a_pipeline_in_good_order_and_resumed_it_fills_the_cache(tmp_path):
    workspace = ["--workspace", str(tmp_path)]
    arguments = ["pipeline", "run", "--period", "2013-W03", "--no-challenger", *workspace]
    running = subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    begun: list[str] = []
    while not any("validate" in line for line in begun):
        begun.append(running.stderr.readline())
        assert begun[-1], "ended before its time"
    running.terminate()
    _, errors = running.communicate(timeout=60)

    assert running.returncode == 1
    assert "was canceled" in errors.strip().splitlines()[-1]
    (canceled,) = json.loads(run("pipeline", "runs", "--json", *workspace).stdout)
    assert canceled["state"] == "CANCELLED"
    verdict = json.loads((tmp_path / "verdicts" / f"{canceled['id']}.json").read_text())
    assert verdict["state"] == "CANCELLED"

    resumed = run(*arguments, "--resume", canceled["id"], "--json")
    assert resumed.returncode == 0, resumed.stderr
    first = json.loads(resumed.stdout)
    assert first["tasks"]["exit-handler-1/validate"]["attempt"] == 1
    assert {task["state"] for task in first["tasks"].values() if task["attempt"]} == {"SUCCEEDED"}

    second = json.loads(run(*arguments, "--json").stdout)
    states = {task["state"] for task in second["tasks"].values()}
    assert states == {"CACHED", "SUCCEEDED", "SKIPPED"}
    again = {path for path, task in second["tasks"].items() if task["state"] == "SUCCEEDED"}
    publish = "exit-handler-1/condition-2/condition-3/publish"
    assert again == {publish, "write-verdict"}
    published = [
        ran["tasks"][publish]["outputs"]["parameters"]["Output"] for ran in (first, second)
    ]
    assert published == [1, 1]
    assert [path.name for path in (tmp_path / "models" / "flights").glob("[0-9]*")] == ["1"]
    listed = json.loads(run("pipeline", "runs", "--json", *workspace).stdout)
    assert [found["id"] for found in listed] == [second["id"], first["id"]]
    shown = run("pipeline", "show", second["id"], *workspace).stdout
    assert f"{second['id']}: SUCCEEDED" in shown
    assert "it's the first" in " ".join(shown.split())  # it may be broken into lines
    assert "excess log loss" in shown.partition("Gate")[2]


def test_the_pipeline_compiles_to_a_file_with_images_by_digest(tmp_path):
    file = tmp_path / "flights.yaml"
    digests = {
        name: f"r.example/{name}@sha256:{64 * '0'}"
        for name in ("mlops-mini:0.1.0", "debian:12", "python:3.11")
    }
    images = [f"--image={name}={digest}" for name, digest in digests.items()]

    written = run("pipeline", "compile", "--out", str(file), *images)

    assert written.stdout.strip() == str(file)
    named = re.findall(r"^ +image: (\S+)$", file.read_text(), re.MULTILINE)
    assert "continuous-training" in file.read_text()
    assert set(named) == set(digests.values())


def test_a_file_that_is_something_else_is_not_compiled_over(tmp_path):
    (tmp_path / "pipeline.yaml").write_text("# PIPELINE DEFINITION\n# Name: mine\n")

    failed = run("pipeline", "compile", "--out", str(tmp_path / "pipeline.yaml"))

    assert failed.returncode == 1
    assert "holds something else than the pipeline continuous-training" in failed.stderr
    assert (tmp_path / "pipeline.yaml").read_text() == "# PIPELINE DEFINITION\n# Name: mine\n"
    for _ in range(2):
        assert run("pipeline", "compile", "--out", str(tmp_path / "flights.yaml")).returncode == 0
