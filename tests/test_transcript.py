"""Lines of shell that are run, recorded, and shown again where they can't run."""

import json
from pathlib import Path

import pytest

from mlops_mini.errors import NotFoundError
from mlops_mini.transcript import Shell

LINE = 'echo "asked $(wc -l < asked)"; echo again >> asked'


def test_what_was_recorded_is_shown_in_order_and_then_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked").write_text("once\n")
    recording = tmp_path / "lines.json"
    live = Shell(recording, folder=tmp_path, is_live=True, is_recording=True)
    said = [live(LINE) for _ in range(2)]
    printed = capsys.readouterr().out

    replayed = Shell(recording, folder=tmp_path, is_live=False)
    assert [replayed(LINE) for _ in range(2)] == said == ["asked 1\n", "asked 2\n"]
    assert capsys.readouterr().out == printed
    assert replayed(LINE, show=False) == "asked 2\n"


def test_a_recording_is_begun_anew(tmp_path: Path) -> None:
    recording = tmp_path / "lines.json"
    recording.write_text(json.dumps({"echo old": ["old\n"]}))
    Shell(recording, folder=tmp_path, is_live=True, is_recording=True)("echo new")
    assert json.loads(recording.read_text()) == {"echo new": ["new\n"]}


def test_nothing_is_recorded_unless_told(tmp_path: Path) -> None:
    Shell(tmp_path / "lines.json", folder=tmp_path, is_live=True)("echo hello")
    assert not (tmp_path / "lines.json").exists()


def test_a_line_that_was_never_recorded_says_what_to_do(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "lines.json", folder=tmp_path, is_live=False)
    with pytest.raises(NotFoundError, match="make image"):
        shell("docker ps")


def test_a_failure_shows_its_status_and_both_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path / "lines.json", folder=tmp_path, is_live=True)
    shell("echo out; echo err >&2; exit 3")
    assert capsys.readouterr().out.splitlines()[1:] == ["out", "err", "[exit 3]"]
