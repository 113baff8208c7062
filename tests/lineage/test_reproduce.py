"""The real pipeline, run again from what it has recorded."""

import shutil
from pathlib import Path

import pytest

from mlops_mini.errors import AlreadyExistsError
from mlops_mini.lineage import compare, lineage, reproduce
from mlops_mini.pipeline import definition
from mlops_mini.runner.runner import Runner
from tests.tenants import made


@pytest.mark.slow
def test_a_run_comes_out_the_same_and_another_seed_does_not(tmp_path: Path) -> None:
    made.write_customers(tmp_path / "data", months=("2026-01", "2026-02"))

    with Runner(tmp_path / "runs") as runner:
        for run_id, seed in (("first", 0), ("second", 1)):
            arguments = definition.arguments(
                "tests.tenants.churn:CHURN",
                "2026-02",
                models_folder=tmp_path / "models" / "churn",
                verdicts_folder=tmp_path / "verdicts",
                data_folder=tmp_path / "data",
                seed=seed,
                with_challenger=False,
            )
            runner.run(definition.continuous_training, arguments, run_id=run_id)
    told = lineage.of_version(tmp_path, 1)
    assert told.problems == ()
    assert [part.n_rows for part in told.partitions] == [1500, 1500]
    shutil.rmtree(tmp_path / "data")  # the run has a copy of its own

    again = reproduce.reproduce(tmp_path, "first", scratch=tmp_path / "again")

    with pytest.raises(AlreadyExistsError, match="name another one"):
        reproduce.reproduce(tmp_path, "first", scratch=tmp_path / "again")
    assert again.is_identical, [each for each in again.remade if not each.is_same]
    assert again.differences == ()
    assert again.largest_metric_difference == 0
    assert {each.output for each in again.remade} >= {"raw", "clean", "partitions", "model"}
    assert reproduce.tables(again)[0][0] == "first, run again"
    assert reproduce.document(again)["is_identical"]
    other = lineage.of_run(tmp_path, "second")
    assert ("parameter", "seed") in {
        (each.kind, each.name) for each in compare.compare(told, other)
    }
