"""The feature store: what has lately happened, kept up to date while the model serves.

SQLite keeps what has arrived, memory the same in the form that reads need: a read takes 0.1 ms
and touches no file, and a store that was killed goes on where its last transaction ended.
"""

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_mini.errors import FailedPreconditionError, UnavailableError
from mlops_mini.features.events import FlightEvent, StreamEvent, WeatherEvent, epoch_s, lacks_delay
from mlops_mini.features.windows import RunningWindows, key
from mlops_mini.flights.definitions import LONGEST_WINDOW_S, WEATHER_OBSERVATION

_TABLES = """
CREATE TABLE IF NOT EXISTS flight_events (
    kind TEXT, flight_id INTEGER, event_s INTEGER, available_s INTEGER,
    origin TEXT, carrier TEXT, dest TEXT, delay_min INTEGER,
    PRIMARY KEY (kind, flight_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS weather_events (
    origin TEXT, event_s INTEGER, available_s INTEGER, observed TEXT,
    PRIMARY KEY (origin, event_s)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (
    id INTEGER PRIMARY KEY CHECK (id = 1), as_of_s INTEGER, complete_from_s INTEGER);
"""

# What a read may need: events that are still in a window, an observation that is still alive.
_REACH_S = max(
    LONGEST_WINDOW_S, WEATHER_OBSERVATION.published_after_s + WEATHER_OBSERVATION.time_to_live_s
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Features as a store knew them.

    Attributes:
        features: Value by name, `definitions.WEATHER` and then `definitions.RECENT`; NaN for
            missing.
        as_of: Everything that was known by then is in them: the instant asked for, or that up to
            which events have been applied, if this is earlier. None if none ever were.
    """

    features: dict[str, float]
    as_of: datetime | None


class Store:
    """Recent events and the weather, in a SQLite file that one process at a time holds.

    It remembers the last two or three days of events; reads may go back one day from `as_of`.
    Threads may share it.
    """

    def __init__(self, path: Path) -> None:
        """Open a store, or make a new one.

        Args:
            path: The SQLite file.

        Raises:
            UnavailableError: It cannot be opened: another process holds it, or it is no database.
        """
        self._path = path
        self._lock = threading.Lock()
        self._windows = RunningWindows()
        self._is_open = True
        self._as_of_s: int | None = None
        self._complete_from_s: int | None = None
        with self._answering():
            self._database = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
        try:
            with self._answering():
                self._load()
        except UnavailableError:
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
                stands. One that becomes available only after a read is not seen by it. A departure
                or arrival without a delay is left out.
            up_to: Everything that has become available by then has now been applied. A store does
                not go back: if it is further already, as when a batch comes twice, it stays there.

        Returns:
            How many events were new.

        Raises:
            InvalidArgumentError: `up_to` has no time zone.
            UnavailableError: The database does not answer; nothing has been applied.
        """
        with self._lock:
            as_of_s = (
                epoch_s(up_to) if self._as_of_s is None else max(epoch_s(up_to), self._as_of_s)
            )
            new: dict[object, StreamEvent] = {}
            for event in events:
                is_in_reach = self._complete_from_s is None or event.event_s > self._complete_from_s
                if is_in_reach and event not in self._windows and not lacks_delay(event):
                    new.setdefault(key(event), event)
            forgets = as_of_s - (self._complete_from_s or 0) > 3 * _REACH_S
            complete_from_s = as_of_s - 2 * _REACH_S if forgets else self._complete_from_s
            with self._answering(), self._database:
                self._write(new.values(), as_of_s, complete_from_s)
            for event in new.values():
                self._windows.add(event)
            self._as_of_s, self._complete_from_s = as_of_s, complete_from_s
            if forgets and complete_from_s is not None:
                self._windows.forget(complete_from_s)
            return len(new)

    def read(
        self, *, origin: str, carrier: str, dest: str, at: datetime, without: int | None = None
    ) -> Reading:
        """Compute the features of a flight as of an instant.

        Args:
            origin: Airport of departure; of an unknown one, everything is missing or 0.
            carrier: Its carrier.
            dest: Airport of arrival.
            at: When the prediction is due, usually now.
            without: The flight's own `flight_id`: its own events do not count.

        Returns:
            The values, and how far the store knew what had happened.

        Raises:
            InvalidArgumentError: `at` has no time zone.
            FailedPreconditionError: `at` is so far back that events that it needs are forgotten.
            UnavailableError: The store is closed.
        """
        at_s = epoch_s(at)
        entities = {"origin": origin, "carrier": carrier, "dest": dest}
        with self._lock, self._answering():
            if self._complete_from_s is not None and at_s < self._complete_from_s + _REACH_S:
                earliest = datetime.fromtimestamp(self._complete_from_s + _REACH_S, UTC)
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
        self._database.executescript(_TABLES)
        row = self._database.execute("SELECT as_of_s, complete_from_s FROM stream").fetchone()
        self._as_of_s, self._complete_from_s = row or (None, None)
        for fields in self._database.execute("SELECT * FROM flight_events ORDER BY event_s"):
            self._windows.add(FlightEvent(*fields))
        for origin, event_s, available_s, text in self._database.execute(
            "SELECT * FROM weather_events ORDER BY event_s"
        ):
            observed = {name: math.nan if v is None else v for name, v in json.loads(text).items()}
            self._windows.add(WeatherEvent(origin, event_s, available_s, observed))

    def _write(
        self, events: Iterable[StreamEvent], as_of_s: int, complete_from_s: int | None
    ) -> None:
        flights, weather = [], []
        for event in events:
            if isinstance(event, FlightEvent):
                flights.append(event)
            else:
                observed = {n: None if math.isnan(v) else v for n, v in event.observed.items()}
                weather.append((*event[:-1], json.dumps(observed)))
        self._database.executemany(
            "INSERT INTO flight_events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", flights
        )
        self._database.executemany("INSERT INTO weather_events VALUES (?, ?, ?, ?)", weather)
        if complete_from_s != self._complete_from_s:
            for table in ("flight_events", "weather_events"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE event_s <= ?",  # noqa: S608
                    (complete_from_s,),
                )
        self._database.execute(
            "INSERT OR REPLACE INTO stream VALUES (1, ?, ?)", (as_of_s, complete_from_s)
        )
