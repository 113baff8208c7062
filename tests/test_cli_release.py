"""`mlops-mini release` as a person types it, with real Envoy between fake versions."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlops_mini import cli_release
from mlops_mini.errors import MlopsMiniError
from tests.rollout.backends import MODEL, FakeVersion, Load
from tests.serving.servers import wait_until

COMMAND = str(Path(sys.executable).with_name("mlops-mini"))
RENDER = ("render", "--model", "m", "--image", "tensorflow/serving:2.8.0", "--host", "m.shop.com")
DOCS = (Path(__file__).parents[1] / "docs" / "releases.md").read_text()


def run(*arguments: str) -> Result:
    """Call it in this process: each start of the command costs a second."""
    return CliRunner().invoke(cli_release.app, arguments)


def _who(version: FakeVersion) -> str:
    backend = version.backend
    return f"{backend.name}={backend.rest},{backend.grpc}"


@pytest.mark.parametrize(
    "verb",
    ["route", "plan", "start", "continue", "status", "pause", "resume", "abort", "promote",
     "render", "report"],
)  # fmt: skip
def test_help_shows_an_example(verb: str) -> None:
    shown = run(verb, "--help")

    assert shown.exit_code == 0
    assert f"mlops-mini release {verb}" in shown.stdout.partition("Example:")[2]


def test_the_plan_that_the_page_shows() -> None:
    command, sentence = re.findall(r"\$ mlops-mini release (plan .*)\n(.*)\n", DOCS)[0]

    assert run(*command.split()).stdout == f"{sentence}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--bad-rate", ".001", "--ratio", "1.1", "--requests-per-s", ".1"],
         "the traffic can't prove this within 14 days"),
        (["plan", "--bad-rate", "2", "--ratio", "1.1", "--requests-per-s", ".1"],
         "bad_rate must be between 0 and 1"),
        (["start", "--model", "m", "--stable", "v1", "--canary", "v2"],
         "expected a name and the addresses"),
        (["start", "--model", "m", "--stable", "v1=127.0.0.1:1,127.0.0.1:2",
          "--canary", "v2=127.0.0.1:3,127.0.0.1:4", "--steps", "5,1"], "must rise"),
        (["start", "--model", "m", "--stable", "v1=127.0.0.1:1,127.0.0.1:2",
          "--canary", "v2=127.0.0.1:3,127.0.0.1:4", "--steps", "few"], "with commas between"),
        (["status"], "no release in"),
        (["abort", "--reason", "so"], "no release in"),
        (["report"], "no release in"),
        ([*RENDER, "--stable", "v1"], "expected a name and where its model is"),
        ([*RENDER, "--stable", "v1=gs://b/1", "--canary", "v1=gs://b/2"], "stable and canary"),
        ([*RENDER, "--stable", "v1=gs://b/1", "--weight", "5"], "there is no canary"),
        ([*RENDER, "--stable", "v1=gs://b/1", "--canary", "v2=gs://b/1"], "a path of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_words(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    folder = {"plan": [], "render": [str(tmp_path)]}.get(
        arguments[0], ["--folder", str(tmp_path / "r")]
    )

    failed = run(*arguments, *folder)

    assert failed.exit_code == 1
    assert isinstance(failed.exception, MlopsMiniError)  # one line on stderr, by the command
    assert words in str(failed.exception)


def test_a_policy_is_written_for_kubernetes_with_what_istio_cannot_say(tmp_path: Path) -> None:
    shown = run(
        *RENDER, "--to", "kubernetes", str(tmp_path), "--stable", "v1=gs://b/1", "--canary",
        "v2=gs://b/2", "--weight", "30", "--header", "x-user-group=canary",
    )  # fmt: skip

    assert shown.exit_code == 0, shown.output
    assert {Path(line).relative_to(tmp_path).parts[0] for line in shown.stdout.splitlines()} == {
        "base",
        "overlays",
    }
    assert "note: retries: Istio tries again on the version" in shown.stderr
    interface = (tmp_path / "overlays" / "canary" / "3-interface.yaml").read_text()
    assert "weight: 30" in interface
    assert "exact: canary" in interface


def test_a_release_from_the_router_to_the_page(tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path / "r")]
    with FakeVersion("v1") as stable, FakeVersion("v2", share=0.25) as broken, subprocess.Popen(
        [COMMAND, "release", "route", "--model", MODEL, "--stable", _who(stable), *folder],
        stdout=subprocess.PIPE, text=True,
    ) as router:  # fmt: skip
        assert router.stdout is not None
        address = re.findall(r"served at (\S+)", router.stdout.readline())[0]
        try:
            with Load(address) as load:
                wait_until(lambda: load.counts.total() > 20, "requests")
                ended = run(
                    "start", "--model", MODEL, "--stable", _who(stable), "--canary",
                    _who(broken), "--steps", "20,50", "--look-s", ".05", *folder, "--json",
                )  # fmt: skip
            assert set(load.counts) == {200}
        finally:
            router.terminate()
    page = tmp_path / "release.html"
    shown = run("status", *folder)
    assert run("report", *folder, "--out", str(page)).exit_code == 0

    document = json.loads(ended.stdout)
    assert ended.exit_code == 0
    assert document["phase"] == "ROLLED_BACK"
    assert [one["phase"] for one in document["decisions"]] == ["RAMP", "ROLLED_BACK"]
    assert "v2 was rolled back, v1 serves: " in shown.stdout
    assert "v2 was rolled back" in page.read_text()
    assert router.returncode == 130  # as after Ctrl-C
    again = run("abort", "--reason", "late", *folder)
    assert again.exit_code == 1
    assert "the release is over" in str(again.exception)
