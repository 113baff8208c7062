"""The challenger on a table that isn't flights, in its own environment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kfp import dsl

from mlops_mini.model import evaluation
from mlops_mini.pipeline.challenger import challenger
from mlops_mini.runner.runner import Runner


@dsl.pipeline(name="churn")
def churn(train_uri: str, test_uri: str):
    train = dsl.importer(artifact_uri=train_uri, artifact_class=dsl.Dataset)
    test = dsl.importer(artifact_uri=test_uri, artifact_class=dsl.Dataset)
    challenger(
        train_examples=train.output,
        test_examples=test.output,
        key="customer",
        label="churned",
        features=["calls", "plan", "region", "is_company"],
        seed=0,
        data_digest="",
    )


@pytest.mark.slow
def test_learns_any_table_and_looks_at_no_column_that_is_no_feature(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    n_rows = 2_000
    customers = pd.DataFrame(
        {
            "customer": [f"c{i:04}" for i in range(n_rows)],
            "plan": rng.choice(["basic", "pro", None], n_rows),
            "region": pd.Categorical(rng.choice(["north", "south"], n_rows)),
            "is_company": rng.random(n_rows) < 0.5,
            "calls": rng.integers(0, 9, n_rows),
        }
    )
    churned = (customers["calls"] > 4) ^ (customers["plan"] == "pro") ^ customers["is_company"]
    customers = customers.assign(churned=churned.astype(int))
    train, test = customers[:1_000].assign(outcome=churned), customers[1_000:].assign(outcome=0)
    test.loc[test.index[:5], "plan"] = "unseen"
    for name, rows in (("train", train), ("test", test)):
        rows.to_parquet(tmp_path / name, index=False)

    with Runner(tmp_path / "runs") as runner:
        run = runner.run(
            churn, {"train_uri": str(tmp_path / "train"), "test_uri": str(tmp_path / "test")}
        )

    (task,) = (task for task in run.tasks.values() if task.component == "challenger")
    predictions = Path(task.outputs["artifacts"]["predictions"]["uri"])
    assert list(pd.read_parquet(predictions)) == ["customer", "probability"]
    metrics = evaluation.score(
        predictions,
        tmp_path / "test",
        tmp_path / "metrics",
        key="customer",
        label="churned",
        slices=["region"],
    )
    assert metrics.n_rows == 1_000
    assert metrics.auc > 0.98
    assert metrics.log_loss < 0.2
