"""The queue of cases for people, in one SQLite file that several processes may use.

What people decide becomes a label, an audit and a comparison with the model. All three are read
from one row, which is written once, when the decision is final: its minutes for an undo are over,
and as many people as were wanted have decided. Whoever is killed meanwhile leaves either all of it
or nothing.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Self

from mlops_mini.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)

Kind = Literal["human", "hint", "shadow", "audit"]

_SCHEMA = """
create table if not exists setting (undo_s real not null) strict;
create table if not exists category (place integer primary key, name text not null unique) strict;
create table if not exists item (
    id text primary key, kind text not null, text text not null, image blob,
    answer text not null, score real, model_version integer, n_people integer not null,
    added_at real not null, state text not null default 'open'
) strict;
create index if not exists item_by_state on item (state, kind, added_at);
create table if not exists open_items (n integer not null) strict;
create trigger if not exists item_added after insert on item when new.state = 'open' begin
    update open_items set n = n + 1;
end;
create trigger if not exists item_moved after update of state on item begin
    update open_items set n = n + (new.state = 'open') - (old.state = 'open');
end;
create table if not exists decision (
    seq integer primary key autoincrement, item_id text not null references item,
    annotator text not null, label text not null, saw_hint integer not null,
    decided_at real not null, unique (item_id, annotator)
) strict;
create table if not exists claim (
    item_id text not null, annotator text not null, until real not null,
    primary key (item_id, annotator)
) strict;
create table if not exists outcome (
    seq integer primary key autoincrement, item_id text not null unique references item,
    kind text not null, label text not null, answer text not null, score real,
    model_version integer, n_people integer not null, settled_at real not null
) strict;
"""
_LONGEST = 200  # characters of an id or a name


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A case to be decided.

    Attributes:
        id: Of the case, unique.
        kind: `human` and `shadow`: no hint is shown. `hint`: the model's answer is. `audit`: the
            model has decided it already, and what it said isn't shown.
        text: What is shown in words.
        image: What is shown as a picture: the bytes of a PNG file.
        answer: The model's answer, empty if it wasn't asked.
        score: Its confidence, 0 to 1.
        model_version: The version that answered.
        n_people: How many people are to decide, 1 to 3; if the first two differ, a third is asked.
    """

    id: str
    kind: Kind
    text: str = ""
    image: bytes | None = None
    answer: str = ""
    score: float | None = None
    model_version: int | None = None
    n_people: int = 1

    def __post_init__(self) -> None:
        if not 0 < len(self.id) <= _LONGEST or self.n_people not in (1, 2, 3):
            raise InvalidArgumentError(
                f"an item needs an id of 1 to {_LONGEST} characters and 1 to 3 people, got"
                f" {self.id[:_LONGEST]!r} and {self.n_people}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What people have decided about an item, finally.

    Attributes:
        seq: Rises from outcome to outcome, in the order in which they became final.
        item_id: The item.
        kind: Why people were asked.
        label: What they say; empty if three people said three things.
        answer: What the model says; empty if it wasn't asked.
        score: Its confidence, 0 to 1.
        model_version: The version that answered.
        n_people: How many have decided.
        settled_at: When the last of them did, in seconds since 1970.
    """

    seq: int
    item_id: str
    kind: Kind
    label: str
    answer: str
    score: float | None
    model_version: int | None
    n_people: int
    settled_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What one person has said about an item.

    Attributes:
        item_id: The item.
        annotator: The person.
        label: What they say.
        decided_at: When, in seconds since 1970.
    """

    item_id: str
    annotator: str
    label: str
    decided_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the work is.

    Attributes:
        n_mine: Items that this person has decided.
        n_open: Items that still wait for somebody.
        n_undoable: How many of this person's decisions can be taken back.
    """

    n_mine: int
    n_open: int
    n_undoable: int


class ReviewQueue:
    """Cases that wait for people, and what they have decided. May be shared by threads."""

    def __init__(
        self,
        file: Path,
        *,
        categories: Sequence[str] = (),
        undo_s: float = 300.0,
        claim_s: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a queue, or make one.

        Args:
            file: SQLite file; its folder must be there.
            categories: What people choose from; not needed if the file is there.
            undo_s: Seconds during which a decision can be taken back. Nobody else sees it before.
                The file keeps what it was made with.
            claim_s: Seconds for which an item stays with the person who has it on the screen.
            clock: Gives the seconds since 1970.

        Raises:
            NotFoundError: There is no file, and no categories to make one.
            FailedPreconditionError: The file has other categories.
            UnavailableError: It can't be opened.
        """
        if not file.exists() and not categories:
            raise NotFoundError(f"no queue at {file}: name the one that items are routed to")
        self._claim_s, self._clock = claim_s, clock
        self._file, self._lock = file, threading.Lock()
        try:
            self._connection = sqlite3.connect(
                file, timeout=5, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise UnavailableError(f"{file} can't be opened: {exc}") from exc
        self._connection.row_factory = sqlite3.Row
        try:
            self._set_up(tuple(categories), undo_s)
        except BaseException:
            self.close()
            raise

    def _set_up(self, categories: tuple[str, ...], undo_s: float) -> None:
        with self._reading() as connection:
            # Readers and a writer don't wait for each other, and a kill loses nothing.
            connection.execute("pragma journal_mode = wal")
            connection.executescript(_SCHEMA)
        with self._changing() as connection:
            # Triggers count from here on: each item that's routed asks how many are open.
            connection.execute(
                "insert into open_items select count(*) from item where state = 'open'"
                " having not exists (select * from open_items)"
            )
            known = tuple(
                row["name"]
                for row in connection.execute("select name from category order by place")
            )
            if not known:
                connection.executemany(
                    "insert into category (name) values (?)", [(name,) for name in categories]
                )
                connection.execute("insert into setting values (?)", (undo_s,))
            self._undo_s = float(connection.execute("select undo_s from setting").fetchone()[0])
        if known and categories and known != categories:
            raise FailedPreconditionError(
                f"{self._file} has the categories {list(known)}, not {list(categories)}"
            )
        self.categories = known or categories

    def add(self, items: Sequence[Item]) -> int:
        """Put items into the queue; those that are there already stay as they are.

        Returns:
            How many are new.
        """
        rows = [asdict(item) | {"added_at": self._clock()} for item in items]
        names = [*(field.name for field in fields(Item)), "added_at"]
        with self._changing() as connection:
            return connection.executemany(
                f"insert or ignore into item ({', '.join(names)})"  # noqa: S608 - our own names
                f" values ({', '.join(':' + name for name in names)})",
                rows,
            ).rowcount

    def withdraw(self, item_id: str) -> None:
        """Take an item back that nobody needs to decide any more."""
        with self._changing() as connection:
            connection.execute(
                "update item set state = 'withdrawn' where id = ? and state != 'settled'",
                (item_id,),
            )

    def next_for(self, annotator: str) -> Item | None:
        """Give a person the next item, and keep it from others for a while.

        It's the one that they have on their screen already, or else the oldest.

        Returns:
            The item; the model's answer only if it may be shown. None if nothing waits for them.

        Raises:
            InvalidArgumentError: The name is empty or too long.
        """
        _check_name(annotator)
        now = self._clock()
        with self._changing() as connection:
            self._settle(connection, now)
            row = connection.execute(
                "select * from item where state = 'open'"
                " and not exists (select 1 from decision d"
                " where d.item_id = item.id and d.annotator = :annotator)"
                " and (select count(*) from decision d where d.item_id = item.id)"
                " + (select count(*) from claim c where c.item_id = item.id"
                " and c.annotator != :annotator and c.until > :now) < n_people"
                " order by not exists (select 1 from claim c where c.item_id = item.id"
                " and c.annotator = :annotator and c.until > :now), added_at, rowid limit 1",
                {"annotator": annotator, "now": now},
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "insert or replace into claim values (?, ?, ?)",
                (row["id"], annotator, now + self._claim_s),
            )
        is_hint = row["kind"] == "hint"
        shown = {field.name: row[field.name] for field in fields(Item)}
        return Item(**shown | ({} if is_hint else {"answer": "", "score": None}))

    def decide(self, item_id: str, label: str, *, annotator: str, saw_hint: bool = False) -> None:
        """Take a person's decision. The same one a second time changes nothing.

        Raises:
            InvalidArgumentError: The label is no category, or the name isn't one.
            NotFoundError: There's no such item.
            AbortedError: It no longer waits for this person: others have decided it meanwhile, it
                was withdrawn, or they decided otherwise before and would have to undo that first.
        """
        _check_name(annotator)
        if label not in self.categories:
            raise InvalidArgumentError(
                f"{label[:_LONGEST]!r} is no category; there are {list(self.categories)}"
            )
        now = self._clock()
        with self._changing() as connection:
            self._settle(connection, now)
            item = connection.execute("select * from item where id = ?", (item_id,)).fetchone()
            if item is None:
                raise NotFoundError(f"no item {item_id[:_LONGEST]!r} in the queue")
            decided = {
                row["annotator"]: row["label"]
                for row in connection.execute(
                    "select annotator, label from decision where item_id = ?", (item_id,)
                )
            }
            if decided.get(annotator) == label:
                return
            if annotator in decided:
                raise AbortedError(
                    f"you've labeled {item_id} as {decided[annotator]}: undo that first"
                )
            if item["state"] == "withdrawn":
                raise AbortedError(f"{item_id} was withdrawn: nobody needs to decide it any more")
            if len(decided) >= item["n_people"]:
                raise AbortedError(f"somebody else has labeled {item_id} meanwhile")
            connection.execute(
                "insert into decision (item_id, annotator, label, saw_hint, decided_at)"
                " values (?, ?, ?, ?, ?)",
                (item_id, annotator, label, saw_hint, now),
            )
            if set(decided.values()) - {label}:  # two differ, so that a third has to decide
                connection.execute("update item set n_people = 3 where id = ?", (item_id,))
            connection.execute(
                "update item set state = 'decided' where id = ? and n_people <= ?",
                (item_id, len(decided) + 1),
            )
            connection.execute(
                "delete from claim where item_id = ? and annotator = ?", (item_id, annotator)
            )

    def undo(self, annotator: str) -> str:
        """Take a person's last decision back; the item is the next that they're given.

        Returns:
            The item's id.

        Raises:
            FailedPreconditionError: There's none, or it's final.
        """
        _check_name(annotator)
        now = self._clock()
        with self._changing() as connection:
            self._settle(connection, now)
            last = connection.execute(
                f"{_UNDOABLE} order by seq desc limit 1", (annotator, now - self._undo_s)
            ).fetchone()
            if last is None:
                raise FailedPreconditionError(
                    f"nothing to undo: a decision is final after {self._undo_s / 60:.3g} minutes"
                )
            item_id = str(last["item_id"])
            connection.execute("delete from decision where seq = ?", (last["seq"],))
            # A third person is needed no longer if one of the two who differed takes it back.
            connection.execute(
                "update item set n_people = 2 where id = ? and n_people = 3 and 1 ="
                " (select count(distinct label) from decision where item_id = ?)",
                (item_id, item_id),
            )
            connection.execute(
                "update item set state = 'open' where id = ? and state = 'decided'", (item_id,)
            )
            connection.execute(
                "insert or replace into claim values (?, ?, ?)",
                (item_id, annotator, now + self._claim_s),
            )
        return item_id

    def progress(self, annotator: str) -> Progress:
        """Tell how far a person is, and the queue."""
        with self._reading() as connection:
            (n_mine,) = connection.execute(
                "select count(*) from decision where annotator = ?", (annotator,)
            ).fetchone()
            (n_undoable,) = connection.execute(
                f"select count(*) from ({_UNDOABLE})",  # noqa: S608
                (annotator, self._clock() - self._undo_s),
            ).fetchone()
        return Progress(n_mine=n_mine, n_open=self.n_open(), n_undoable=n_undoable)

    def n_open(self) -> int:
        """Count the items that still wait for somebody."""
        with self._reading() as connection:
            return int(connection.execute("select n from open_items").fetchone()[0])

    def oldest_audit_s(self) -> float:
        """Tell how long the oldest audit has been waiting, in seconds; 0 if none is."""
        with self._reading() as connection:
            (added_at,) = connection.execute(
                "select min(added_at) from item where state = 'open' and kind = 'audit'"
            ).fetchone()
        return 0.0 if added_at is None else max(self._clock() - added_at, 0.0)

    def outcomes(self, *, after: int = 0) -> list[Outcome]:
        """List what people have finally decided, in the order in which it became final.

        Labels are those with a `label`; audits those of that kind; and where there's an `answer`,
        model and people can be compared. An outcome never changes.

        Args:
            after: Only those with a larger `seq`, so that a reader can go on where it was.
        """
        with self._changing() as connection:
            self._settle(connection, self._clock())
            rows = connection.execute(
                "select * from outcome where seq > ? order by seq", (after,)
            ).fetchall()
        return [Outcome(**dict(row)) for row in rows]

    def decisions(self) -> list[Decision]:
        """List what each person has said, in that order, once it can't be taken back any more."""
        with self._reading() as connection:
            rows = connection.execute(
                "select item_id, annotator, label, decided_at from decision"
                " where decided_at <= ? order by seq",
                (self._clock() - self._undo_s,),
            ).fetchall()
        return [Decision(**dict(row)) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _settle(self, connection: sqlite3.Connection, now: float) -> None:
        """Write the outcomes of items on which enough people have finally decided."""
        rows = connection.execute(
            "select item.*, max(d.decided_at) as settled_at, count(*) as n_decided"
            " from item join decision d on d.item_id = item.id where state = 'decided'"
            " group by item.id having max(d.decided_at) <= ? order by max(d.seq)",
            (now - self._undo_s,),
        ).fetchall()
        for row in rows:
            labels = Counter(
                decided["label"]
                for decided in connection.execute(
                    "select label from decision where item_id = ?", (row["id"],)
                )
            )
            label, n_votes = labels.most_common(1)[0]
            is_agreed = n_votes > 1 or row["n_people"] == 1
            connection.execute(
                "insert into outcome (item_id, kind, label, answer, score, model_version,"
                " n_people, settled_at) values (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row["id"], row["kind"], label if is_agreed else "", row["answer"],
                    row["score"], row["model_version"], row["n_decided"], row["settled_at"],
                ),
            )  # fmt: skip
            connection.execute("update item set state = 'settled' where id = ?", (row["id"],))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as exc:
                raise UnavailableError(f"the queue {self._file} can't be used: {exc}") from exc

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction, which is kept only if nothing is raised."""
        with self._reading() as connection:
            connection.execute("begin immediate")
            try:
                yield connection
            except BaseException:
                connection.execute("rollback")
                raise
            connection.execute("commit")


_UNDOABLE = (
    "select seq, item_id from decision d where annotator = ? and decided_at > ?"
    " and not exists (select 1 from outcome o where o.item_id = d.item_id)"
)


def _check_name(annotator: str) -> None:
    if not annotator.strip() or len(annotator) > _LONGEST:
        raise InvalidArgumentError(f"give your name, of 1 to {_LONGEST} characters")
