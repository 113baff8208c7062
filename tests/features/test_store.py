import math
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from mlops_mini.features import events, offline, online
from mlops_mini.features.store import Store
from mlops_mini.flights import times
from tests.features.toys import HOUR_S, NOW_S, RECENT_NAMES, flight_event, same, weather_event

HERE = {"origin": "EWR", "carrier": "UA", "dest": "IAH"}
NOW = datetime.fromtimestamp(NOW_S, UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def n_1h(store, at=NOW):
    return store.read(**HERE, at=at).features["org_dep_n_1h"]


def test_a_new_store_knows_nothing(path):
    with Store(path) as store:
        reading = store.read(**HERE, at=NOW)

    assert store.as_of is reading.as_of is None
    assert reading.features["org_dep_n_1h"] == reading.features["org_overdue"] == 0
    assert math.isnan(reading.features["temp"])


def test_events_of_the_very_second_count(path):
    with Store(path) as store:
        n_new = store.apply([flight_event(), weather_event(NOW_S - HOUR_S)], up_to=NOW)

        assert n_new == 2
        assert store.read(**HERE, at=NOW).features["temp"] == 40.0
        assert n_1h(store) == 1
        assert n_1h(store, NOW - timedelta(seconds=1)) == 0


def test_a_reading_tells_how_much_the_store_knew(path):
    with Store(path) as store:
        store.apply([], up_to=NOW)

        assert store.as_of == NOW
        assert store.read(**HERE, at=NOW + HOUR).as_of == NOW
        assert store.read(**HERE, at=NOW - HOUR).as_of == NOW - HOUR


def test_a_duplicate_counts_once_in_one_batch_in_two_and_after_a_restart(path):
    event, observed = flight_event(delay_min=10), weather_event(NOW_S - HOUR_S)
    again = [event._replace(delay_min=90), observed._replace(observed={"temp": 99.0})]
    with Store(path) as store:
        assert store.apply([event, observed, *again], up_to=NOW) == 2
        assert store.apply(again, up_to=NOW) == 0
    with Store(path) as store:
        assert store.apply(again, up_to=NOW) == 0
        values = store.read(**HERE, at=NOW).features

    assert (values["org_dep_n_1h"], values["org_dep_mean_1h"], values["temp"]) == (1, 10, 40)


def test_an_event_that_comes_late_counts_at_its_time(path):
    with Store(path) as store:
        store.apply([flight_event(flight_id=1, event_s=NOW_S)], up_to=NOW)
        store.apply([flight_event(flight_id=2, event_s=NOW_S - 2 * HOUR_S)], up_to=NOW)
        values = store.read(**HERE, at=NOW).features

    assert (values["org_dep_n_1h"], values["org_dep_n_3h"]) == (1, 2)


def test_an_event_that_comes_early_is_not_seen_before_its_time(path):
    with Store(path) as store:
        store.apply([flight_event("scheduled", event_s=NOW_S + HOUR_S)], up_to=NOW)

        overdue = [
            store.read(**HERE, at=NOW + hours * HOUR).features["org_overdue"] for hours in (0, 1, 4)
        ]

    assert overdue == [0, 1, 0]


def test_a_departure_without_a_delay_is_left_out_until_it_has_one(path):
    with Store(path) as store:
        assert store.apply([flight_event(delay_min=None)], up_to=NOW) == 0
        assert n_1h(store) == 0
        assert store.apply([flight_event("scheduled"), flight_event(delay_min=3)], up_to=NOW) == 2
        assert n_1h(store) == 1


def test_a_stream_in_two_parts_is_a_stream_in_one(tmp_path, march_stream):
    up_to = datetime(2013, 3, 3, 18, tzinfo=UTC)
    some = events.between(march_stream, None, up_to)
    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        one.apply(some, up_to=up_to)
        two.apply(some[:3000], up_to=up_to - 24 * HOUR)
        two.apply(some[3000:], up_to=up_to)

        for origin in ("EWR", "JFK", "LGA"):
            asked = {"origin": origin, "carrier": "DL", "dest": "ATL", "at": up_to}
            assert same(one.read(**asked).features, two.read(**asked).features)


def test_the_stream_does_not_go_back(path):
    with Store(path) as store:
        store.apply([flight_event()], up_to=NOW)
        store.apply([flight_event()], up_to=NOW - HOUR)  # the same batch once more

        assert store.as_of == NOW


def test_a_store_goes_on_where_it_was_closed(path):
    history = [
        flight_event(kind, flight_id=i, event_s=NOW_S - 1000 * i, delay_min=7 * i)
        for i in range(20)
        for kind in ("scheduled", "departure", "arrival")
    ]
    with Store(path) as store:
        store.apply([*history, weather_event(NOW_S - HOUR_S)], up_to=NOW)
        before = store.read(**HERE, at=NOW)

    with Store(path) as store:
        after = store.read(**HERE, at=NOW)

    assert before.as_of == after.as_of == NOW
    assert same(before.features, after.features)
    assert before.features["org_dep_n_3h"] == 11


def test_old_events_are_forgotten_and_what_would_need_them_is_refused(path):
    with Store(path) as store:
        for day in range(30):
            event = flight_event(flight_id=day, event_s=NOW_S + day * 24 * HOUR_S)
            store.apply([event], up_to=NOW + day * 24 * HOUR)

        assert n_1h(store, NOW + 29 * 24 * HOUR) == n_1h(store, NOW + 28 * 24 * HOUR) == 1
        with pytest.raises(FailedPreconditionError, match="can answer from"):
            n_1h(store, NOW + 20 * 24 * HOUR)
        assert store.apply([flight_event(flight_id=99)], up_to=NOW) == 0  # a month late
    with sqlite3.connect(path) as database:
        (n_rows,) = database.execute("SELECT count(*) FROM flight_events").fetchone()
    database.close()
    assert n_rows <= 4


def test_a_closed_store_is_down(path):
    store = Store(path)
    store.close()

    with pytest.raises(UnavailableError, match=r"is closed: .* fallback model"):
        store.read(**HERE, at=NOW)
    with pytest.raises(UnavailableError, match="is closed"):
        store.apply([], up_to=NOW)


def test_a_second_process_may_not_hold_it_too(path):
    with Store(path), pytest.raises(UnavailableError, match="database is locked"):
        Store(path)
    with Store(path) as store:
        assert store.as_of is None


def test_threads_that_read_see_whole_batches(path):
    def counts():
        return {n_1h(store) for _ in range(200)}

    with Store(path) as store, ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(counts) for _ in range(3)]
        for batch in range(100):
            some = [flight_event(flight_id=10 * batch + i, event_s=NOW_S - i) for i in range(10)]
            store.apply(some, up_to=NOW)
        seen = set().union(*(reader.result() for reader in readers), {n_1h(store)})

    assert max(seen) == 1000
    assert all(count % 10 == 0 for count in seen)


def test_what_is_no_database_is_not_opened(path):
    path.write_text("departures\n" * 100)

    with pytest.raises(UnavailableError, match=r"store\.sqlite does not answer \(file is not a"):
        Store(path)
    with pytest.raises(UnavailableError, match="unable to open"):
        Store(path.parent / "nowhere" / "store.sqlite")


def test_a_full_disk_applies_nothing(path):
    some = [flight_event(flight_id=i, event_s=NOW_S - i) for i in range(5000)]
    with Store(path) as store:
        store.apply(some[:10], up_to=NOW - HOUR)
        (n_pages,) = store._database.execute("PRAGMA page_count").fetchone()
        store._database.execute(f"PRAGMA max_page_count = {n_pages + 2}")

        with pytest.raises(UnavailableError, match=r"does not answer \(database or disk is full"):
            store.apply(some[10:], up_to=NOW)

        assert store.as_of == NOW - HOUR
        assert n_1h(store) == 10
        store._database.execute("PRAGMA max_page_count = 100000")
        assert store.apply(some, up_to=NOW) == 4990
        assert n_1h(store) == 3600


def test_instants_without_a_zone_are_refused(path):
    naive = NOW.replace(tzinfo=None)
    with Store(path) as store:
        with pytest.raises(InvalidArgumentError, match="has no time zone"):
            store.read(**HERE, at=naive)
        with pytest.raises(InvalidArgumentError, match="has no time zone"):
            store.apply([], up_to=naive)


FEEDER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
import pandas as pd
from mlops_mini.flights import datasets
from mlops_mini.features import events
from mlops_mini.features.store import Store

flights = datasets.flights("2013-03")
stream = events.stream(events.from_flights(flights[flights["day"].between(6, 9)]))
with Store(Path(sys.argv[1])) as store:
    at = store.as_of or pd.Timestamp("2013-03-06", tz="UTC").to_pydatetime()
    for _ in range(int(sys.argv[2])):
        at += timedelta(minutes=10)
        # Some of what comes was delivered before.
        store.apply(events.between(stream, at - timedelta(hours=1), at), up_to=at)
        print(at.isoformat(), flush=True)
    sys.stdin.read()
"""


def test_killed_mid_stream_three_times_it_ends_equal_to_offline(path, march):
    flights = march[march["day"].between(6, 9)]
    history = events.from_flights(flights)
    stream = events.stream(history)
    for n_batches in (150, 100, 37):
        command = [sys.executable, "-c", FEEDER, str(path), str(n_batches + 10)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as feeder:
            printed = [feeder.stdout.readline().strip() for _ in range(n_batches)]
            feeder.send_signal(signal.SIGKILL)
        assert feeder.returncode == -signal.SIGKILL
        with Store(path) as store:
            assert store.as_of >= datetime.fromisoformat(printed[-1])
    last = datetime(2013, 3, 9, tzinfo=UTC)
    due = times.scheduled_departure(flights) - times.HORIZON
    asked = flights[(due > last - 12 * HOUR) & (due <= last)]

    with Store(path) as store:
        # Killed late on the 7th or early on the 8th: the last hours lie within reach of it.
        assert datetime(2013, 3, 7, 20, tzinfo=UTC) < store.as_of < last
        store.apply(events.between(stream, store.as_of, last), up_to=last)
        online_rows = [online.compute(flight, store=store) for flight in asked.to_dict("records")]

    expected = offline.compute(asked, history=history)
    assert len(expected) > 500
    for found, row in zip(online_rows, expected.to_dict("records"), strict=True):
        assert same(*({name: values[name] for name in RECENT_NAMES} for values in (found, row)))
