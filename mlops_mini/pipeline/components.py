"""The components of the pipeline that make data and models, as Kubeflow takes them.

Each is a thin shell around one function of this package, and only files and plain values pass
between them. Kubeflow stores a component's source text and runs it elsewhere, so imports stand in
the bodies and annotations are read as they are. It also remembers results by the names of artifacts
and the values of parameters, not by what is in a file: so whatever reads an artifact also takes a
digest that changes with it, even where its body has no use for it. So does whatever loads a use
case by its name, for no source text tells what that name stands for.
"""

# Digests for the cache alone; outputs are described under Returns; kfp has no types.
# ruff: noqa: ARG001, D417, PLR0917
# mypy: disable-error-code="untyped-decorator, valid-type"

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Model, Output

IMAGE = "mlops-mini:0.1.0"
# Arguments: a data folder, the digest that its checksums must have, the file that gets the digest.
_VERIFY = r"""
digest() { if command -v sha256sum > /dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
if ! lines=$(cd "$0" && LC_ALL=C digest -c checksums.txt 2>&1); then
    echo "$0 is damaged: $(printf '%s\n' "$lines" | grep -v ': OK$' | tr '\n' ' ')" >&2
    exit 1
fi
found=$(digest < "$0/checksums.txt" | cut -c 1-64)
if [ "$found" != "$1" ]; then
    echo "$0/checksums.txt has the digest $found, expected $1: start a new run" >&2
    exit 1
fi
mkdir -p "$(dirname "$2")"
printf %s "$found" > "$2"
"""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    use_case: str,
    use_case_digest: str,
    train_periods: list[str],
    test_period: str,
    data_folder: str,
    data_digest: str,
    raw: Output[Dataset],
) -> None:
    """Copy the files that some periods need.

    Args:
        use_case: Its dotted name, such as churn:CHURN.
        use_case_digest: Of the code that it is made of.
        train_periods: Months such as 2013-01 or weeks such as 2013-W10, in order.
        test_period: The one after them.
        data_folder: Where the use case's tables are.
        data_digest: What `examples.digest` said of the files; others are refused.

    Returns:
        raw: A data folder with just these files and their checksums.
    """
    from pathlib import Path

    from mlops_mini.pipeline import examples
    from mlops_mini.use_case import load

    case = load(use_case)
    examples.copy(
        case,
        [case.calendar.period(text) for text in (*train_periods, test_period)],
        Path(raw.path),
        data_digest=data_digest,
        data_folder=Path(data_folder),
    )


@dsl.container_component
def verify(
    raw: Input[Dataset], expected: str, data_digest: dsl.OutputPath(str)
) -> dsl.ContainerSpec:
    """Check files against their checksums, in an image that knows nothing of Python.

    Args:
        raw: A data folder.
        expected: The digest that its list of checksums must have.

    Returns:
        data_digest: The same, once all files agree with the list.
    """
    return dsl.ContainerSpec(
        image="debian:12",
        command=["sh", "-ec", _VERIFY],
        args=[raw.path, expected, data_digest],
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    use_case: str,
    use_case_digest: str,
    raw: Input[Dataset],
    train_periods: list[str],
    test_period: str,
    data_digest: str,
    clean: Output[Dataset],
    quarantined: Output[Dataset],
    partitions: Output[Artifact],
    findings: Output[Markdown],
) -> None:
    """Set bad rows aside, and refuse what breaks the schema as a whole.

    Args:
        use_case: Its dotted name.
        use_case_digest: Of the code that it is made of.
        raw: A data folder.
        train_periods: Months or weeks, in order.
        test_period: The one after them.
        data_digest: Of the files in `raw`.

    Returns:
        clean: A data folder of the rows kept.
        quarantined: CSV, one line for each rule that a row breaks.
        partitions: JSON, for each month or week of each table its rows and their digest.
        findings: What is odd but usable, one line each.
    """
    from pathlib import Path

    from mlops_mini.pipeline import examples
    from mlops_mini.use_case import load

    case = load(use_case)
    texts = examples.clean(
        case,
        [case.calendar.period(text) for text in (*train_periods, test_period)],
        Path(clean.path),
        quarantine_file=Path(quarantined.path),
        partitions_file=Path(partitions.path),
        data_folder=Path(raw.path),
    )
    Path(findings.path).write_text("".join(f"- {text}\n" for text in texts))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def features(
    use_case: str,
    use_case_digest: str,
    clean: Input[Dataset],
    train_periods: list[str],
    test_period: str,
    holdout_days: int,
    data_digest: str,
    train_examples: Output[Dataset],
    test_examples: Output[Dataset],
    arrivals: Output[Dataset],
) -> NamedTuple(
    "Columns", [("key", str), ("label", str), ("features", list[str]), ("slices", list[str])]
):
    """Compute features as of the instant when a prediction is due, and labels.

    Args:
        use_case: Its dotted name.
        use_case_digest: Of the code that it is made of.
        clean: A data folder.
        train_periods: Months or weeks, in order.
        test_period: The one after them.
        holdout_days: How many days at the end of all these judge and don't train.
        data_digest: Of the files that `clean` was made from.

    Returns:
        train_examples: Parquet, the rows that have a label, but for the last days.
        test_examples: The same of the last days.
        arrivals: JSON, how many rows there were, with or without a label.
        key: The column that tells rows apart.
        label: The column to predict, 1 or 0 or the number of a class.
        features: The columns to predict it from.
        slices: The columns by which models are judged too.
    """
    from pathlib import Path

    from mlops_mini.pipeline import examples
    from mlops_mini.use_case import load

    case = load(use_case)
    examples.write(
        case,
        [case.calendar.period(text) for text in train_periods],
        case.calendar.period(test_period),
        holdout_days=holdout_days,
        train_file=Path(train_examples.path),
        test_file=Path(test_examples.path),
        arrivals_file=Path(arrivals.path),
        data_folder=Path(clean.path),
    )
    columns = case.feature_set
    return (columns.key, case.label.column, list(columns.names), list(case.slices))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    use_case: str,
    use_case_digest: str,
    train_examples: Input[Dataset],
    label: str,
    features: list[str],
    seed: int,
    epochs: int,
    warm_start: str,
    warm_start_digest: str,
    data_digest: str,
    model: Output[Model],
) -> str:
    """Train a candidate, from scratch or on from a published version.

    Args:
        use_case: Its dotted name; it may bring a `train` of its own.
        use_case_digest: Of the code that it is made of.
        train_examples: Parquet, as `features` writes it.
        label: The column to predict.
        features: The columns to predict it from.
        seed: Seeds Python, NumPy and TensorFlow.
        epochs: Passes over the rows.
        warm_start: Folder of the version to start from, empty to start from scratch. Its means,
            deviations and vocabulary are kept.
        warm_start_digest: What that version answers.
        data_digest: Of the files that the examples were made from.

    Returns:
        model: A SavedModel; what a warm start from it needs is in `assets.extra`.
        Output: Digest of what the model answers.
    """
    from pathlib import Path

    from mlops_mini.model import training
    from mlops_mini.model.digest import model_digest
    from mlops_mini.use_case import load

    case = load(use_case)
    training.train_from_files(
        [Path(train_examples.path)],
        Path(model.path),
        label=label,
        features=features,
        train=case.train or training.train,
        fallback=case.fallback,
        seed=seed,
        epochs=epochs,
        parent=Path(warm_start) if warm_start else None,
        parent_digest=warm_start_digest,
    )
    return model_digest(Path(model.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def refit(
    use_case: str,
    use_case_digest: str,
    train_examples: Input[Dataset],
    test_examples: Input[Dataset],
    label: str,
    features: list[str],
    seed: int,
    epochs: int,
    warm_start: str,
    warm_start_digest: str,
    data_digest: str,
    model: Output[Model],
) -> str:
    """Train what the gate has blessed once more, with the days that judged it.

    Args:
        use_case: As `train` takes it, like the others.
        use_case_digest: Of the code that it is made of.
        train_examples: Parquet, as `features` writes it.
        test_examples: The days that were held out.
        label: The column to predict.
        features: The columns to predict it from.
        seed: Seeds Python, NumPy and TensorFlow.
        epochs: Passes over the rows.
        warm_start: Folder of the version to start from, empty to start from scratch.
        warm_start_digest: What that version answers.
        data_digest: Of the files that the examples were made from.

    Returns:
        model: A SavedModel.
        Output: Digest of what the model answers.
    """
    from pathlib import Path

    from mlops_mini.model import training
    from mlops_mini.model.digest import model_digest
    from mlops_mini.use_case import load

    case = load(use_case)
    training.train_from_files(
        [Path(train_examples.path), Path(test_examples.path)],
        Path(model.path),
        label=label,
        features=features,
        train=case.train or training.train,
        fallback=case.fallback,
        seed=seed,
        epochs=epochs,
        parent=Path(warm_start) if warm_start else None,
        parent_digest=warm_start_digest,
    )
    return model_digest(Path(model.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    model: Input[Model],
    models_folder: str,
    run_id: str,
    model_digest: str,
    test_period: str,
    train_periods: list[str],
    data_digest: str,
    registry: str,
    began: str,
) -> int:
    """Make a model the next version, and the champion; again for the same run changes nothing.

    Args:
        model: What the gate has blessed, trained on everything.
        models_folder: Folder of the model's versions.
        run_id: This run.
        model_digest: What it answers.
        test_period: The month or week at whose end it was judged.
        train_periods: Those before; with that one, it was trained on all of them in the end.
        data_digest: Of the files that all these were read from.
        registry: MLflow's address of the registry, empty for none.
        began: When this run began.

    Returns:
        Output: Number of the version.
    """
    from pathlib import Path

    from mlops_mini.model.publish import Publication
    from mlops_mini.model.registry import publish_and_register

    publication = Publication(
        run_id=run_id,
        model_digest=model_digest,
        test_period=test_period,
        train_periods=(*train_periods, test_period),
        data_digest=data_digest,
        began=began,
    )
    return publish_and_register(
        Path(model.path), Path(models_folder), publication=publication, uri=registry
    ).version


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def write_verdict(
    status: dsl.PipelineTaskFinalStatus, verdicts_folder: str, models_folder: str, run_id: str
) -> None:
    """Put on record how the run has ended, whatever happened.

    Args:
        status: What the runner knows.
        verdicts_folder: Receives a JSON file named after the run.
        models_folder: Folder of the model's versions.
        run_id: This run.
    """
    from pathlib import Path

    from mlops_mini.model import publish

    publish.write_verdict(
        Path(verdicts_folder),
        run_id=run_id,
        state=status.state,
        error=status.error_message or "",
        model_folder=Path(models_folder),
    )
