"""Runs and versions as MLflow shows them."""

import shutil
from datetime import datetime
from pathlib import Path

from mlops_mini.lineage import browse, lineage
from mlops_mini.model import champions, registry
from mlops_mini.model.registry import Registry


def test_runs_and_versions_are_shown_once(workspace: Path, empty_registry: Path) -> None:
    shutil.copy(empty_registry, workspace / "models")

    told = browse.sync(workspace)

    assert told == [
        "registered version 1", "registered version 2", "alias champion is at version 2",
        "noted since when version 1 is or was the champion",
        "noted since when version 2 is or was the champion",
        "wrote run first", "wrote run second", "wrote run third", "wrote run fourth",
    ]  # fmt: skip
    assert browse.sync(workspace) == []
    client = Registry(registry.uri_beside(workspace / "models" / "churn")).client
    experiment = client.get_experiment_by_name("churn")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"first", "second", "third", "fourth"}
    second = runs["second"]
    recorded = lineage.of_version(workspace, 2).run
    began, ended = (
        datetime.fromisoformat(at).timestamp() * 1000
        for at in (recorded.started_at, recorded.ended_at)
    )
    assert (second.info.start_time, second.info.end_time) == (int(began), int(ended))
    assert second.data.params["epochs"] == "7"
    assert second.data.metrics["candidate/auc"] == 0.77
    assert second.data.tags["verdict"] == "blessed"
    assert second.data.tags["code_digest"] == lineage.of_version(workspace, 2).run.code_digest
    digests = {part.digest[:36] for part in lineage.of_version(workspace, 2).partitions}
    assert {each.dataset.digest for each in second.inputs.dataset_inputs} == digests
    version = client.get_model_version_by_alias("churn", "champion")
    assert version.run_id == second.info.run_id
    assert '"rule": "log loss"' in version.tags["verdict"]


def test_a_rollback_is_told_to_the_registry(workspace: Path, empty_registry: Path) -> None:
    shutil.copy(empty_registry, workspace / "models")
    browse.sync(workspace)
    champions.roll_back(workspace / "models" / "churn", 2)

    assert "alias champion is at version 1" in browse.sync(workspace)


def test_a_workspace_that_was_moved_shows_its_runs_too(
    played: Path, empty_registry: Path, tmp_path: Path
) -> None:
    """What its runs were told at the time names the place where it was."""
    moved = tmp_path / "moved"
    shutil.copytree(played, moved)
    shutil.copy(empty_registry, moved / "models")

    told = browse.sync(moved)

    assert [each for each in told if "run" in each] == [
        "wrote run first", "wrote run second", "wrote run third", "wrote run fourth",
    ]  # fmt: skip
    assert browse.sync(moved) == []
