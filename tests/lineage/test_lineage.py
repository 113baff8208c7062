import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.lineage import lineage, report
from mlops_mini.model import champions

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [str(Path(sys.executable).with_name("mlops-mini"))]


def asked(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_version_tells_data_code_parameters_verdict_and_what_served(played: Path) -> None:
    told = lineage.of_version(played, 1)

    assert told.problems == ()
    assert told.run.id == "first"
    assert [
        (part.period, part.role, part.n_rows, part.n_quarantined) for part in told.partitions
    ] == [
        ("2026-01", "trained on", 11, 1),
        ("2026-02", "judged at its end", 12, 1),
    ]
    assert len({part.digest for part in told.partitions}) == 2
    assert told.run.code_digest
    assert "mlops_mini.model.publish" in told.modules
    assert any(entry.startswith("numpy-") for entry in told.environment["packages"])
    assert told.parameters == {
        "use_case": "tests.tenants.churn:CHURN", "seed": 0, "epochs": 5, "decision": "blessed",
        "holdout_days": 14,
    }  # fmt: skip
    assert (told.verdict["decision"], told.verdict["rules"][0]["rule"]) == ("blessed", "log loss")
    (service,) = told.services
    assert (service.before, service.after, service.ended) == (None, 2, "replaced")
    assert service.until == lineage.of_version(played, 2).services[0].since


def test_a_version_tells_its_parent_and_trigger(played: Path) -> None:
    told = lineage.of_version(played, 2)

    (parent,) = told.parents
    first = lineage.of_version(played, 1)
    assert (parent.role, parent.version, parent.run_id) == ("baseline", 1, "first")
    assert parent.digest == first.publication.model_digest
    assert told.run.trigger == {
        "kind": "new data", "key": "2026-03", "reason": "a month is complete"
    }  # fmt: skip
    assert told.run.release == first.run.trigger == {}
    assert told.services[0].before == 1
    assert told.services[0].until is None


def test_the_way_back_ends_at_the_row_that_was_set_aside(played: Path) -> None:
    told = lineage.of_version(played, 2)

    rows = [row for row in told.quarantined("customers") if row["period"] == "2026-02"]

    assert rows == [
        {"period": "2026-02", "table": "customers", "row": "11", "column": "usd",
         "rule": "in_range(0, 1000)", "value": "40000"}
    ]  # fmt: skip
    line = (told.artifact("raw") / "2026-02.csv").read_text().split()[int(rows[0]["row"])]
    assert line == "40000"


def test_a_refused_candidate_is_explained_by_its_run(played: Path) -> None:
    told = lineage.find(played, "third")

    assert (told.version, told.name, told.services) == (None, "third", ())
    assert told.verdict["decision"] == "refused"
    assert lineage.find(played, "second").version == 2


def test_nothing_heavy_is_imported_to_explain(played: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlops_mini import cli; "
        "sys.argv[1:] = ['explain', '2', '--json', '--workspace', sys.argv[1]]\n"
        "try:\n    cli.main()\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'kfp', 'pandas', 'numpy', 'pyarrow'}\n"
        "sys.stderr.write(repr(sorted(heavy & set(sys.modules))))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, str(played)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip

    assert ended.stderr == "[]"
    told = json.loads(ended.stdout)
    assert told["version"] == 2
    answers = (
        "data",
        "parameters",
        "parents",
        "verdict",
        "served",
        "environment",
        "modules",
        "run",
    )
    assert all(told[answer] for answer in answers)


def test_tables_show_each_answer(played: Path) -> None:
    titles = [title for title, _, _ in report.tables(lineage.of_version(played, 2))]

    assert titles == [
        "churn 2", "Data", "Code and environment", "Parameters and parents", "Why",
        "Rules of the gate", "Champion",
    ]  # fmt: skip
    printed = asked("explain", 2, "--workspace", played)
    assert printed.returncode == 0, printed.stderr
    assert "kind new data, key 2026-03, reason a month is complete" in " ".join(
        printed.stdout.split()
    )


def test_the_gate_s_rules_fit_a_terminal(played: Path) -> None:
    """One row for each rule and slice, but a single one for all slices that are too small."""
    told = lineage.of_version(played, 2)
    (rule,) = told.verdict["rules"]
    small = [
        {"rule": "slice", "slice": f"plan={name}", "value": None, "verdict": "too small"}
        for name in ("trial", "gold")
    ]
    worse = rule | {"rule": "slice", "slice": "plan=pro", "verdict": "fail", "reason": "it's worse"}

    laid_out = report.tables(replace(told, verdict=told.verdict | {"rules": [rule, worse, *small]}))

    (rows,) = (rows for title, _, rows in laid_out if title == "Rules of the gate")
    assert rows == [
        ("log loss", "-0.010 (-0.020 to 0.001)", "0.002", "20", "pass: below the margin"),
        ("slice plan=pro", "-0.010 (-0.020 to 0.001)", "0.002", "20", "fail: it's worse"),
        ("slice", "plan=trial, plan=gold", "", "", "too small"),
    ]


def test_an_unknown_version_says_which_there_are(played: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no version 7 of churn was ever .* are \[1, 2\]"):
        lineage.of_version(played, 7)
    with pytest.raises(NotFoundError, match="no run 'fifth'"):
        lineage.find(played, "fifth")
    assert asked("explain", 7, "--workspace", played).returncode == 1


def test_an_edited_artifact_is_named(workspace: Path) -> None:
    model = workspace / "models" / "churn" / "2" / "saved_model.pb"
    model.write_bytes(model.read_bytes() + b"\0")
    partitions = lineage.of_version(workspace, 1).artifact("partitions")
    partitions.chmod(0o644)
    partitions.write_text("[]")

    second = lineage.of_version(workspace, 2)
    first = lineage.of_version(workspace, 1)

    assert second.problems == (
        "saved_model.pb in version 2 was edited after it was published: changed",
    )
    assert first.problems == (
        f"partitions, which validate has written, was edited since: {partitions}",
    )
    told = asked("explain", 2, "--workspace", workspace)
    assert told.returncode == 1
    assert told.stderr.startswith("mlops-mini: churn 2: 1 missing or edited: saved_model.pb")
    assert "Missing or edited" in told.stdout


def test_a_version_that_lies_about_its_run_is_explained_by_what_was_recorded(
    workspace: Path,
) -> None:
    (workspace / "models" / "churn" / "2" / "assets.extra" / "publication.json").write_text("{}")

    told = lineage.of_version(workspace, 2)

    assert told.run.id == "second"
    assert "does not tell where the version comes from" in told.problems[0]


def test_a_damaged_record_of_champions_is_a_problem_and_the_rest_is_told(workspace: Path) -> None:
    (workspace / "models" / "churn" / ".champions.json").write_text("{")

    told = lineage.of_version(workspace, 2)

    assert (told.run.id, told.services) == ("second", ())
    (problem,) = told.problems
    assert "does not tell which version is the champion" in problem


def test_deleted_data_is_named_and_the_rest_is_told(workspace: Path) -> None:
    raw = lineage.of_version(workspace, 2).artifact("raw")
    shutil.rmtree(raw)

    told = lineage.of_version(workspace, 2)

    assert told.problems == (f"raw, which ingest has written, is gone: {raw}",)
    assert len(told.partitions) == 3
    with pytest.raises(NotFoundError, match="no raw of churn 2 is left"):
        told.artifact("raw")


def test_a_deleted_version_is_explained_by_its_run(workspace: Path) -> None:
    models = workspace / "models" / "churn"
    shutil.rmtree(models / "2")
    champions.reconcile(models)

    told = lineage.of_version(workspace, 2)

    assert told.problems == (f"the folder of version 2 is gone from {models}",)
    assert told.run.id == "second"
    assert told.services[0].ended == "lost: the folder of version 2 is gone"
    (models / ".champions.json").unlink()  # the verdict of its run knows it, too
    assert lineage.of_version(workspace, 2).run.id == "second"


def test_a_rolled_back_version_says_by_whom_and_why(workspace: Path) -> None:
    rolled = asked("rollback", 2, "--by", "ada", "--reason", "too slow", "--workspace", workspace)
    assert rolled.returncode == 0, rolled.stderr

    second, first = (lineage.of_version(workspace, version) for version in (2, 1))

    assert second.services[0].ended == "rolled back by ada: too slow"
    assert second.services[0].after == 1
    assert [service.kind for service in first.services] == ["published", "rolled back"]
    assert first.services[-1].until is None


def test_lost_records_of_runs_are_said(workspace: Path) -> None:
    shutil.rmtree(workspace / "runs")

    told = lineage.of_version(workspace, 1)

    assert told.run is None
    assert told.problems == (
        f"no records of runs in {workspace / 'runs'}: they were deleted or moved",
    )
    assert told.publication.run_id == "first"
    assert report.document(told)["run"] is None


def test_a_broken_verdict_is_a_problem_and_no_traceback(workspace: Path) -> None:
    verdict = lineage.of_version(workspace, 1).artifact("verdict")
    verdict.chmod(0o644)
    verdict.write_text("{")

    problems = lineage.of_version(workspace, 1).problems

    assert len(problems) == 2
    assert "verdict, which gate has written, was edited since" in problems[0]
    assert "is no JSON any more" in problems[1]


def test_a_version_that_no_pipeline_has_published_says_so(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "models" / "churn" / "1", workspace / "models" / "churn" / "9")
    shutil.rmtree(workspace / "models" / "churn" / "9" / "assets.extra")

    assert lineage.of_version(workspace, 9).problems == (
        "version 9 doesn't tell where it comes from: no pipeline has published it",
    )


def test_the_model_must_be_named_if_there_are_several(workspace: Path) -> None:
    (workspace / "models" / "stops").mkdir()

    with pytest.raises(InvalidArgumentError, match=r"several models .*\['churn', 'stops'\]"):
        lineage.of_version(workspace, 1)
    assert lineage.of_version(workspace, 1, model="churn").run.id == "first"
    with pytest.raises(NotFoundError, match="no model plans"):
        lineage.of_version(workspace, 1, model="plans")


def test_a_run_outside_of_a_checkout_still_tells_its_code(played: Path, tmp_path: Path) -> None:
    code = "from mlops_mini.runner import digests; print(repr(digests.git_commit()))"

    outside = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert outside.stdout.strip() == "''"
    assert len(lineage.of_version(played, 1).run.code_digest) == 64
