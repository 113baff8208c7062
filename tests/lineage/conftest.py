"""A workspace with four runs: two published, one refused, one undecided."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.once import made_once

RUNS = {
    "first": ("2026-02", "blessed", 5),
    "second": ("2026-03", "blessed", 7),
    "third": ("2026-04", "refused", 2),
    "fourth": ("2026-04", "undecided", 8),
}


def make(folder: Path) -> None:
    """Run the toy pipeline as the real one is run, one month after the other."""
    from mlops_mini.model import champions
    from mlops_mini.model.publish import Publication
    from mlops_mini.runner.runner import Runner
    from tests.lineage.toy_pipeline import toy

    models, data = folder / "models" / "churn", folder / "data"
    data.mkdir()
    for number, period in enumerate(("2026-01", "2026-02", "2026-03", "2026-04")):
        usd = [*range(10 + number), 40_000]
        (data / f"{period}.csv").write_text("\n".join(map(str, usd)))
    with Runner(folder / "runs", mode="inline") as runner:
        for number, (run_id, (period, decision, epochs)) in enumerate(RUNS.items()):
            champion = champions.champion(models)
            baseline = models / str(champion) if champion else None
            known = Publication.read(baseline) if baseline else None
            arguments = {
                "use_case": "tests.tenants.churn:CHURN",
                "use_case_digest": "u" * 64,
                "train_periods": ["2026-01", "2026-02", "2026-03"][: min(number + 1, 3)],
                "test_period": period,
                "data_folder": str(data),
                "data_digest": f"{number:064}",
                "models_folder": str(models),
                "verdicts_folder": str(folder / "verdicts"),
                "baseline": str(baseline or ""),
                "baseline_digest": known.model_digest if known else "",
                "decision": decision,
                "epochs": epochs,
                "holdout_days": 14,
            }
            trigger = {"kind": "new data", "key": period, "reason": "a month is complete"}
            runner.run(toy, arguments, run_id=run_id, trigger=trigger if number else None)


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never change it."""
    return made_once(tmp_path_factory, "lineage", make)


@pytest.fixture
def workspace(played: Path, tmp_path: Path) -> Path:
    """A copy of it, to change: records name the places in the copy."""
    folder = tmp_path / "workspace"
    shutil.copytree(played, folder)
    connection = sqlite3.connect(folder / "runs" / "runs.sqlite")
    with connection:
        for table, columns in (("run", ("arguments",)), ("task", ("inputs", "outputs", "folder"))):
            for column in columns:
                connection.execute(
                    f"update {table} set {column} = replace({column}, ?, ?)",
                    (str(played), str(folder)),
                )
    connection.close()
    return folder
