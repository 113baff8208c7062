"""What a model was asked and has answered, and the labels that came later, by window, in SQLite.

A log is read as far as it goes, in batches: what a batch has brought and the position that was
reached are written in one transaction, so each record counts once, however often the reader was
killed. Labels come in any order, also before their prediction was read. In memory there's one
batch.
"""

from __future__ import annotations

import io
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from mlops_mini.data.periods import Calendar, Period
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.monitoring import inputs, scrapes
from mlops_mini.prediction_log import Reader, Record, ends
from mlops_mini.statistics import mergeable
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics

logger = logging.getLogger(__name__)

_SCHEMA = """
create table if not exists position (file text primary key, bytes integer not null) strict;
create table if not exists prediction (
    request_id text, row integer, window text not null, day text not null, version integer not null,
    outputs blob not null, primary key (request_id, row)
) strict, without rowid;
create index if not exists prediction_by_window on prediction (window);
create table if not exists label (
    request_id text, row integer, label real not null, known_at real not null,
    primary key (request_id, row)
) strict, without rowid;
create table if not exists part (
    number integer primary key, window text not null, version integer not null, content blob
) strict;
create index if not exists part_by_window on part (window);
create table if not exists counted (
    window text, what text, n integer not null, primary key (window, what)
) strict, without rowid;
create table if not exists scraped (source text primary key, content text not null) strict;
create table if not exists traffic (window text primary key, content text not null) strict;
"""
_SCALARS = [name for name in ColumnStatistics.__dataclass_fields__ if name != "counts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Intake:
    """What one look into a log has brought.

    Attributes:
        n_new: Rows that weren't known.
        n_doubled: Rows that were known by their request id; nothing changed.
        n_other: Records of other models, or without the output that's watched.
        n_gaps: Stretches between records that could not be read.
    """

    n_new: int = 0
    n_doubled: int = 0
    n_other: int = 0
    n_gaps: int = 0


class Journal:
    """The journal of one model; one process writes at a time, others wait."""

    def __init__(
        self,
        file: Path,
        *,
        model: str,
        calendar: Calendar,
        output: str = "probability",
        instant: Callable[[Record], float] = lambda record: record.time_s,
        n_batch: int = 5_000,
    ) -> None:
        """Open a journal.

        Args:
            file: Made if it's not there.
            model: The model that's watched; others in the same log are skipped.
            calendar: Cuts time into windows.
            output: The output with the probability of the label, or of each class.
            instant: When a record's prediction was made, seconds since 1970 UTC; a replay knows
                better than the server that answered.
            n_batch: Records per transaction.

        Raises:
            DataIntegrityError: The file holds something else.
        """
        self.file = file
        self.calendar = calendar
        self._model, self._output, self._instant = model, output, instant
        self._n_batch = n_batch
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._transaction() as connection:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
        except sqlite3.DatabaseError as exc:
            raise DataIntegrityError(
                f"{file} is no journal ({exc}): move it away, and it's made anew from the log"
            ) from exc

    def read_log(self, log: Path) -> Intake:
        """Read what a log has got since the last time.

        Args:
            log: Its prefix, see `prediction_log`.

        Raises:
            NotFoundError: There's no such log.
        """
        total = Counter[str]()
        with self._transaction() as connection:
            positions = dict(connection.execute("select file, bytes from position"))
        reader = Reader(log, positions=positions)
        records = iter(reader)
        while batch := self._next_batch(records, reader):
            with self._transaction() as connection:
                total += self._add(connection, *batch)
        return Intake(**total)

    def add_labels(self, labels: pd.DataFrame, *, now: datetime) -> int:
        """Write labels down; the last one of a row counts.

        Args:
            labels: Columns `request_id` and `label`, a number, such as 0 or 1 or that of a class;
                and `row` of the request, 0 if left out. Without a label, a row is left out.
            now: When they became known, with a time zone.

        Returns:
            How many are labels of predictions that are known.

        Raises:
            InvalidArgumentError: A column is missing.
        """
        if missing := {"request_id", "label"} - set(labels):
            raise InvalidArgumentError(
                f"labels have the columns {list(labels)}, without {sorted(missing)}: add those"
            )
        known = labels[labels["label"].notna()]
        ids, values = known["request_id"].astype(str), known["label"].astype(float)
        numbers = known["row"].astype(int) if "row" in known else pd.Series(0, index=known.index)
        at_s = now.timestamp()
        rows = [(a, int(b), float(c), at_s) for a, b, c in zip(ids, numbers, values, strict=True)]
        with self._transaction() as connection:
            connection.executemany(
                "insert into label values (?, ?, ?, ?) on conflict do update set label ="
                " excluded.label, known_at = excluded.known_at where label != excluded.label",
                rows,
            )
            return sum(
                connection.execute(
                    "select count(*) from prediction where request_id = ? and row = ?", row[:2]
                ).fetchone()[0]
                for row in rows
            )

    def pass_over(self, log: Path) -> None:
        """Leave out what a log has got so far: answers that nobody has had, as a shadow's are."""
        with self._transaction() as connection:
            connection.executemany(
                "insert or replace into position values (?, ?)", list(ends(log).items())
            )

    def add_scrape(self, text: str, *, source: str, now: datetime) -> None:
        """Count the requests since the last scrape of a server.

        Args:
            text: Its page of metrics, in Prometheus's format.
            source: Names the server; its counters may start anew.
            now: The time, with a time zone; what has happened since the last scrape belongs to the
                window of this one.
        """
        read = scrapes.parse(text, model=self._model)
        window = str(self.calendar.partition(now))
        with self._transaction() as connection:
            before = _json(connection, "select content from scraped where source = ?", source)
            since = scrapes.difference(scrapes.Traffic(**before) if before else None, read)
            known = _json(connection, "select content from traffic where window = ?", window)
            total = scrapes.add(since, scrapes.Traffic(**known)) if known else since
            for table, key, content in (("scraped", source, read), ("traffic", window, total)):
                connection.execute(
                    f"insert or replace into {table} values (?, ?)",  # noqa: S608 - our own words
                    (key, json.dumps(asdict(content))),
                )

    def windows(self) -> list[Period]:
        """List the windows from the first to the last with a prediction, also empty ones."""
        with self._transaction() as connection:
            first, last = connection.execute(
                "select min(window), max(window) from prediction"
            ).fetchone()
        if first is None:
            return []
        period, end = (self.calendar.period(text) for text in (first, last))
        found = [period]
        while period < end:
            period = period.next()
            found.append(period)
        return found

    def request_ids(self, window: Period) -> set[str]:
        """List the ids of the requests of a window."""
        with self._transaction() as connection:
            found = connection.execute(
                "select distinct request_id from prediction where window = ?", (str(window),)
            )
            return {request_id for (request_id,) in found}

    def rows(self, window: Period) -> pd.DataFrame:
        """Read the predictions of a window, with the labels that have come.

        Returns:
            One row per prediction: `version`, `day` (local date), `outputs` (float32 array) and
            `label`, NaN without one.
        """
        with self._transaction() as connection:
            found = connection.execute(
                "select version, day, outputs, label from prediction left join label"
                " using (request_id, row) where window = ? order by request_id, row",
                (str(window),),
            ).fetchall()
        table = pd.DataFrame(found, columns=["version", "day", "outputs", "label"])
        outputs = table["outputs"].map(lambda content: np.frombuffer(content, np.float32))
        return table.assign(outputs=outputs).astype({"label": "float64"})

    def statistics(self, window: Period, *, version: int | None = None) -> TableStatistics:
        """Read what the inputs of a window were like, of all versions or of one."""
        with self._transaction() as connection:
            found = connection.execute(
                "select content from part where window = ?1 and (?2 is null or version = ?2)"
                " order by number",
                (str(window), version),
            ).fetchall()
        total = mergeable.create()
        for (content,) in found:
            total = mergeable.merge(total, _unpack(content))
        return total

    def counts(self, window: Period | None = None) -> dict[str, int]:
        """Read what was counted: `doubled` rows by window; without one `other`, `gaps`."""
        with self._transaction() as connection:
            found = connection.execute(
                "select what, n from counted where window = ?", (str(window or ""),)
            )
            return dict(found)

    def n_unknown_labels(self) -> int:
        """Count labels of requests that aren't in the log, or not yet."""
        with self._transaction() as connection:
            return int(
                connection.execute(
                    "select count(*) from label left join prediction using (request_id, row)"
                    " where window is null"
                ).fetchone()[0]
            )

    def traffic(self, window: Period) -> scrapes.Traffic | None:
        """Read how many requests a window had, and how long they took; None if nobody knows."""
        with self._transaction() as connection:
            content = _json(connection, "select content from traffic where window = ?", str(window))
        return scrapes.Traffic(**content) if content else None

    def _next_batch(
        self, records: Iterator[Record], reader: Reader
    ) -> tuple[list[Record], dict[str, int], int] | None:
        n_skipped, batch, n_gaps = reader.n_skipped, [], 0
        for record in islice(records, self._n_batch):
            batch.append(record)
            n_gaps = reader.n_skipped - n_skipped  # those that a record has followed
        return (batch, dict(reader.positions), n_gaps) if batch else None

    def _add(
        self,
        connection: sqlite3.Connection,
        records: Sequence[Record],
        positions: Mapping[str, int],
        n_gaps: int,
    ) -> Counter[str]:
        ours = [r for r in records if r.model == self._model and self._output in r.outputs]
        counted = Counter({"n_other": len(records) - len(ours), "n_gaps": n_gaps})
        kept: list[Record] = []
        where: list[tuple[str, int]] = []  # window and version of each row of those that are kept
        for record in ours:
            n_rows = inputs.count_rows(record)
            instant = datetime.fromtimestamp(self._instant(record), UTC)
            window = str(self.calendar.partition(instant))
            if self._insert(connection, record, window, instant, n_rows):
                kept.append(record)
                where += [(window, record.version or 0)] * n_rows
                counted["n_new"] += n_rows
            else:
                counted["n_doubled"] += n_rows
                _count(connection, window, "doubled", n_rows)
        table = inputs.table(kept)
        for key in sorted(set(where)):
            chosen = table[[each == key for each in where]]
            content = _pack(mergeable.add(mergeable.create(), chosen))
            connection.execute(
                "insert into part (window, version, content) values (?, ?, ?)", (*key, content)
            )
        connection.executemany(
            "insert or replace into position values (?, ?)", list(positions.items())
        )
        for what in ("other", "gaps"):
            _count(connection, "", what, counted[f"n_{what}"])
        return counted

    def _insert(
        self,
        connection: sqlite3.Connection,
        record: Record,
        window: str,
        instant: datetime,
        n_rows: int,
    ) -> bool:
        """Write the rows of a request down, unless they are known."""
        outputs = np.asarray(record.outputs[self._output], np.float32).reshape(n_rows, -1)
        day = instant.astimezone(ZoneInfo(self.calendar.zone)).date().isoformat()
        # Nobody can tell two requests without an id apart but by what they were.
        request_id = record.request_id or f"none-{instant.timestamp()}-{outputs.tobytes().hex()}"
        cursor = connection.executemany(
            "insert or ignore into prediction values (?, ?, ?, ?, ?, ?)",
            [
                (request_id, row, window, day, record.version or 0, each.tobytes())
                for row, each in enumerate(outputs)
            ],
        )
        return cursor.rowcount > 0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.file, timeout=60, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.execute("commit")


def _count(connection: sqlite3.Connection, window: str, what: str, n: int) -> None:
    if n:
        connection.execute(
            "insert into counted values (?, ?, ?) on conflict do update set n = n + excluded.n",
            (window, what, n),
        )


def _json(connection: sqlite3.Connection, query: str, value: str) -> dict[str, Any] | None:
    found = connection.execute(query, (value,)).fetchone()
    return json.loads(found[0]) if found else None


def _pack(statistics: TableStatistics) -> bytes:
    """Write statistics as they are, the numbers as arrays and the rest as JSON."""
    header: dict[str, Any] = {"n_rows": statistics.n_rows, "columns": {}}
    arrays: dict[str, Any] = {}
    for number, (name, column) in enumerate(statistics.columns.items()):
        scalars = {each: getattr(column, each) for each in _SCALARS}
        if column.kind == "text":
            scalars["texts"] = list(column.counts.index)
        else:
            arrays[f"v{number}"] = column.counts.index.to_numpy(np.float64)
        arrays[f"n{number}"] = column.counts.to_numpy()
        header["columns"][name] = scalars
    content = io.BytesIO()
    np.savez(content, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return content.getvalue()


def _unpack(content: bytes) -> TableStatistics:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        columns = {}
        for number, (name, scalars) in enumerate(header["columns"].items()):
            values: Any = scalars.pop("texts", None)
            values = arrays[f"v{number}"] if values is None else np.array(values, object)
            counts = mergeable.value_counts(values, arrays[f"n{number}"])
            columns[name] = replace(ColumnStatistics(counts=counts), **scalars)
    return TableStatistics(n_rows=header["n_rows"], columns=columns)
