"""The pipeline of continuous training: one definition, for a laptop and for Kubeflow.

::

    ingest > verify > validate > features > train > evaluate      > gate > refit > serving_check
                                        |         > serving_check >        > publish, if blessed
                                        > point_in_time           >          and servable
                                        > challenger > score, if wanted
    write_verdict, whatever happens
"""

# mypy: disable-error-code="untyped-decorator"

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from mlops_mini import workspace
from mlops_mini.data import table_files
from mlops_mini.data.periods import Calendar, Period
from mlops_mini.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from mlops_mini.model import champions, thresholds
from mlops_mini.model.publish import Publication, published_versions
from mlops_mini.model.registry import uri_beside
from mlops_mini.pipeline import challenger, components, examples, judging
from mlops_mini.runner.digests import reach
from mlops_mini.use_case import UseCase, load, naming

NAME = "continuous-training"
HOLDOUT_DAYS = 14


@dsl.pipeline(name=NAME)
def continuous_training(  # noqa: PLR0917, a pipeline's parameters are named when it is run
    use_case: str,
    use_case_digest: str,
    train_periods: list[str],
    test_period: str,
    data_folder: str,
    data_digest: str,
    models_folder: str,
    verdicts_folder: str,
    thresholds_digest: str,
    holdout_days: int = HOLDOUT_DAYS,
    registry: str = "",
    baseline: str = "",
    baseline_digest: str = "",
    warm_start: str = "",
    warm_start_digest: str = "",
    seed: int = 0,
    epochs: int = 5,
    with_challenger: bool = True,
) -> None:
    """Train on all but the last days, judge on these, train on everything and publish if blessed.

    Args:
        use_case: Dotted name of what is learned, such as churn:CHURN; the tasks import it.
        use_case_digest: Of the code that it is made of.
        train_periods: Months such as 2013-01 or weeks such as 2013-W10, in order.
        test_period: The one after them.
        data_folder: Where the use case's tables are, as the tasks see it.
        data_digest: Of the files that these periods need; others are refused.
        models_folder: Folder of the model's versions, where a model server looks.
        verdicts_folder: Receives a JSON file for each run.
        thresholds_digest: Of the use case's file of thresholds; another one is refused.
        holdout_days: How many days at the end of all periods judge.
        registry: MLflow's address of the registry, such as sqlite:////models/registry.sqlite, empty
            for none.
        baseline: Folder of the version that would be replaced, empty if there is none.
        baseline_digest: What that version answers.
        warm_start: Folder of the version to train on from, empty to start from scratch.
        warm_start_digest: What that version answers.
        seed: Of both trainings.
        epochs: Passes over the rows.
        with_challenger: Whether to train XGBoost on the same rows, to compare; the verdict does not
            depend on it.
    """
    # Tasks with effects outside of the run are never taken from a cache, and are safe to repeat:
    # they alone are retried, for a shared folder may be away for a moment. All others are given
    # the same files again and would fail the same way.
    last = components.write_verdict(
        verdicts_folder=verdicts_folder,
        models_folder=models_folder,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    last.set_caching_options(False).set_retry(2, backoff_duration="1s")
    periods = {"train_periods": train_periods, "test_period": test_period}
    case = {"use_case": use_case, "use_case_digest": use_case_digest}
    with dsl.ExitHandler(last):
        raw = components.ingest(data_folder=data_folder, data_digest=data_digest, **case, **periods)
        verified = components.verify(raw=raw.outputs["raw"], expected=data_digest)
        data = {"data_digest": verified.outputs["data_digest"]}
        validated = components.validate(raw=raw.outputs["raw"], **case, **periods, **data)
        tabled = components.features(
            clean=validated.outputs["clean"],
            holdout_days=holdout_days,
            **case,
            **periods,
            **data,
        )
        key, label, features, slices = (
            {name: tabled.outputs[name]} for name in ("key", "label", "features", "slices")
        )
        test = {"test_examples": tabled.outputs["test_examples"], **data}
        learned = {"train_examples": tabled.outputs["train_examples"]}
        settings = {
            "seed": seed,
            "epochs": epochs,
            "warm_start": warm_start,
            "warm_start_digest": warm_start_digest,
            **case,
            **label,
            **features,
        }
        against = {"baseline": baseline, "baseline_digest": baseline_digest}
        trained = components.train(**learned, **settings, **data)
        candidate = {"model": trained.outputs["model"], "model_digest": trained.outputs["Output"]}
        evaluated = judging.evaluate(
            **key, **label, **features, **slices, **candidate, **against, **test
        )
        served = judging.serving_check(**features, **candidate, **against, **test)
        recomputed = judging.point_in_time(
            clean=validated.outputs["clean"], **case, **periods, **test
        )
        verdict = judging.gate(
            arrivals=tabled.outputs["arrivals"],
            predictions=evaluated.outputs["predictions"],
            predictions_digest=evaluated.outputs["Output"],
            thresholds_digest=thresholds_digest,
            holdout_days=holdout_days,
            n_recomputed=recomputed.outputs["n_rows"],
            n_different=recomputed.outputs["n_different"],
            difference=recomputed.outputs["finding"],
            passed=served.outputs["passed"],
            finding=served.outputs["finding"],
            misfit=served.outputs["misfit"],
            latency_ms=served.outputs["latency_ms"],
            **learned,
            **case,
            **periods,
            **against,
            **test,
        )
        with dsl.If(verdict.outputs["blessed"] == True, name="if-blessed"):  # noqa: E712
            refitted = components.refit(**learned, **settings, **test)
            final = {"model": refitted.outputs["model"], "model_digest": refitted.outputs["Output"]}
            checked = judging.serving_check(**features, **final, **against, **test)
            with dsl.If(checked.outputs["passed"] == True, name="if-servable"):  # noqa: E712
                published = components.publish(
                    models_folder=models_folder,
                    registry=registry,
                    began=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
                    run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    **final,
                    **periods,
                    **data,
                )
                published.set_caching_options(False).set_retry(2, backoff_duration="1s")
        with dsl.If(with_challenger == True, name="if-with-challenger"):  # noqa: E712
            challenged = challenger.challenger(
                seed=seed,
                **learned,
                **key,
                **label,
                **features,
                **test,
            )
            judging.score(
                predictions=challenged.outputs["predictions"],
                predictions_digest=challenged.outputs["Output"],
                **key,
                **label,
                **slices,
                **test,
            )


def write_package(file: Path) -> Path:
    """Compile the pipeline to what Kubeflow and our runner take.

    Args:
        file: A name that ends in .yaml; its folder exists. An earlier one of this pipeline is
            replaced.

    Returns:
        The file; compiled again it has the same bytes.

    Raises:
        AlreadyExistsError: It is something else, and stays.
    """
    if file.exists() and f"# Name: {NAME}\n" not in file.read_text(errors="replace"):
        raise AlreadyExistsError(
            f"{file} is there and holds something else than the pipeline {NAME}: name another file"
        )
    compiler.Compiler().compile(continuous_training, str(file))
    return file


def arguments(
    use_case: str,
    period: Period | str,
    *,
    models_folder: Path,
    verdicts_folder: Path,
    data_folder: Path | None = None,
    n_train_periods: int | None = None,
    holdout_days: int = HOLDOUT_DAYS,
    seed: int = 0,
    is_warm_start: bool = False,
    with_challenger: bool = True,
) -> dict[str, Any]:
    """Make the arguments of a run on this machine that judges at the end of a period.

    The same question has the same arguments, also after a run has published: the baseline is the
    newest version that was judged on an *earlier* period. Versions that do not tell their period
    are passed over, and so are those that were rolled back, or are still challengers.

    Args:
        use_case: Its dotted name, such as churn:CHURN.
        period: The month or week at whose end to judge.
        models_folder: Folder of the model's versions; it need not exist yet.
        verdicts_folder: Receives a JSON file for each run.
        data_folder: Holds the use case's tables; without it `workspace.data_folder()`.
        n_train_periods: How many periods just before to train on too; all without a gap if None.
        holdout_days: How many days at the end judge the candidate before it's trained on them too.
        seed: Of the training.
        is_warm_start: Whether to train on from the baseline, for one epoch instead of five. With no
            baseline yet it is a start from scratch.
        with_challenger: Whether to train XGBoost too.

    Returns:
        Arguments of the pipeline.

    Raises:
        InvalidArgumentError: The name is none of a use case, or the text none of a period; or
            XGBoost is asked for where it can't learn.
        NotFoundError: The use case or the period is not there, or nothing before it to train on.
        DataIntegrityError: A file is damaged, or a version does not tell where it comes from.
    """
    case = load(use_case)
    test = case.calendar.period(period)
    root = workspace.existing_data_folder(data_folder).resolve()
    with naming(case):
        train = _train_periods(case, test, root, n_train_periods)
        data_digest = examples.digest(case, [*train, test], data_folder=root)
    takes_arrays = any(feature.dtype == "tensor" for feature in case.feature_set.features)
    if with_challenger and (takes_arrays or case.label.n_classes > 2):
        raise InvalidArgumentError(
            f"use case {case.name}: the challenger, XGBoost, learns two classes from numbers and"
            " texts alone: leave it out (--no-challenger)"
        )
    folder, digest = _baseline(test, models_folder.resolve(), case.calendar)
    return {
        "use_case": use_case,
        "use_case_digest": reach(f"import {use_case.partition(':')[0]}").digest,
        "train_periods": [str(each) for each in train],
        "test_period": str(test),
        "data_folder": str(root),
        "data_digest": data_digest,
        "models_folder": str(models_folder.resolve()),
        "verdicts_folder": str(verdicts_folder.resolve()),
        "registry": uri_beside(models_folder.resolve()),
        "thresholds_digest": thresholds.read(case.thresholds).digest,
        "holdout_days": holdout_days,
        "baseline": folder,
        "baseline_digest": digest,
        "warm_start": folder if is_warm_start else "",
        "warm_start_digest": digest if is_warm_start else "",
        "seed": seed,
        "epochs": 1 if is_warm_start and folder else 5,
        "with_challenger": with_challenger,
    }


def _train_periods(
    case: UseCase, test: Period, root: Path, n_train_periods: int | None
) -> list[Period]:
    """Find the periods just before one, without a gap."""
    table, calendar = case.examples, case.calendar
    stored = table_files.partitions(table, calendar=calendar, folder=root)
    table_files.names(table, [test], calendar=calendar, folder=root)  # or it says what's missing
    if not set(calendar.partitions(test)) <= set(stored):  # of one file for the whole table
        raise NotFoundError(
            f"no {table.name} of {test} in {root}; the file has rows of"
            f" {[str(period) for period in stored]}: ask for one of these, or add rows"
        )
    train: list[Period] = []
    before = test.previous()
    while set(calendar.partitions(before)) <= set(stored) and len(train) != n_train_periods:
        train.insert(0, before)
        before = before.previous()
    if not train or (n_train_periods or 0) > len(train):
        raise NotFoundError(
            f"{n_train_periods or 'some'} periods before {test} are needed to train on; in {root}"
            f" there are {[str(period) for period in train] or 'none'}: judge on a later one"
        )
    return train


def _baseline(test: Period, models_folder: Path, calendar: Calendar) -> tuple[str, str]:
    """Find folder and digest of the newest version judged on an earlier period, or two empty."""
    passed_over = champions.taken_back(models_folder)
    passed_over.add(champions.aliases(models_folder).get("challenger", -1))
    for published in reversed(published_versions(models_folder)):
        known = Publication.read(published.path)
        if published.version in passed_over or not known:
            continue
        if calendar.period(known.test_period) < test:
            return str(published.path), known.model_digest
    return "", ""
