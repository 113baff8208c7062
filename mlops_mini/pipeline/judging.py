"""The components of the pipeline that judge a model: measured, served, recomputed, gated.

They are written as those of `components` are, for the reasons given there.
"""

# Digests for the cache alone; outputs are described under Returns; kfp has no types.
# ruff: noqa: ARG001, D417, PLR0917
# mypy: disable-error-code="untyped-decorator, valid-type"

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from mlops_mini.pipeline.components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    model: Input[Model],
    test_examples: Input[Dataset],
    key: str,
    label: str,
    features: list[str],
    slices: list[str],
    baseline: str,
    baseline_digest: str,
    model_digest: str,
    data_digest: str,
    metrics: Output[Metrics],
    predictions: Output[Dataset],
) -> str:
    """Measure the candidate and its baseline on the same rows.

    Args:
        model: The candidate.
        test_examples: Parquet, as `features` writes it.
        key: The column that tells rows apart.
        label: The column that is predicted.
        features: The columns to predict it from.
        slices: The columns by which to measure too.
        baseline: Folder of the version that would be replaced, empty if there is none.
        baseline_digest: What that version answers.
        model_digest: What the candidate answers.
        data_digest: Of the files that the examples were made from.

    Returns:
        metrics: JSON, overall and by slice.
        predictions: Parquet, what either answers for each row.
        Output: Digest of the predictions.
    """
    import math
    from pathlib import Path

    from mlops_mini.files import file_sha256
    from mlops_mini.model import evaluation

    measured = evaluation.evaluate(
        Path(model.path),
        Path(test_examples.path),
        Path(metrics.path),
        Path(predictions.path),
        key=key,
        label=label,
        features=features,
        slices=slices,
        baseline=Path(baseline) if baseline else None,
        baseline_digest=baseline_digest,
    )
    if not math.isnan(measured.log_loss):
        metrics.log_metric("log_loss", measured.log_loss)
    return file_sha256(Path(predictions.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def serving_check(
    model: Input[Model],
    test_examples: Input[Dataset],
    features: list[str],
    baseline: str,
    baseline_digest: str,
    model_digest: str,
    data_digest: str,
) -> NamedTuple(
    "ServingCheck", [("passed", bool), ("finding", str), ("misfit", str), ("latency_ms", float)]
):
    """Ask the real model server about some rows, over REST and gRPC.

    Args:
        model: The candidate.
        test_examples: Parquet, as `features` writes it.
        features: The columns to predict from.
        baseline: Folder of the version that would be replaced, empty if there is none.
        baseline_digest: What that version answers.
        model_digest: What the candidate answers.
        data_digest: Of the files that the examples were made from.

    Returns:
        passed: Whether all answers are there and are the model's own.
        finding: Why.
        misfit: What the baseline's callers would miss, empty if nothing.
        latency_ms: Shortest time of a single prediction over REST; -1 if there was none.
    """
    import math
    from pathlib import Path

    from mlops_mini.model import serving_check

    checked = serving_check.check(
        Path(model.path),
        Path(test_examples.path),
        features=features,
        baseline=Path(baseline) if baseline else None,
    )
    latency_ms = -1.0 if math.isnan(checked.latency_ms) else checked.latency_ms
    return (checked.is_servable, checked.finding, checked.misfit, latency_ms)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def point_in_time(
    use_case: str,
    use_case_digest: str,
    clean: Input[Dataset],
    test_examples: Input[Dataset],
    train_periods: list[str],
    test_period: str,
    data_digest: str,
) -> NamedTuple("Recomputed", [("n_rows", int), ("n_different", int), ("finding", str)]):
    """Compute features of some test rows once more, as serving would have: from a store.

    Args:
        use_case: Its dotted name.
        use_case_digest: Of the code that it is made of.
        clean: A data folder.
        test_examples: Parquet, as `features` writes it.
        train_periods: Months or weeks, in order.
        test_period: The one after them.
        data_digest: Of the files that `clean` was made from.

    Returns:
        n_rows: How many rows were computed again.
        n_different: Those of them with another value of some feature.
        finding: One sentence.
    """
    from pathlib import Path

    from mlops_mini.pipeline import recomputing
    from mlops_mini.use_case import load

    case = load(use_case)
    found = recomputing.recompute(
        case,
        [case.calendar.period(text) for text in (*train_periods, test_period)],
        Path(test_examples.path),
        data_folder=Path(clean.path),
    )
    return (found.n_rows, found.n_different, found.finding)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    use_case: str,
    use_case_digest: str,
    train_examples: Input[Dataset],
    test_examples: Input[Dataset],
    arrivals: Input[Dataset],
    predictions: Input[Dataset],
    train_periods: list[str],
    test_period: str,
    holdout_days: int,
    baseline: str,
    baseline_digest: str,
    thresholds_digest: str,
    predictions_digest: str,
    data_digest: str,
    n_recomputed: int,
    n_different: int,
    difference: str,
    passed: bool,
    finding: str,
    misfit: str,
    latency_ms: float,
    verdict: Output[Dataset],
) -> NamedTuple("Verdict", [("blessed", bool), ("decision", str), ("reason", str)]):
    """Decide whether the candidate may be published.

    Args:
        use_case: Its dotted name; it may name a file of thresholds.
        use_case_digest: Of the code that it is made of.
        train_examples: Parquet, as `features` writes it.
        test_examples: The days that were held out.
        arrivals: JSON, as `features` writes it.
        predictions: Parquet, as `evaluate` writes it.
        train_periods: Months or weeks, in order.
        test_period: The one after them.
        holdout_days: How many days at the end of all these judge.
        baseline: Folder of the version that would be replaced, empty if there is none.
        baseline_digest: What that version answers.
        thresholds_digest: Of the file of thresholds; another one is refused.
        predictions_digest: Of the predictions.
        data_digest: Of the files that the examples were made from.
        n_recomputed: As `point_in_time` says, like the next two.
        n_different: Rows with other features.
        difference: What is different.
        passed: As `serving_check` says, like those after it.
        finding: Why.
        misfit: What the baseline's callers would miss.
        latency_ms: Shortest time of a single prediction.

    Returns:
        verdict: JSON, the table of all rules.
        blessed: Whether it may be published.
        decision: blessed, first, undecided or refused.
        reason: One sentence, in rounded numbers; the verdict has them in full.
    """
    from pathlib import Path

    from mlops_mini.model.gate_rules import Recomputed
    from mlops_mini.model.serving_check import ServingCheck
    from mlops_mini.pipeline import gating
    from mlops_mini.use_case import load

    case = load(use_case)
    judged = gating.judge(
        case,
        [case.calendar.period(text) for text in train_periods],
        case.calendar.period(test_period),
        holdout_days=holdout_days,
        train_file=Path(train_examples.path),
        test_file=Path(test_examples.path),
        arrivals_file=Path(arrivals.path),
        predictions_file=Path(predictions.path),
        baseline=Path(baseline) if baseline else None,
        recomputed=Recomputed(n_rows=n_recomputed, n_different=n_different, finding=difference),
        serving=ServingCheck(
            is_servable=passed, finding=finding, misfit=misfit, latency_ms=latency_ms
        ),
        thresholds_digest=thresholds_digest,
        verdict_file=Path(verdict.path),
    )
    return (judged.is_blessed, judged.decision, judged.reason)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def score(
    predictions: Input[Dataset],
    test_examples: Input[Dataset],
    key: str,
    label: str,
    slices: list[str],
    predictions_digest: str,
    data_digest: str,
    metrics: Output[Metrics],
) -> None:
    """Measure the challenger's predictions.

    Args:
        predictions: Parquet with the key and `probability`.
        test_examples: Parquet, as `features` writes it.
        key: The column that tells rows apart.
        label: The column that was predicted.
        slices: The columns by which to measure too.
        predictions_digest: Of the predictions.
        data_digest: Of the files that the examples were made from.

    Returns:
        metrics: JSON, overall and by slice, as `evaluate` writes it.
    """
    from pathlib import Path

    from mlops_mini.model import evaluation

    measured = evaluation.score(
        Path(predictions.path),
        Path(test_examples.path),
        Path(metrics.path),
        key=key,
        label=label,
        slices=slices,
    )
    metrics.log_metric("log_loss", measured.log_loss)
