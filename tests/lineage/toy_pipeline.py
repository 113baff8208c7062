"""A pipeline whose tasks are called as the real ones are, and cost next to nothing.

What explains a version is read from what tasks of these names leave behind.
"""

# ruff: noqa: PLR0917
# mypy: disable-error-code="untyped-decorator, valid-type"

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from mlops_mini.pipeline import components


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def ingest(data_folder: str, raw: Output[Dataset]) -> None:
    import shutil

    shutil.copytree(data_folder, raw.path)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def validate(
    raw: Input[Dataset],
    train_periods: list[str],
    test_period: str,
    partitions: Output[Artifact],
    quarantined: Output[Dataset],
) -> None:
    import hashlib
    import json
    from pathlib import Path

    told, bad = [], ["period,table,row,column,rule,value"]
    for period in [*train_periods, test_period]:
        text = Path(raw.path, f"{period}.csv").read_text()
        rows = text.split()
        broken = [row for row, usd in enumerate(rows) if float(usd) > 1000]
        bad += [f'{period},customers,{row},usd,"in_range(0, 1000)",{rows[row]}' for row in broken]
        told.append(
            {
                "table": "customers",
                "period": period,
                "n_rows": len(rows),
                "n_quarantined": len(broken),
                "digest": hashlib.sha256(text.encode()).hexdigest(),
            }
        )
    Path(partitions.path).write_text(json.dumps(told))
    Path(quarantined.path).write_text("\n".join(bad) + "\n")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def train(raw: Input[Dataset], seed: int, epochs: int, model: Output[Model]) -> str:
    import tensorflow as tf

    from mlops_mini.model.digest import model_digest

    module = tf.Module()
    module.weight = tf.Variable(float(seed + epochs))
    module.answer = tf.function(
        lambda x: {"probability": x * module.weight},
        input_signature=[tf.TensorSpec([None], tf.float32, name="usd")],
    )
    tf.saved_model.save(module, model.path, signatures=module.answer.get_concrete_function())
    from pathlib import Path

    return model_digest(Path(model.path))


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def evaluate(model: Input[Model], epochs: int, metrics: Output[Metrics]) -> None:
    import json
    from pathlib import Path

    measured = {"auc": 0.7 + epochs / 100, "log_loss": 0.5 - epochs / 100, "n_rows": 20}
    report = {"overall": {"all": measured}}
    Path(metrics.path).write_text(json.dumps({"candidate": report, "baseline": None}))


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def gate(metrics: Input[Metrics], decision: str, verdict: Output[Artifact]) -> NamedTuple(
    "Verdict", [("blessed", bool), ("decision", str), ("reason", str)]
):
    import json
    from pathlib import Path

    rule = {
        "rule": "log loss", "slice": "", "value": -0.01, "limit": 0.002, "lower": -0.02,
        "upper": 0.001, "n": 20, "verdict": "pass", "reason": "below the margin",
    }  # fmt: skip
    reason = f"it was to be {decision}"
    told = {"decision": decision, "reason": reason, "rules": [rule], "thresholds_digest": "t" * 64}
    Path(verdict.path).write_text(json.dumps(told))
    return (decision == "blessed", decision, reason)


@dsl.pipeline(name="continuous-training")
def toy(
    use_case: str,
    use_case_digest: str,
    train_periods: list[str],
    test_period: str,
    data_folder: str,
    data_digest: str,
    models_folder: str,
    verdicts_folder: str,
    registry: str = "",
    baseline: str = "",
    baseline_digest: str = "",
    seed: int = 0,
    epochs: int = 5,
    decision: str = "blessed",
    holdout_days: int = 14,
) -> None:
    last = components.write_verdict(
        verdicts_folder=verdicts_folder,
        models_folder=models_folder,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    with dsl.ExitHandler(last):
        raw = ingest(data_folder=data_folder).outputs["raw"]
        validate(raw=raw, train_periods=train_periods, test_period=test_period)
        trained = train(raw=raw, seed=seed, epochs=epochs)
        metrics = evaluate(model=trained.outputs["model"], epochs=epochs).outputs["metrics"]
        judged = gate(metrics=metrics, decision=decision)
        with dsl.If(judged.outputs["blessed"] == True, name="if-blessed"):  # noqa: E712
            components.publish(
                model=trained.outputs["model"],
                model_digest=trained.outputs["Output"],
                models_folder=models_folder,
                registry=registry,
                began=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                train_periods=train_periods,
                test_period=test_period,
                data_digest=data_digest,
            )
