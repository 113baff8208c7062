"""The ledger of firings, in SQLite: each key once, one run at a time, whoever dies.

A firing is PENDING, then RUNNING once a worker has claimed it, and ends DONE or FAILED; or it's
SUPPRESSED from the start, with the reason. All decisions are made inside of `begin immediate`, so
that any number of processes may fire and claim at once. Every time in here comes from one clock.

A worker beats while it works. If it hasn't for longer than the lease, another takes the firing over
under the same run id, so that the run is resumed. A worker that was only slow learns at its next
beat that it's no longer the owner, and must stop before it changes anything outside of its run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from mlops_mini.errors import (
    AbortedError,
    DataIntegrityError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from mlops_mini.triggers.reasons import Firing

logger = logging.getLogger(__name__)

State = Literal["PENDING", "RUNNING", "DONE", "FAILED", "SUPPRESSED"]

_SCHEMA = """
create table if not exists firing (
    number integer primary key autoincrement, key text not null unique, kind text not null,
    reason text not null, basis text not null, fired_at text not null, state text not null,
    suppressed_by text not null default '', run_id text not null default '',
    owner_pid integer, claims integer not null default 0, beat_at text, ended_at text,
    outcome text not null default ''
) strict
"""
_ACCEPTED = "('PENDING', 'RUNNING', 'DONE', 'FAILED')"
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # whole in a key, short in a sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A line of the ledger.

    Attributes:
        number: Counts the lines from 1.
        key: See `Firing`; so are `kind`, `reason` and `basis`.
        fired_at: When it was fired.
        state: PENDING, RUNNING, DONE, FAILED or SUPPRESSED.
        suppressed_by: Why it was suppressed; empty otherwise.
        run_id: The run's, the same for each claim; empty until the first.
        owner_pid: Process that claimed it last.
        claims: How often it was claimed: 2 after the first takeover.
        beat_at: When the owner was heard of last.
        ended_at: When it was done or had failed.
        outcome: What came of it, such as `blessed` or `refused`, or the error.
    """

    number: int
    key: str
    kind: str
    reason: dict[str, Any]
    basis: str
    fired_at: datetime
    state: State
    suppressed_by: str
    run_id: str
    owner_pid: int | None
    claims: int
    beat_at: datetime | None
    ended_at: datetime | None
    outcome: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """What the ledger has made of a firing.

    Attributes:
        verdict: `PENDING` if it was accepted, `SUPPRESSED`, or `DUPLICATE`, which changed nothing.
        entry: Its line; of a duplicate the first one's.
    """

    verdict: Literal["PENDING", "SUPPRESSED", "DUPLICATE"]
    entry: Entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the ledger allows.

    Attributes:
        cool_down: How long after an accepted firing the next one is suppressed; one that comes
            exactly then is accepted. Doesn't hold for firings on demand.
        lease: How long a worker may be silent before another takes over.
        max_refusals: After so many refusals in a row of the same kind on the same basis, further
            ones are suppressed until the basis changes.
    """

    cool_down: timedelta = timedelta(0)
    lease: timedelta = timedelta(minutes=5)
    max_refusals: int = 3

    def __post_init__(self) -> None:
        if self.cool_down < timedelta(0) or self.lease <= timedelta(0) or self.max_refusals < 1:
            raise InvalidArgumentError(
                f"cool_down {self.cool_down}, lease {self.lease}, max_refusals"
                f" {self.max_refusals}: the first must be 0 or more, the others above 0"
            )


def _now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The firings of one model.

    >>> import tempfile
    >>> from mlops_mini.triggers import reasons
    >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "triggers.sqlite")
    >>> request = reasons.on_demand("4711", reason="the new prices are out")
    >>> ledger.fire(request).verdict, ledger.fire(request).verdict
    ('PENDING', 'DUPLICATE')
    >>> claim = ledger.claim()
    >>> ledger.claim() is None  # one at a time
    True
    >>> claim.beat()
    >>> claim.finish("blessed")
    >>> [(entry.key, entry.state, entry.outcome) for entry in ledger.entries()]
    [('on_demand:4711', 'DONE', 'blessed')]
    """

    def __init__(
        self,
        file: Path,
        *,
        limits: Limits | None = None,
        clock: Callable[[], datetime] = _now,
        wait_s: float = 10.0,
    ) -> None:
        """Open a ledger.

        Args:
            file: Made if it's not there; its folder too.
            limits: The defaults of `Limits` if None.
            clock: Says the time, with its zone.
            wait_s: Longest wait for other processes, seconds.

        Raises:
            DataIntegrityError: The file holds something else.
        """
        self.file = file
        self.limits = limits or Limits()
        self._clock = clock
        self._wait_s = wait_s
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction(makes=True) as connection:
            connection.execute(_SCHEMA)

    def fire(self, firing: Firing) -> Fired:
        """Write a firing down, unless its key is there.

        Args:
            firing: What is fired.

        Returns:
            What became of it.

        Raises:
            UnavailableError: Others hold the ledger for too long.
            ResourceExhaustedError: The disk is full; nothing has changed.
            NotFoundError: The file is gone.
        """
        with self._transaction() as connection:
            known = _read(connection, "where key = ?", firing.key)
            if known:
                return Fired(verdict="DUPLICATE", entry=known[0])
            now = self._time()
            why_not = self._cooling_down(connection, firing, now) or self._refused_often(
                connection, firing
            )
            state: State = "SUPPRESSED" if why_not else "PENDING"
            connection.execute(
                "insert into firing (key, kind, reason, basis, fired_at, state, suppressed_by)"
                " values (?, ?, ?, ?, ?, ?, ?)",
                (
                    firing.key, firing.kind, json.dumps(dict(firing.reason), sort_keys=True),
                    firing.basis, _text(now), state, why_not,
                ),
            )  # fmt: skip
            (entry,) = _read(connection, "where key = ?", firing.key)
        logger.info("fired: key=%s state=%s %s", firing.key, state, why_not)
        return Fired(verdict="SUPPRESSED" if why_not else "PENDING", entry=entry)

    def claim(self, *, is_alone: bool = False) -> Claim | None:
        """Take the firing that's to run next, if nothing runs.

        Args:
            is_alone: Whether nobody else can be at work, as who holds a lock knows: then a running
                one is taken over at once, for its worker is dead.

        Returns:
            A running one whose worker hasn't been heard of for longer than the lease, else the
            oldest pending one, else None.
        """
        with self._transaction() as connection:
            now = self._time()
            running = _read(connection, "where state = 'RUNNING'")
            pending = _read(connection, "where state = 'PENDING' order by number limit 1")
            if running and not is_alone and not self._is_silent(running[0], now):
                return None
            chosen = next(iter([*running, *pending]), None)
            if chosen is None:
                return None
            # Made from the key, so that a firing that's repeated in a new ledger, because this one
            # was lost, finds the run that it has begun, or even ended.
            digest = hashlib.sha256(chosen.key.encode()).hexdigest()[:12]
            connection.execute(
                "update firing set state = 'RUNNING', owner_pid = ?, claims = claims + 1,"
                " beat_at = ?, run_id = ? where number = ?",
                (os.getpid(), _text(now), f"{chosen.kind}-{digest}", chosen.number),
            )
            (entry,) = _read(connection, "where number = ?", chosen.number)
        logger.info("claimed: key=%s run=%s claim=%d", entry.key, entry.run_id, entry.claims)
        return Claim(self, entry)

    def entries(self, *, kind: str = "", limit: int = -1) -> list[Entry]:
        """Read the lines, newest first.

        Args:
            kind: Only those of this kind; all if empty.
            limit: At most so many; all if negative.
        """
        with self._transaction() as connection:
            condition = "where kind = ?2" if kind else "where ?2 = ''"
            return _read(connection, f"{condition} order by number desc limit ?1", limit, kind)

    def _cooling_down(self, connection: sqlite3.Connection, firing: Firing, now: datetime) -> str:
        last = _read(connection, f"where state in {_ACCEPTED} order by number desc limit 1")
        if firing.kind == "on_demand" or not last:
            return ""
        # If clocks went back, by how much must not matter: less than the cool-down is too soon,
        # more is no reason to wait until they've caught up.
        elapsed = abs(now - last[0].fired_at)
        if elapsed >= self.limits.cool_down:
            return ""
        key = _DIGEST.sub(r"\1", last[0].key)
        ago, limit = (
            str(span).removesuffix(", 0:00:00") for span in (elapsed, self.limits.cool_down)
        )
        return f"cool-down: {key} was fired {ago} ago, and {limit} must pass"

    def _refused_often(self, connection: sqlite3.Connection, firing: Firing) -> str:
        newest = _read(
            connection,
            "where kind = ? and basis = ? and state in ('DONE', 'FAILED') order by number desc"
            " limit ?",
            firing.kind, firing.basis, self.limits.max_refusals,
        )  # fmt: skip
        n_refused = sum(entry.outcome == "refused" for entry in newest)
        if not firing.basis or n_refused < self.limits.max_refusals:
            return ""
        return (
            f"refused {n_refused} times in a row for the same data, model and code: change one of"
            " these first"
        )

    def _is_silent(self, entry: Entry, now: datetime) -> bool:
        return entry.beat_at is None or abs(now - entry.beat_at) > self.limits.lease

    def _time(self) -> datetime:
        now = self._clock()
        if now.tzinfo is None:
            raise InvalidArgumentError(f"the clock says {now}, without a time zone: give it one")
        return now.astimezone(UTC)

    @contextmanager
    def _transaction(self, *, makes: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold the ledger alone, from the first read to the last write.

        It's opened anew each time: a connection that's kept would go on writing to a file that was
        removed, and nobody would notice.
        """
        mode = "rwc" if makes else "rw"
        try:
            opened = sqlite3.connect(
                f"{self.file.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=self._wait_s,
                isolation_level=None,
            )
            with closing(opened) as connection:
                connection.row_factory = sqlite3.Row
                connection.execute("begin immediate")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.execute("commit")
        except sqlite3.DatabaseError as exc:
            raise self._explained(exc) from exc

    def _explained(self, exc: sqlite3.DatabaseError) -> MlopsMiniError:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        what = f"the ledger {self.file}"
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return UnavailableError(
                f"{what} was held by others for {self._wait_s:g} s: try again, or look who holds it"
            )
        if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            return ResourceExhaustedError(
                f"{what} can't be written ({exc}), and nothing has changed: make room there"
            )
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return DataIntegrityError(
                f"{what} is no ledger any more ({exc}): put it back from a copy, or move it away;"
                " runs keep their ids in a new one"
            )
        if code == sqlite3.SQLITE_CANTOPEN and not self.file.exists():
            return NotFoundError(
                f"{what} is gone: put it back from a copy, or begin a new one, in which the same"
                " firings get the same run ids"
            )
        return FailedPreconditionError(f"{what} can't be used ({exc}): mend that")


class Claim:
    """A firing that this worker runs, as long as it says so.

    Attributes:
        entry: Its line as it was when it was claimed.
    """

    def __init__(self, ledger: Ledger, entry: Entry) -> None:
        """Made by `Ledger.claim`."""
        self.entry = entry
        self._ledger = ledger

    @property
    def trigger(self) -> dict[str, Any]:
        """What `Runner.run` takes as `trigger`: kind, key and reason."""
        return {"kind": self.entry.kind, "key": self.entry.key, "reason": self.entry.reason}

    def beat(self) -> None:
        """Say that this worker is alive, and make sure that it's still the owner.

        Call it now and then, see `kept`, and always right before a side effect.

        Raises:
            AbortedError: Somebody else has taken over: stop, and change nothing any more.
        """
        self._update("beat_at = ?", _text(self._ledger._time()))  # noqa: SLF001 - one concept

    def finish(self, outcome: str) -> None:
        """Write down that the run has ended, and how.

        Args:
            outcome: The gate's verdict, such as `blessed`; `refused` counts for the breaker.

        Raises:
            AbortedError: As `beat` raises it.
        """
        self._end("DONE", outcome)

    def fail(self, error: str) -> None:
        """Write down that the run has failed.

        Raises:
            AbortedError: As `beat` raises it.
        """
        self._end("FAILED", error)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Beat three times per lease, from another thread, while a block works.

        It doesn't tell whether the claim was lost meanwhile: `beat` does, before side effects.
        """
        is_over = threading.Event()

        def keep() -> None:
            while not is_over.wait(self._ledger.limits.lease.total_seconds() / 3):
                try:
                    self.beat()
                except UnavailableError as exc:
                    logger.warning("a beat is late: %s", exc)
                except MlopsMiniError as exc:
                    logger.warning("no longer beating: %s", exc)
                    return

        thread = threading.Thread(target=keep, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _end(self, state: State, outcome: str) -> None:
        now = _text(self._ledger._time())  # noqa: SLF001 - one concept
        self._update(f"state = '{state}', ended_at = ?, outcome = ?", now, outcome)
        logger.info("ended: key=%s state=%s outcome=%s", self.entry.key, state, outcome)

    def _update(self, change: str, *values: str) -> None:
        with self._ledger._transaction() as connection:  # noqa: SLF001 - one concept
            cursor = connection.execute(
                f"update firing set {change}"  # noqa: S608 - our own words
                " where key = ? and claims = ? and owner_pid = ? and state = 'RUNNING'",
                (*values, self.entry.key, self.entry.claims, self.entry.owner_pid),
            )
            if cursor.rowcount:
                return
            now = _read(connection, "where key = ?", self.entry.key)
        what = f"{now[0].state}, claimed {now[0].claims} times" if now else "not there"
        raise AbortedError(
            f"this worker (pid {os.getpid()}) no longer owns {self.entry.key}, which is {what} by"
            " now: stop, and leave the rest to whoever has it"
        )


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="microseconds")


def _read(connection: sqlite3.Connection, rest: str, *values: object) -> list[Entry]:
    rows = connection.execute(f"select * from firing {rest}", values)  # noqa: S608 - our own words
    return [_entry(dict(row)) for row in rows]


def _entry(row: dict[str, Any]) -> Entry:
    times = {
        name: row[name] and datetime.fromisoformat(row[name])
        for name in ("fired_at", "beat_at", "ended_at")
    }
    return Entry(**row | times | {"reason": json.loads(row["reason"])})
