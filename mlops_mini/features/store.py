"""The feature store: what has lately happened, kept up to date while the model serves.

SQLite keeps what has arrived, memory the same in the form that reads need: a read takes 0.1 ms
and touches no file, and a store that was killed goes on where its last transaction ended.
"""

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_mini.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from mlops_mini.features.events import Happening, Observed, StreamEvent
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.instants import epoch_s
from mlops_mini.features.key_columns import Key
from mlops_mini.features.windows import RunningWindows

# Keys are texts or whole numbers, so their columns have no type and keep what they are given.
_TABLES = """
CREATE TABLE feature_set (description TEXT);
CREATE TABLE events (
    kind TEXT, id, event_s INTEGER, available_s INTEGER, entities TEXT, value INTEGER,
    PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE observations (
    series TEXT, entity, event_s INTEGER, available_s INTEGER, observed TEXT,
    PRIMARY KEY (series, entity, event_s)) WITHOUT ROWID;
CREATE TABLE stream (
    id INTEGER PRIMARY KEY CHECK (id = 1), as_of_s INTEGER, complete_from_s INTEGER);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Features as a store knew them.

    Attributes:
        features: Value by name, `FeatureSet.latest` and then `FeatureSet.windows`; NaN for missing.
        as_of: Everything that was known by then is in them: the instant asked for, or that up to
            which events have been applied, if this is earlier. None if none ever were.
    """

    features: dict[str, float]
    as_of: datetime | None


class Store:
    """Recent events and observations, in a SQLite file that one process at a time holds.

    It remembers two to three times as long as features look back, so reads may go back from `as_of`
    at least as long. Threads may share it.
    """

    def __init__(self, path: Path, feature_set: FeatureSet) -> None:
        """Open a store, or make a new one.

        Args:
            path: The SQLite file.
            feature_set: What is to be read from it.

        Raises:
            FailedPreconditionError: The file is of a feature set with other events or observations,
                or of an older version of the package.
            UnavailableError: It cannot be opened: another process holds it, or it is no database.
        """
        self._path = path
        self._feature_set = feature_set
        self._events = {event.kind: event for event in feature_set.events}
        self._series = {observation.table for observation in feature_set.observations}
        self._lock = threading.Lock()
        self._windows = RunningWindows(feature_set)
        self._is_open = True
        self._as_of_s: int | None = None
        self._complete_from_s: int | None = None
        with self._answering():
            self._database = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
        try:
            with self._answering():
                self._load()
        except (FailedPreconditionError, UnavailableError):
            self._database.close()
            raise

    @property
    def as_of(self) -> datetime | None:
        """Up to when events have been applied, UTC: where the stream goes on. None at first."""
        return None if self._as_of_s is None else datetime.fromtimestamp(self._as_of_s, UTC)

    def apply(self, events: Iterable[StreamEvent], *, up_to: datetime) -> int:
        """Apply events and move on in the stream, both or neither.

        Args:
            events: In any order. One that was applied before counts once: the first delivery
                stands. One that becomes available only after a read is not seen by it. An event
                that lacks the value of its kind, or that no feature uses, is left out.
            up_to: Everything that has become available by then has now been applied. A store does
                not go back: if it is further already, as when a batch comes twice, it stays there.

        Returns:
            How many events were new.

        Raises:
            InvalidArgumentError: `up_to` has no time zone, or an event a value that is no whole
                number; nothing has been applied.
            UnavailableError: The database does not answer; nothing has been applied.
        """
        with self._lock:
            as_of_s = (
                epoch_s(up_to) if self._as_of_s is None else max(epoch_s(up_to), self._as_of_s)
            )
            new: dict[object, StreamEvent] = {}
            for event in events:
                is_in_reach = self._complete_from_s is None or event.event_s > self._complete_from_s
                if is_in_reach and event not in self._windows and self._uses(event):
                    new.setdefault(event.identity, event)
            reach_s = self._feature_set.reach_s
            forgets = as_of_s - (self._complete_from_s or 0) > 3 * reach_s
            complete_from_s = as_of_s - 2 * reach_s if forgets else self._complete_from_s
            with self._answering(), self._database:
                self._write(new.values(), as_of_s, complete_from_s)
            for event in new.values():
                self._windows.add(event)
            self._as_of_s, self._complete_from_s = as_of_s, complete_from_s
            if forgets and complete_from_s is not None:
                self._windows.forget(complete_from_s)
            return len(new)

    def read(
        self, entities: Mapping[str, Key | None], *, at: datetime, without: Key | None = None
    ) -> Reading:
        """Compute the features of an example as of an instant.

        Args:
            entities: Its key by name, for each of `FeatureSet.entities`; of an unknown one, and of
                None, everything is missing or 0.
            at: When the prediction is due, usually now.
            without: The example's own key: its own events do not count.

        Returns:
            The values, and how far the store knew what had happened.

        Raises:
            InvalidArgumentError: `at` has no time zone, or a name is not among the entities.
            FailedPreconditionError: `at` is so far back that events that it needs are forgotten.
            UnavailableError: The store is closed.
        """
        at_s = epoch_s(at)
        missing_entities = [name for name in self._feature_set.entities if name not in entities]
        if missing_entities:
            raise InvalidArgumentError(
                f"features are read by {missing_entities} too; there are {sorted(entities)}"
            )
        reach_s = self._feature_set.reach_s
        with self._lock, self._answering():
            if self._complete_from_s is not None and at_s < self._complete_from_s + reach_s:
                earliest = datetime.fromtimestamp(self._complete_from_s + reach_s, UTC)
                raise FailedPreconditionError(
                    f"no features as of {at}: this store is at {self.as_of} and can answer from"
                    f" {earliest} on; compute older ones offline, or replay into a new store"
                )
            as_of_s = None if self._as_of_s is None else min(self._as_of_s, at_s)
            return Reading(
                features=self._windows.read(entities, at_s, without=without),
                as_of=None if as_of_s is None else datetime.fromtimestamp(as_of_s, UTC),
            )

    def close(self) -> None:
        """Close the file; afterwards the store is down."""
        with self._lock:
            self._is_open = False
            self._database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn SQLite's errors, and a store that is closed, into ours."""
        advice = "predict without recent features, with a fallback model trained for that"
        if not self._is_open:
            raise UnavailableError(f"feature store {self._path} is closed: open it, or {advice}")
        try:
            yield
        except sqlite3.Error as exc:
            raise UnavailableError(
                f"feature store {self._path} does not answer ({exc}): {advice}"
            ) from exc

    def _load(self) -> None:
        """Hold the file, and bring into memory what it remembers."""
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._refuse_another_feature_set()
        row = self._database.execute("SELECT as_of_s, complete_from_s FROM stream").fetchone()
        self._as_of_s, self._complete_from_s = row or (None, None)
        for fields in self._database.execute("SELECT * FROM events ORDER BY event_s"):
            entities = tuple(json.loads(fields[4]))
            self._windows.add(Happening(*fields)._replace(entities=entities))
        for fields in self._database.execute("SELECT * FROM observations ORDER BY event_s"):
            stored = json.loads(fields[4])
            numbers = {name: math.nan if v is None else v for name, v in stored.items()}
            self._windows.add(Observed(*fields)._replace(numbers=numbers))

    def _refuse_another_feature_set(self) -> None:
        """Make the tables of a new file; of an old one, read for which features it was made."""
        names = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master")}
        description = _description(self._feature_set)
        if not names:
            with self._database:
                self._database.executescript(f"BEGIN; {_TABLES}")
                self._database.execute("INSERT INTO feature_set VALUES (?)", (description,))
            return
        way_out = "replay the stream into a store in a new file"
        if "feature_set" not in names:
            raise FailedPreconditionError(
                f"{self._path} is no feature store of this version, it has the tables"
                f" {sorted(names)}: {way_out}"
            )
        (found,) = self._database.execute("SELECT description FROM feature_set").fetchone()
        if found != description:
            raise FailedPreconditionError(
                f"{self._path} was made for other features: it holds {found}, and these features"
                f" need {description}; {way_out}"
            )

    def _uses(self, event: StreamEvent) -> bool:
        """Tell whether a feature uses an event: what lacks its value is left out offline, too."""
        if isinstance(event, Observed):
            return event.table in self._series
        if event.kind not in self._events:
            return False
        if len(event.entities) != len(self._feature_set.entities):
            raise InvalidArgumentError(
                f"{event} has another number of entities than {self._feature_set.entities}: it is"
                " of the stream of other features"
            )
        if event.value is not None and event.value != int(event.value):
            raise InvalidArgumentError(
                f"{event} has a value that is no whole number: round it, or count in a smaller"
                " unit, such as tenths of a degree"
            )
        return event.value is not None or self._events[event.kind].value is None

    def _write(
        self, events: Iterable[StreamEvent], as_of_s: int, complete_from_s: int | None
    ) -> None:
        happened, observed = [], []
        for event in events:
            if isinstance(event, Happening):
                *instants, entities, value = event
                happened.append((*instants, json.dumps(entities), value))
            else:
                numbers = {name: None if math.isnan(v) else v for name, v in event.numbers.items()}
                observed.append((*event[:-1], json.dumps(numbers)))
        self._database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", happened)
        self._database.executemany("INSERT INTO observations VALUES (?, ?, ?, ?, ?)", observed)
        if complete_from_s != self._complete_from_s:
            for table in ("events", "observations"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE event_s <= ?",  # noqa: S608
                    (complete_from_s,),
                )
        self._database.execute(
            "INSERT OR REPLACE INTO stream VALUES (1, ?, ?)", (as_of_s, complete_from_s)
        )


def _description(feature_set: FeatureSet) -> str:
    """Say what a store must hold for these features: a line of JSON."""
    return json.dumps(
        {
            "of": feature_set.of,
            "entities": feature_set.entities,
            "events": {
                event.kind: [event.table, event.time, event.value, event.published_after_s]
                for event in feature_set.events
            },
            "observations": {
                observation.table: [
                    observation.entity,
                    observation.time,
                    observation.published_after_s,
                    *feature_set.columns_of(observation),
                ]
                for observation in feature_set.observations
            },
            "reach_s": feature_set.reach_s,
        }
    )
