"""Comparing, the history, the picture, events, approval and pruning of the same workspace."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import pytest

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from mlops_mini.lineage import (
    approval,
    compare,
    history,
    lineage,
    openlineage,
    picture,
    pruning,
    reproduce,
)
from mlops_mini.model import champions, publish
from mlops_mini.runner import layout
from mlops_mini.runner.records import Records


def test_two_versions_differ_in_parameters_data_parents_and_metrics(played: Path) -> None:
    pair = [lineage.of_version(played, version) for version in (1, 2)]

    differences = {(each.kind, each.name): (each.a, each.b) for each in compare.compare(*pair)}

    assert differences["parameter", "epochs"] == ("5", "7")
    assert differences["data", "customers of 2026-02"][0].startswith(
        "judged at its end, 12 rows, 1 set"
    )
    assert differences["data", "customers of 2026-03"][0] == ""
    assert differences["metric", "candidate: auc"] == ("0.75", "0.77")
    assert differences["parent", "baseline"][0] == ""
    assert not {kind for kind, _ in differences} & {"code", "package", "pipeline", "use case"}
    assert compare.compare(pair[0], pair[0]) == []


def test_another_package_or_module_is_a_difference(played: Path) -> None:
    told = lineage.of_version(played, 1)
    packages = [
        "numpy-1.0.dist-info" if entry.startswith("numpy-") else entry
        for entry in told.environment["packages"]
    ]
    other = replace(
        told,
        environment={**told.environment, "packages": packages},
        modules={**told.modules, "mlops_mini.files": "f" * 64},
    )

    kinds = [(each.kind, each.name, each.b) for each in compare.compare(told, other)]

    assert kinds == [("code", "mlops_mini.files", "f" * 12), ("package", "numpy", "1.0")]


def test_the_history_has_refused_runs_too(played: Path) -> None:
    told = history.read(played)

    assert [(each.run_id, each.decision, each.version) for each in told.trials] == [
        ("first", "blessed", 1),
        ("second", "blessed", 2),
        ("third", "refused", None),
        ("fourth", "undecided", None),
    ]
    assert [move.version for move in told.moves] == [1, 2]
    assert [len(rows) for _, _, rows in history.tables(told)] == [4, 2]


def test_the_picture_leads_from_data_to_what_served(played: Path, tmp_path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(11, 5))
    ax = figure.add_subplot()

    assert picture.plot(lineage.of_version(played, 2), ax) is ax

    texts = [text.get_text() for text in ax.texts if text.get_text()]
    figure.savefig(tmp_path / "lineage.svg")
    assert [text.split("\n")[0] for text in texts] == [
        "run", "customers 2026-01", "customers 2026-02", "customers 2026-03", "verdict",
        "version 2", "before: version 1",
    ]  # fmt: skip
    assert "version 2\nserves now" in texts
    assert len(picture.plot(lineage.of_run(played, "third"), figure.add_subplot()).texts) > 4


def test_many_partitions_are_drawn_by_their_role(played: Path) -> None:
    told = lineage.of_version(played, 2)
    (judged,) = (part for part in told.partitions if part.role != "trained on")
    weeks = [
        replace(judged, period=f"2026-W{n:02}", role="trained on", n_rows=1_000) for n in range(9)
    ]

    ax = picture.plot(
        replace(told, partitions=(*weeks, judged)), matplotlib.figure.Figure().add_subplot()
    )

    texts = [text.get_text() for text in ax.texts]
    assert "customers 2026-W00 to 2026-W08\ntrained on\n9,000 rows, 9 partitions" in texts
    own = f"{judged.n_rows} rows, {judged.digest[:8]}"
    assert f"customers 2026-03\n{judged.role}\n{own}" in texts


def test_events_follow_openlineage(played: Path, tmp_path: Path) -> None:
    file = openlineage.write(lineage.of_version(played, 1), tmp_path / "events.jsonl")

    start, end = map(json.loads, file.read_text().splitlines())
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"]
    assert [each["name"] for each in end["inputs"]] == ["customers/2026-01", "customers/2026-02"]
    assert end["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 11
    (output,) = end["outputs"]
    digest = lineage.of_version(played, 1).publication.model_digest
    assert (output["name"], output["facets"]["version"]["datasetVersion"]) == (
        "models/churn/1",
        digest,
    )


def test_a_person_lets_an_undecided_candidate_through_once(workspace: Path) -> None:
    published = approval.approve(workspace, "fourth", by="ada")

    assert published.version == 3
    assert approval.approve(workspace, "fourth", by="bob") == published
    told = lineage.of_version(workspace, 3)
    assert told.problems == ()
    assert (told.publication.approved_by, told.services[0].kind, told.services[0].by) == (
        "ada", "approved", "ada",
    )  # fmt: skip
    assert champions.champion(workspace / "models" / "churn") == 3


def test_an_approved_candidate_tells_what_it_has_not_learned_from(workspace: Path) -> None:
    """Unlike a blessed one it isn't trained again on the days that judged it."""
    approved = approval.approve(workspace, "fourth", by="ada")

    publication = publish.Publication.read(approved.path)
    assert publication.train_periods[-1] == publication.test_period
    assert publication.holdout_days == 14
    blessed = lineage.of_version(workspace, 1).publication
    assert blessed.holdout_days == 0


@pytest.mark.parametrize(
    ("run_id", "words"), [("third", "is 'refused', and only"), ("second", "is 'blessed', and only")]
)
def test_only_what_is_undecided_can_be_approved(played: Path, run_id: str, words: str) -> None:
    with pytest.raises(FailedPreconditionError, match=words):
        approval.approve(played, run_id, by="ada")
    with pytest.raises(InvalidArgumentError, match="name of a person"):
        approval.approve(played, "fourth", by=" ")


def test_an_approval_that_comes_too_late_is_refused(workspace: Path) -> None:
    champions.roll_back(workspace / "models" / "churn", 2)

    with pytest.raises(FailedPreconditionError, match=r"compared with version 2, .* version 1 by"):
        approval.approve(workspace, "fourth", by="ada")


def test_an_edited_candidate_cannot_be_approved(workspace: Path) -> None:
    model = lineage.of_run(workspace, "fourth").artifact("model") / "saved_model.pb"
    model.chmod(0o644)
    model.write_bytes(b"another")

    with pytest.raises(FailedPreconditionError, match="edited after it was judged"):
        approval.approve(workspace, "fourth", by="ada")


def test_pruning_keeps_what_serves_what_a_rollback_brings_and_what_explains_it(
    workspace: Path,
) -> None:
    approval.approve(workspace, "fourth", by="ada")  # compared with 2, which had replaced 1
    planned = pruning.prune(workspace, keep=1, is_dry=True)
    assert (workspace / "models" / "churn" / "1").is_dir()

    pruned = pruning.prune(workspace, keep=1)

    assert pruned == planned
    assert (pruned.versions, pruned.runs) == ((), ("third",))
    # The run of version 2 was given version 1, so 1 stays as long as 2 does.
    assert [lineage.of_version(workspace, n).problems for n in (1, 2, 3)] == [(), (), ()]
    assert pruned.n_bytes > 0
    again = pruning.prune(workspace, keep=1)
    assert (again.versions, again.runs) == ((), ())


def test_what_is_pruned_is_gone_from_disk_and_stays_in_the_records(workspace: Path) -> None:
    models = workspace / "models" / "churn"
    approval.approve(workspace, "fourth", by="ada")
    newest = lineage.of_version(workspace, 3)
    of_another_run = replace(newest.publication, run_id="of another machine", model_digest="f" * 64)
    publish.publish(newest.folder, models, publication=of_another_run)
    champions.reconcile(models)  # 4 serves, 3 is what a rollback brings, which was given 2

    pruned = pruning.prune(workspace, keep=1)

    assert (pruned.versions, set(pruned.runs)) == ((1,), {"third", "first"})
    assert sorted(path.name for path in models.iterdir() if path.name[0] != ".") == ["2", "3", "4"]
    assert champions.champion(models) == 4
    assert [lineage.of_version(workspace, number).problems for number in (2, 3)] == [(), ()]
    told = lineage.of_version(workspace, 1)
    assert (told.run.id, told.parameters["epochs"]) == ("first", 5)
    assert told.problems[0] == f"the folder of version 1 is gone from {models}"
    assert publish.publish(newest.folder, models).version == 5


def test_a_run_at_work_is_not_pruned(workspace: Path) -> None:
    records = Records(workspace / "runs" / layout.RUNS, clock=champions.now)
    records.save_run(replace(records.run("third"), state="RUNNING", tasks={}))
    records.close()

    assert pruning.prune(workspace, keep=1).runs == ()
    with pytest.raises(InvalidArgumentError, match="at least the newest"):
        pruning.prune(workspace, keep=0)


def test_a_run_whose_inputs_are_gone_cannot_be_reproduced(workspace: Path, tmp_path: Path) -> None:
    shutil.rmtree(workspace / "models" / "churn" / "1")
    with pytest.raises(NotFoundError, match=r"the baseline of second is gone: .*/churn/1"):
        reproduce.reproduce(workspace, "second", scratch=tmp_path / "again")

    shutil.rmtree(lineage.of_run(workspace, "first").artifact("raw"))
    with pytest.raises(NotFoundError, match="no raw of churn 1 is left"):
        reproduce.reproduce(workspace, "first", scratch=tmp_path / "again")

    raw = lineage.of_run(workspace, "third").artifact("raw") / "2026-01.csv"
    raw.chmod(0o644)
    raw.write_text("1")
    with pytest.raises(FailedPreconditionError, match="edited since"):
        reproduce.reproduce(workspace, "third", scratch=tmp_path / "again")
    assert not (tmp_path / "again").exists()
