"""What has become of a version's release, as its lineage tells it."""

from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from mlops_mini import cli
from mlops_mini.errors import NotFoundError
from mlops_mini.lineage import lineage, releases, report
from mlops_mini.rollout import release
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.policy import Backend


def made(phase: Phase, reason: str) -> release.Release:
    sides = {
        "stable": Backend(name="v1", rest="127.0.0.1:1", grpc="127.0.0.1:2"),
        "canary": Backend(name="v2", rest="127.0.0.1:3", grpc="127.0.0.1:4"),
    }
    begun = release.Release(model="churn", strategy=Strategy(), **sides)
    return replace(begun, state=replace(begun.state, phase=phase, reason=reason))


def test_a_release_is_part_of_the_lineage_of_its_version(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    release.start(folder, made(Phase.PENDING, ""))
    assert lineage.of_version(workspace, 2).run.release == {}

    releases.begin(folder, workspace, 2)
    begun = lineage.of_version(workspace, 2).run.release
    release.start(folder, made(Phase.ROLLED_BACK, "errors: 9 of 40"), replaces=True)
    releases.note(folder)
    told = lineage.of_version(workspace, 2)

    assert begun["phase"] == "PENDING"
    assert told.run.release == {
        "as": "v2", "beside": "v1", "phase": "ROLLED_BACK", "reason": "errors: 9 of 40",
    }  # fmt: skip
    assert told.problems == ()
    why = next(rows for title, _, rows in report.tables(told) if title == "Why")
    assert ("released", "as v2, beside v1, phase ROLLED_BACK, reason errors: 9 of 40") in why
    assert lineage.of_version(workspace, 1).run.release == {}


def test_another_release_in_the_folder_is_not_noted(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    release.start(folder, made(Phase.PENDING, ""))
    releases.begin(folder, workspace, 2)

    releases.forget(folder)
    release.start(folder, made(Phase.ABORTED, "another's"), replaces=True)
    releases.note(folder)

    assert lineage.of_version(workspace, 2).run.release["phase"] == "PENDING"


def test_a_release_of_an_unknown_version_does_not_begin(played: Path, tmp_path: Path) -> None:
    addresses = ["--stable", "v1=127.0.0.1:1,127.0.0.1:2", "--canary", "v2=127.0.0.1:3,127.0.0.1:4"]
    where = ["--workspace", str(played), "--folder", str(tmp_path / "release")]

    failed = CliRunner().invoke(
        cli.app, ["release", "start", "--model", "churn", *addresses, "--version", "9", *where]
    )

    assert isinstance(failed.exception, NotFoundError)
    assert "no version 9 of churn was ever published" in str(failed.exception)
    assert not (tmp_path / "release").exists()
