"""Predict for the rows of a file, with a published model and the features it was trained on."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa

from mlops_mini import files
from mlops_mini.data import rules, table_files
from mlops_mini.data.periods import iterate
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.features import offline
from mlops_mini.features.feature_set import offset
from mlops_mini.model import evaluation, publish
from mlops_mini.pipeline import examples
from mlops_mini.use_case import UseCase, naming


def score(
    use_case: UseCase, version_folder: Path, file: Path, *, data_folder: Path | None = None
) -> pd.DataFrame:
    """Predict for each row of a file.

    Features are computed as they were for training, as of the instant when each prediction is due;
    the model's own preprocessing is inside of it. No row rule is applied: every row gets a
    probability. Where features look back, they see what the data folder holds, and the rows of the
    file only if they're in there too.

    Args:
        use_case: The use case whose features are computed.
        version_folder: A published version, or the folder of all of them: then the latest is asked.
        file: Parquet or CSV with the key and the inputs of the features; the label isn't needed.
        data_folder: Holds the tables that features look back at; None if they look back at none.

    Returns:
        One row for each of the file, in order: the key, and `probability`, that the label is 1, or,
        of more classes than two, one column of probabilities for each class, by its name.

    Raises:
        NotFoundError: There's no such file, version or model, or no data to look back at.
        InvalidArgumentError: Features look back, and there is no data folder; or the version wants
            other features than the use case has.
        DataIntegrityError: The file lacks a column, or a value is of another kind.
    """
    features, table = use_case.feature_set, use_case.examples
    version = version_folder
    if not (version / "saved_model.pb").is_file():
        version = publish.latest_version(version_folder).path
    with naming(use_case):
        rows = table_files.read(file, _known_columns(use_case))
        looked_at = {event.table for event in features.events}
        looked_at |= {observation.table for observation in features.observations}
        if looked_at and data_folder is None:
            raise InvalidArgumentError(
                f"features look back at {sorted(looked_at)}: name the data folder that holds these"
                " tables by --data"
            )
        tables = _tables(use_case, rows, sorted(looked_at), data_folder) if data_folder else {}
        history, observed = examples.happened(use_case, tables)
        computed = offline.compute(
            rows, features, prepare=table.prepare, history=history, observed=observed
        )
        probabilities = evaluation.predict(version, computed)
    keys = pd.DataFrame({features.key: rows[features.key]})
    if probabilities.ndim == 1:
        return keys.assign(probability=probabilities)
    return keys.join(pd.DataFrame(probabilities, keys.index, list(use_case.label.classes)))


def write(predictions: pd.DataFrame, file: Path) -> None:
    """Write predictions to a CSV file, whole or not at all; an earlier file is replaced."""
    with files.whole_file(file) as unfinished:
        predictions.to_csv(unfinished, index=False)


def _known_columns(use_case: UseCase) -> pa.Schema:
    """The columns that a prediction needs; what may be missing in training may be missing here."""
    features = use_case.feature_set
    names = dict.fromkeys((features.key, *features.inputs))
    return pa.schema([use_case.examples.arrow.field(name) for name in names])


def _tables(
    use_case: UseCase, rows: pd.DataFrame, names: list[str], data_folder: Path
) -> Mapping[str, pd.DataFrame]:
    """Read what features of some rows may look back at: the rows kept of each table, prepared."""
    features, calendar = use_case.feature_set, use_case.calendar
    due = rules.prepare(use_case.examples, rows)[features.time] + offset(features.due)
    if due.isna().any():
        row = int(due.isna().to_numpy().argmax())
        raise InvalidArgumentError(f"row {row} (from 0) has no {features.time}: correct it")
    earliest = due.min().to_pydatetime() - timedelta(seconds=features.reach_s)
    needed = set(iterate(calendar.partition(earliest), calendar.partition(due.max())))
    tables = {}
    for name in names:
        table = use_case.by_name[name]
        stored = table_files.partitions(table, calendar=calendar, folder=data_folder)
        periods = sorted(needed & set(stored))
        if not periods:
            raise NotFoundError(
                f"features look back at {name} from {min(needed)} to {max(needed)}, and"
                f" {data_folder} holds {[str(period) for period in stored] or 'none of it'}: send"
                " these with `mlops-mini data send`"
            )
        loaded = table_files.load_each(table, periods, calendar=calendar, folder=data_folder)
        parts = [
            rules.split(table, rows_of_period, period).kept
            for period, rows_of_period in zip(periods, loaded, strict=True)
        ]
        tables[name] = rules.prepare(table, pd.concat(parts, ignore_index=True))
    return tables
