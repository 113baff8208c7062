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
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import files
from mlops_mini.data import quarantine, rules, table_files
from mlops_mini.data.columns import plain, shown
from mlops_mini.data.integrity import contents_digest
from mlops_mini.data.periods import Period
from mlops_mini.data.rules import RowSplit
from mlops_mini.data.table import MIN_ROWS, Table
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.features import events, offline
from mlops_mini.features.events import StreamEvent
from mlops_mini.features.feature_set import offset
from mlops_mini.statistics import anomalies, mergeable, schemas
from mlops_mini.use_case import UseCase, naming


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodOfExamples:
    """The examples of one period.

    Attributes:
        period: The period.
        rows: Rows of the examples' table, with what `prepare` adds to them.
        features: Their features, one row each, as of the instant when its prediction is due.
        labels: 1 or 0, NaN where unknown.
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
        """Features and labels, shape [n] of 0 and 1, of the rows that have a label."""
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
            were set aside, and a digest of what arrived, however it was stored.
        data_folder: Holds the tables.

    Returns:
        What is odd, a sentence each.

    Raises:
        NotFoundError: A period is not there.
        DataIntegrityError: A file is damaged, a partition is refused as a whole, or its statistics
            break the schema.
    """
    findings: list[str] = []
    errors: list[str] = []
    splits: list[RowSplit] = []
    partitions: list[dict[str, Any]] = []
    kept: dict[str, list[pd.DataFrame]] = {table.name: [] for table in use_case.tables}
    with naming(use_case):
        needed = [*_before(use_case, periods, data_folder), *periods]
        for table in use_case.tables:
            for period in needed:
                arrived = _load(use_case, table, period, data_folder)
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
                    findings.append(f"no {table.name} at all in {period}")
                    continue
                split = _split(use_case, table, period, arrived)
                splits.append(split)
                partition["n_quarantined"] = len(split.quarantined)
                kept[table.name].append(split.kept)
                findings += (finding.text for finding in split.findings)
                for text, is_error in _anomalies(table, period, split.kept):
                    (errors if is_error else findings).append(text)
        if errors:
            raise DataIntegrityError(
                f"{'; '.join(errors)}: have the partitions sent again, or review the schema"
            )
        newest = kept[use_case.examples.name][-1]
        _check_columns(use_case, rules.prepare(use_case.examples, newest))
    folder.mkdir(parents=True)
    for name, parts in kept.items():
        rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    files.write_checksums(folder, sorted(f"{table.name}.parquet" for table in use_case.tables))
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
    tables = {
        name: [
            rules.prepare(table, _load(use_case, table, period, data_folder)) for period in needed
        ]
        for name, table in use_case.by_name.items()
    }
    rows = tables[features.of][-len(periods) :]
    _check_columns(use_case, rows[-1])
    history, observed = happened(
        use_case, {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    )
    computed = offline.compute(
        pd.concat(rows, ignore_index=True),
        features,
        prepare=use_case.examples.prepare,
        history=history,
        observed=observed,
    )
    ends = np.cumsum([len(part) for part in rows])
    return Examples(
        use_case=use_case,
        periods=[
            PeriodOfExamples(
                period=period,
                rows=part,
                features=computed.iloc[end - len(part) : end],
                labels=_labels(use_case, part),
            )
            for period, part, end in zip(periods, rows, ends, strict=True)
        ],
        history=history,
        observed=observed,
    )


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
    train_file: Path,
    test_file: Path,
    data_folder: Path,
) -> None:
    """Write the rows that have a label, with their features as of the instant of prediction.

    Args:
        use_case: The use case.
        train_periods: Months or weeks in order.
        test_period: The one after them.
        train_file: Gets a parquet file of the rows of `train_periods`: the key, the features, the
            label, 1 or 0, and the slices that are no features.
        test_file: Gets the same of `test_period`.
        data_folder: Holds the tables, as `clean` writes them.

    Raises:
        NotFoundError: A period is not there.
        DataIntegrityError: A file is damaged, or a period has no row.
        InvalidArgumentError: A label is neither 0 nor 1, the same for all, or known of no row.
    """
    periods = read(use_case, [*train_periods, test_period], data_folder=data_folder).periods
    for file, parts in ((train_file, periods[:-1]), (test_file, periods[-1:])):
        examples = pd.concat([_labeled(use_case, part) for part in parts])
        labels, asked = examples[use_case.label.name], [part.period for part in parts]
        _check_labels(use_case, labels, asked, to_do="learn" if file == train_file else "judge")
        examples.reset_index().to_parquet(file, index=False)


def _labeled(use_case: UseCase, part: PeriodOfExamples) -> pd.DataFrame:
    """The rows of a period that have a label: features, label, slices."""
    slices = {
        name: part.rows[name].to_numpy()
        if not isinstance(part.rows[name].dtype, pd.CategoricalDtype)
        else pd.Categorical(part.rows[name])
        for name in use_case.slices
        if name not in part.features
    }
    examples = part.features.assign(
        **{use_case.label.name: part.labels.to_numpy(np.float64)}, **slices
    )
    return examples[examples[use_case.label.name].notna()]


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


def _check_labels(
    use_case: UseCase,
    labels: pd.Series[float],
    periods: Sequence[Period],
    *,
    to_do: Literal["learn", "judge", ""] = "",
) -> None:
    """Refuse labels that are all missing, or from which nothing can be learned or judged."""
    span = f"{periods[0]} to {periods[-1]}" if len(periods) > 1 else str(periods[0])
    label = use_case.label
    if labels.empty:
        raise InvalidArgumentError(
            f"use case {use_case.name}: no row of {span} has a label, for {label.name} is missing"
            f" in each, and known only {label.matures_after} after a row's time: choose earlier"
            " periods, whose outcomes are known"
        )
    if to_do and labels.min() == labels.max():
        other = "train on more periods" if to_do == "learn" else "judge on another period"
        raise InvalidArgumentError(
            f"use case {use_case.name}: {label.name} is {labels.iloc[0]:g} in all {len(labels)}"
            f" rows of {span}: there's nothing to {to_do}; {other}, or predict something else"
        )


def _labels(use_case: UseCase, rows: pd.DataFrame) -> pd.Series[float]:
    """Read the labels of prepared rows: 1, 0 or NaN."""
    name, table = use_case.label.name, use_case.examples
    labels = pd.to_numeric(rows[name].astype(object), errors="coerce").astype("float64")
    is_odd = (rows[name].notna() & ~labels.isin([0.0, 1.0])).to_numpy()
    if is_odd.any():
        example = shown(rows[name].iloc[int(np.argmax(is_odd))])
        raise InvalidArgumentError(
            f"use case {use_case.name}: {name} is {example} in"
            f" {int(is_odd.sum())} of {len(rows)} rows of table {table.name}; a label is 1 or 0, or"
            " missing where unknown: have `prepare` make one"
        )
    return labels.set_axis(pd.Index(rows[use_case.feature_set.key]))


def _load(use_case: UseCase, table: Table, period: Period, data_folder: Path) -> pd.DataFrame:
    """Load a period; there may be none of a table's rows if they are events and not regular."""
    return table_files.load(
        table,
        period,
        calendar=use_case.calendar,
        folder=data_folder,
        may_be_empty=table.series is None and table.name != use_case.examples.name,
    )


def _split(use_case: UseCase, table: Table, period: Period, arrived: pd.DataFrame) -> RowSplit:
    label = use_case.label.name
    if table.name == use_case.examples.name and label in arrived and len(arrived) >= MIN_ROWS:
        _check_labels(use_case, arrived[label].dropna(), [period])
    return rules.split(table, arrived, period)


def _anomalies(table: Table, period: Period, kept: pd.DataFrame) -> list[tuple[str, bool]]:
    """Where the rows kept break the reviewed schema: a sentence, and whether that is an error."""
    if table.schema is None:
        return []
    counted = mergeable.add(mergeable.create(), kept)
    broken = anomalies.table(anomalies.validate(counted, schemas.read(table.schema)))
    return [
        (f"{table.name} of {period}: {column}: {row['description']}", row["severity"] == "ERROR")
        for column, row in broken.iterrows()
    ]


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
    return sorted(
        name
        for table in use_case.tables
        for name in table_files.names(table, needed, calendar=use_case.calendar, folder=data_folder)
    )
