"""From the tables of a use case to examples: rows with features and a label.

A pipeline does it in three tasks, between which only files pass: `copy` takes the files that some
periods need, `clean` parts good rows from bad ones, and `write` makes rows to train and to judge a
model with. Each row is checked once, by `clean`. What the first two write is a data folder like the
one that it was made from, and `read` reads any of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import files
from mlops_mini.data import quarantine, rules, table_files, tensors
from mlops_mini.data.columns import plain
from mlops_mini.data.integrity import contents_digest
from mlops_mini.data.periods import Period
from mlops_mini.data.rules import RowSplit
from mlops_mini.data.table import Table
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.features import events, offline
from mlops_mini.features.events import StreamEvent
from mlops_mini.features.feature_set import offset
from mlops_mini.pipeline import labels, partition_checks, settings
from mlops_mini.use_case import UseCase, naming


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodOfExamples:
    """The examples of one period.

    Attributes:
        period: The period.
        rows: Rows of the examples' table, with what `prepare` adds to them.
        features: Their features, one row each, as of the instant when its prediction is due.
        labels: 1 or 0, or the number of a class, NaN where unknown.
    """

    period: Period
    rows: pd.DataFrame
    features: pd.DataFrame
    labels: pd.Series[float]

    @property
    def n_without_label(self) -> int:
        """Rows that neither train nor judge a model."""
        return int(self.labels.isna().sum())

    def labeled(self) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
        """Features and labels, shape [n] of whole numbers, of the rows that have a label."""
        known = self.labels.notna()
        return self.features[known], self.labels[known].to_numpy(np.float64)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples of some periods, and what happened before and meanwhile.

    Attributes:
        use_case: The use case.
        periods: The periods asked for, in order.
        history: Events, as `events.from_tables` gives them.
        observed: Rows of the tables that are observed, by table.
    """

    use_case: UseCase
    periods: Sequence[PeriodOfExamples]
    history: pd.DataFrame
    observed: Mapping[str, pd.DataFrame]

    @cached_property
    def stream(self) -> Sequence[StreamEvent]:
        """Everything that has happened, in the order in which it became known."""
        return events.stream(self.use_case.feature_set, self.history, self.observed)


def digest(use_case: UseCase, periods: Sequence[Period], *, data_folder: Path) -> str:
    """Digest the files that some periods need, those before them that features reach into included.

    Args:
        use_case: The use case whose tables are read.
        periods: Months or weeks in order.
        data_folder: Holds the tables; see `table_files.load`.

    Returns:
        SHA-256, 64 hex digits, of the list of checksums that `copy` would write.

    Raises:
        NotFoundError: The folder or a file is not there.
        DataIntegrityError: A file is not what the folder's checksums say.
    """
    lines = [
        f"{files.file_sha256(files.checked_path(data_folder, name))}  {name}\n"
        for name in _file_names(use_case, periods, data_folder)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def copy(
    use_case: UseCase,
    periods: Sequence[Period],
    folder: Path,
    *,
    data_digest: str,
    data_folder: Path,
) -> None:
    """Copy the files that some periods need.

    Args:
        use_case: The use case whose tables are read.
        periods: Months or weeks in order.
        folder: Becomes a data folder with just these files and their checksums.
        data_digest: What `digest` said of them.
        data_folder: Holds the tables.

    Raises:
        NotFoundError: The folder or a file is not there.
        DataIntegrityError: A file is damaged, or they have another digest: they have changed.
    """
    names = _file_names(use_case, periods, data_folder)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.checked_path(data_folder, name), folder / name)
    files.write_checksums(folder, names)
    copied = files.file_sha256(folder / files.CHECKSUMS)
    if copied != data_digest:
        raise DataIntegrityError(
            f"{', '.join(names)} in {data_folder} have the digest {copied}, {data_digest or 'none'}"
            " was asked for: the files have changed; start a new run"
        )


def clean(
    use_case: UseCase,
    periods: Sequence[Period],
    folder: Path,
    *,
    quarantine_file: Path,
    partitions_file: Path,
    data_folder: Path,
) -> tuple[str, ...]:
    """Set bad rows aside and check what is left against the reviewed schemas.

    Single rows that break a rule are set aside, and what is odd but usable is told. An error by the
    statistics of the rows kept ends it, such as a code of another kind or a column that is mostly
    missing: then something is wrong that no row shows.

    Args:
        use_case: The use case whose tables are read, with their rules.
        periods: Months or weeks in order; those before them that features reach into, and that are
            there, are cleaned too.
        folder: Becomes a data folder of the rows kept, one file for each table.
        quarantine_file: Gets a CSV file with `quarantine.COLUMNS`, one line for each broken rule.
        partitions_file: Gets JSON: for each period of each table how many rows arrived and how many
            were set aside, and a digest of what arrived, however it was stored; and the same of the
            settings, for the period `all`.
        data_folder: Holds the tables.

    Returns:
        What is odd, a sentence each.

    Raises:
        NotFoundError: A period is not there.
        DataIntegrityError: A file is damaged, a partition is refused as a whole, its statistics
            break the schema, or the settings are no JSON.
    """
    findings: list[str] = []
    errors: list[str] = []
    splits: list[RowSplit] = []
    partitions: list[dict[str, Any]] = []
    kept: dict[str, list[pd.DataFrame]] = {table.name: [] for table in use_case.tables}
    with naming(use_case):
        needed = [*_before(use_case, periods, data_folder), *periods]
        for table in use_case.tables:
            parts = _load_each(use_case, table, needed, data_folder)
            for period, arrived in zip(needed, parts, strict=True):
                partition = {
                    "table": table.name,
                    "period": str(period),
                    "n_rows": len(arrived),
                    "n_quarantined": 0,
                    "digest": contents_digest(arrived.apply(plain)),
                }
                partitions.append(partition)
                if arrived.empty:
                    kept[table.name].append(arrived)
                    if table.name != use_case.label.corrected_in:
                        findings.append(f"no {table.name} at all in {period}")
                    continue
                split = partition_checks.split(use_case, table, period, arrived)
                splits.append(split)
                partition["n_quarantined"] = len(split.quarantined)
                kept[table.name].append(split.kept)
                findings += (finding.text for finding in split.findings)
                for text, is_error in partition_checks.broken(table, period, split.kept):
                    (errors if is_error else findings).append(text)
        partition_checks.refuse(errors)
        newest = kept[use_case.examples.name][-1]
        _check_columns(use_case, rules.prepare(use_case.examples, newest))
    names = [f"{table.name}.parquet" for table in use_case.tables]
    folder.mkdir(parents=True)
    if text := settings.read(use_case, data_folder):
        (folder / use_case.settings).write_text(text)
        names.append(use_case.settings)
        digest = hashlib.sha256(text.encode()).hexdigest()
        whole = {"table": Path(use_case.settings).stem, "period": "all", "n_rows": 1}
        partitions.append({**whole, "n_quarantined": 0, "digest": digest})
    for name, parts in kept.items():
        rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        tensors.write_parquet(rows, folder / f"{name}.parquet")
    files.write_checksums(folder, sorted(names))
    quarantine.record(splits).to_csv(quarantine_file, index=False)
    partitions_file.write_text(json.dumps(partitions, indent=2) + "\n")
    return tuple(findings)


def read(use_case: UseCase, periods: Sequence[Period], *, data_folder: Path) -> Examples:
    """Read periods that follow each other, with features as of each prediction.

    Events of the periods before them count too, where these are there: features of the first hours
    reach back into them. No row rule is applied: read what `clean` has written.

    Args:
        use_case: The use case.
        periods: Months or weeks in order.
        data_folder: Holds the tables.

    Raises:
        NotFoundError: A period is not there.
        DataIntegrityError: A file is damaged, or a period has no row.
        InvalidArgumentError: A label is neither 0 nor 1.
    """
    features = use_case.feature_set
    needed = [*_before(use_case, periods, data_folder), *periods]
    loaded = {
        name: _load_each(use_case, table, needed, data_folder)
        for name, table in use_case.by_name.items()
    }
    if use_case.label.corrected_in:
        corrections = pd.concat(loaded[use_case.label.corrected_in], ignore_index=True)
        loaded[features.of] = [
            labels.correct(use_case, part, corrections) for part in loaded[features.of]
        ]
    tables = {
        name: rules.prepare(use_case.by_name[name], pd.concat(parts, ignore_index=True))
        for name, parts in loaded.items()
    }
    lengths = [len(part) for part in loaded[features.of][-len(periods) :]]
    rows = tables[features.of].tail(sum(lengths)).reset_index(drop=True)
    _check_columns(use_case, rows)
    history, observed = happened(use_case, tables)
    computed = offline.compute(
        rows, features, prepare=use_case.examples.prepare, history=history, observed=observed
    )
    parts = []
    for period, n, end in zip(periods, lengths, np.cumsum(lengths), strict=True):
        of_period = rows[end - n : end]
        parts.append(
            PeriodOfExamples(
                period=period,
                rows=of_period,
                features=computed[end - n : end],
                labels=labels.read(use_case, of_period),
            )
        )
    return Examples(use_case=use_case, periods=parts, history=history, observed=observed)


def happened(
    use_case: UseCase, tables: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, Mapping[str, pd.DataFrame]]:
    """Tell what features may look back at.

    Args:
        use_case: The use case.
        tables: Prepared rows by table, of each table that features look back at.

    Returns:
        Events, as `events.from_tables` gives them, and the rows of observed tables by table.
    """
    features = use_case.feature_set
    keys = {event.table: _key(use_case, event.table) for event in features.events}
    history = events.from_tables(features, tables, keys=keys)
    return history, {each.table: tables[each.table] for each in features.observations}


def write(
    use_case: UseCase,
    train_periods: Sequence[Period],
    test_period: Period,
    *,
    holdout_days: int,
    train_file: Path,
    test_file: Path,
    arrivals_file: Path,
    data_folder: Path,
) -> None:
    """Write the rows that have a label, with their features as of the instant of prediction.

    The last days are held out: they judge what has learned from the rows before them.

    Args:
        use_case: The use case.
        train_periods: Months or weeks in order.
        test_period: The one after them.
        holdout_days: How many days at the end of all these periods are held out.
        train_file: Gets a parquet file of the rows before: the key, the features, the time, the
            label, 1 or 0 or the number of a class, and the slices that are no features; in the
            metadata of its schema `settings`, if there are any.
        test_file: Gets the same of the days held out.
        arrivals_file: Gets JSON of how many rows there were, with or without a label: `learned`,
            those before, by slice, and `judged`, those held out, by day in the use case's zone.
        data_folder: Holds the tables, as `clean` writes them.

    Raises:
        NotFoundError: A period is not there.
        DataIntegrityError: A file is damaged, or a period has no row.
        InvalidArgumentError: A label is neither 0 nor 1 and no class, the same for all, or known of
            no row; a class has no row; or nothing is left to train on.
    """
    parts = read(use_case, [*train_periods, test_period], data_folder=data_folder).periods
    rows = pd.concat([_with_outcomes(use_case, part) for part in parts])
    time, label = use_case.feature_set.time, use_case.label.column
    cut = held_out_from(test_period, holdout_days)
    is_judged = rows[time] >= cut
    if holdout_days < 1 or is_judged.all():
        raise InvalidArgumentError(
            f"use case {use_case.name}: nothing to {'train on' if is_judged.all() else 'judge on'}:"
            f" the last {holdout_days} days of {train_periods[0]} to {test_period} are held out;"
            " train on more periods, or hold out other days"
        )
    before = rows[~is_judged]
    arrivals = {
        "learned": {
            name: {
                str(value): int(n) for value, n in before[name].astype(str).value_counts().items()
            }
            for name in use_case.slices
        },
        "judged": {
            str(day): int(n)
            for day, n in local_days(use_case, rows.loc[is_judged, time]).value_counts().items()
        },
    }
    notes = {"settings": text} if (text := settings.read(use_case, data_folder)) else {}
    arrivals_file.write_text(json.dumps(arrivals, indent=2, sort_keys=True) + "\n")
    for file, examples in ((train_file, before), (test_file, rows[is_judged])):
        labeled = examples[examples[label].notna()]
        is_train = file == train_file
        asked = [
            part.period
            for part in parts
            if (part.period.start < cut if is_train else part.period.end > cut)
        ]
        labels.check(use_case, labeled[label], asked, to_do="learn" if is_train else "judge")
        tensors.write_parquet(labeled.reset_index(), file, notes=notes if is_train else {})


def held_out_from(test_period: Period, holdout_days: int) -> datetime:
    """Find the instant from which rows judge: so many days before a period's end."""
    return test_period.end - timedelta(days=holdout_days)


def local_days(use_case: UseCase, times: pd.Series[Any]) -> pd.Series[Any]:
    """Find the local date of each instant, where the use case is at home."""
    days: pd.Series[Any] = times.dt.tz_convert(use_case.calendar.zone).dt.date
    return days


def _with_outcomes(use_case: UseCase, part: PeriodOfExamples) -> pd.DataFrame:
    """The rows of a period: features, time, label, slices."""
    slices = {
        name: part.rows[name].to_numpy()
        if not isinstance(part.rows[name].dtype, pd.CategoricalDtype)
        else pd.Categorical(part.rows[name])
        for name in use_case.slices
        if name not in part.features
    }
    return part.features.assign(
        **{
            use_case.feature_set.time: part.rows[use_case.feature_set.time].array,
            use_case.label.column: part.labels.to_numpy(np.float64),
        },
        **slices,
    )


def _check_columns(use_case: UseCase, prepared: pd.DataFrame) -> None:
    """Refuse what names a column that's neither stored nor added by `prepare`."""
    table, features = use_case.examples, use_case.feature_set
    there = {*map(str, prepared.columns), *features.names}
    wanted = {
        use_case.label.name: "label",
        features.time: "time",
        **dict.fromkeys(use_case.slices, "slice"),
    }
    for unknown, what in wanted.items():
        if unknown not in there:
            raise InvalidArgumentError(
                f"use case {use_case.name}: its {what} {unknown!r} is neither a column of table"
                f" {table.name} nor added by its `prepare`; there are {sorted(there)}: correct the"
                " name, or have `prepare` add it"
            )


def _load_each(
    use_case: UseCase, table: Table, periods: Sequence[Period], data_folder: Path
) -> list[pd.DataFrame]:
    """Load periods; there may be none of a table's rows if they are events and not regular."""
    return table_files.load_each(
        table,
        periods,
        calendar=use_case.calendar,
        folder=data_folder,
        may_be_empty=table.series is None and table.name != use_case.examples.name,
    )


def _key(use_case: UseCase, name: str) -> str:
    """The one column that tells the rows of a table of events apart."""
    key = use_case.by_name[name].key
    if len(key) != 1:
        raise InvalidArgumentError(
            f"use case {use_case.name}: table {name} brings events, whose rows must be told"
            f" apart by one column; its key is {list(key)}: add one, such as a row number"
        )
    return key[0]


def _before(use_case: UseCase, periods: Sequence[Period], data_folder: Path) -> list[Period]:
    """The periods before them that features reach into, where they are there."""
    examples, calendar = use_case.examples, use_case.calendar
    stored = set(table_files.partitions(examples, calendar=calendar, folder=data_folder))
    features = use_case.feature_set
    reach = timedelta(seconds=features.reach_s)
    earliest = periods[0].start + min(offset(features.due), timedelta(0)) - reach
    before: list[Period] = []
    period = periods[0].previous()
    while period.end > earliest and set(calendar.partitions(period)) <= stored:
        before.insert(0, period)
        period = period.previous()
    return before


def _file_names(use_case: UseCase, periods: Sequence[Period], data_folder: Path) -> list[str]:
    """The files that some periods need, sorted."""
    needed = [*_before(use_case, periods, data_folder), *periods]
    names = [use_case.settings] if settings.read(use_case, data_folder) else []
    for table in use_case.tables:
        names += table_files.names(table, needed, calendar=use_case.calendar, folder=data_folder)
    return sorted(names)
