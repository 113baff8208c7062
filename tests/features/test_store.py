import math
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from mlops_mini.features import events, offline, online
from mlops_mini.features.events import Observed
from mlops_mini.features.store import Store
from tests.features.toys import (
    HERE,
    HOUR_S,
    JOBS,
    NOW_S,
    RECENT_NAMES,
    happened,
    happening,
    jobs,
    observed,
    same,
)

ROOT = Path(__file__).parents[2]
NOW = datetime.fromtimestamp(NOW_S, UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def n_1h(store, at=NOW):
    return store.read(HERE, at=at).features["line_n_1h"]


def test_a_new_store_knows_nothing(path):
    with Store(path, JOBS) as store:
        reading = store.read(HERE, at=NOW)

    assert store.as_of is reading.as_of is None
    assert reading.features["line_n_1h"] == reading.features["line_waiting"] == 0
    assert math.isnan(reading.features["temp_c"])


def test_events_of_the_very_second_count(path):
    with Store(path, JOBS) as store:
        n_new = store.apply([happening(), observed(NOW_S - HOUR_S)], up_to=NOW)

        assert n_new == 2
        assert store.read(HERE, at=NOW).features["temp_c"] == 40.0
        assert n_1h(store) == 1
        assert n_1h(store, NOW - timedelta(seconds=1)) == 0


def test_a_reading_tells_how_much_the_store_knew(path):
    with Store(path, JOBS) as store:
        store.apply([], up_to=NOW)

        assert store.as_of == NOW
        assert store.read(HERE, at=NOW + HOUR).as_of == NOW
        assert store.read(HERE, at=NOW - HOUR).as_of == NOW - HOUR


def test_a_duplicate_counts_once_in_one_batch_in_two_and_after_a_restart(path):
    event, first = happening(value=10), observed(NOW_S - HOUR_S)
    again = [event._replace(value=90), first._replace(numbers={"temp_c": 99.0})]
    with Store(path, JOBS) as store:
        assert store.apply([event, first, *again], up_to=NOW) == 2
        assert store.apply(again, up_to=NOW) == 0
    with Store(path, JOBS) as store:
        assert store.apply(again, up_to=NOW) == 0
        values = store.read(HERE, at=NOW).features

    assert (values["line_n_1h"], values["line_wait_1h"], values["temp_c"]) == (1, 10, 40)


def test_an_event_that_comes_late_counts_at_its_time(path):
    with Store(path, JOBS) as store:
        store.apply([happening(job_id=1, event_s=NOW_S)], up_to=NOW)
        store.apply([happening(job_id=2, event_s=NOW_S - 2 * HOUR_S)], up_to=NOW)
        values = store.read(HERE, at=NOW).features

    assert (values["line_n_1h"], values["line_n_3h"]) == (1, 2)


def test_an_event_that_comes_early_is_not_seen_before_its_time(path):
    with Store(path, JOBS) as store:
        store.apply([happening("planned", event_s=NOW_S + HOUR_S)], up_to=NOW)

        overdue = [
            store.read(HERE, at=NOW + hours * HOUR).features["line_waiting"] for hours in (0, 1, 4)
        ]

    assert overdue == [0, 1, 0]


def test_an_event_without_the_value_of_its_kind_is_left_out_until_it_has_one(path):
    with Store(path, JOBS) as store:
        assert store.apply([happening(value=None)], up_to=NOW) == 0
        assert n_1h(store) == 0
        assert store.apply([happening("planned"), happening(value=3)], up_to=NOW) == 2
        assert n_1h(store) == 1


def test_a_stream_in_two_parts_is_a_stream_in_one(tmp_path):
    stream = events.stream(JOBS, happened(jobs(2000)))
    some = events.between(stream, None, NOW)
    with Store(tmp_path / "one", JOBS) as one, Store(tmp_path / "two", JOBS) as two:
        one.apply(some, up_to=NOW)
        two.apply(some[:3000], up_to=NOW - 24 * HOUR)
        two.apply(some[3000:], up_to=NOW)

        for line in ("A", "B", "C"):
            asked = HERE | {"line": line}
            assert same(one.read(asked, at=NOW).features, two.read(asked, at=NOW).features)


def test_the_stream_does_not_go_back(path):
    with Store(path, JOBS) as store:
        store.apply([happening()], up_to=NOW)
        store.apply([happening()], up_to=NOW - HOUR)  # the same batch once more

        assert store.as_of == NOW


def test_a_store_goes_on_where_it_was_closed(path):
    history = [
        happening(kind, job_id=i, event_s=NOW_S - 1000 * i, value=7 * i)
        for i in range(20)
        for kind in ("planned", "started", "finished")
    ]
    with Store(path, JOBS) as store:
        store.apply([*history, observed(NOW_S - HOUR_S)], up_to=NOW)
        before = store.read(HERE, at=NOW)

    with Store(path, JOBS) as store:
        after = store.read(HERE, at=NOW)

    assert before.as_of == after.as_of == NOW
    assert same(before.features, after.features)
    assert before.features["line_n_3h"] == 11


def test_old_events_are_forgotten_and_what_would_need_them_is_refused(path):
    with Store(path, JOBS) as store:
        for day in range(30):
            event = happening(job_id=day, event_s=NOW_S + day * 24 * HOUR_S)
            store.apply([event], up_to=NOW + day * 24 * HOUR)

        assert n_1h(store, NOW + 29 * 24 * HOUR) == n_1h(store, NOW + 28 * 24 * HOUR) == 1
        with pytest.raises(FailedPreconditionError, match="can answer from"):
            n_1h(store, NOW + 20 * 24 * HOUR)
        assert store.apply([happening(job_id=99)], up_to=NOW) == 0  # a month late
    with sqlite3.connect(path) as database:
        (n_rows,) = database.execute("SELECT count(*) FROM events").fetchone()
    database.close()
    assert n_rows <= 4


def test_a_closed_store_is_down(path):
    store = Store(path, JOBS)
    store.close()

    with pytest.raises(UnavailableError, match=r"is closed: .* fallback model"):
        store.read(HERE, at=NOW)
    with pytest.raises(UnavailableError, match="is closed"):
        store.apply([], up_to=NOW)


def test_a_second_process_may_not_hold_it_too(path):
    with Store(path, JOBS), pytest.raises(UnavailableError, match="database is locked"):
        Store(path, JOBS)
    with Store(path, JOBS) as store:
        assert store.as_of is None


def test_threads_that_read_see_whole_batches(path):
    def counts():
        return {n_1h(store) for _ in range(200)}

    with Store(path, JOBS) as store, ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(counts) for _ in range(3)]
        for batch in range(100):
            some = [happening(job_id=10 * batch + i, event_s=NOW_S - i) for i in range(10)]
            store.apply(some, up_to=NOW)
        seen = set().union(*(reader.result() for reader in readers), {n_1h(store)})

    assert max(seen) == 1000
    assert all(count % 10 == 0 for count in seen)


def test_what_is_no_database_is_not_opened(path):
    path.write_text("departures\n" * 100)

    with pytest.raises(UnavailableError, match=r"store\.sqlite does not answer \(file is not a"):
        Store(path, JOBS)
    with pytest.raises(UnavailableError, match="unable to open"):
        Store(path.parent / "nowhere" / "store.sqlite", JOBS)


def test_a_full_disk_applies_nothing(path):
    some = [happening(job_id=i, event_s=NOW_S - i) for i in range(5000)]
    with Store(path, JOBS) as store:
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
    with Store(path, JOBS) as store:
        with pytest.raises(InvalidArgumentError, match="has no time zone"):
            store.read(HERE, at=naive)
        with pytest.raises(InvalidArgumentError, match="has no time zone"):
            store.apply([], up_to=naive)


FEEDER = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from mlops_mini.features import events
from mlops_mini.features.store import Store
from tests.features.toys import JOBS, happened, jobs

stream = events.stream(JOBS, happened(jobs(3000)))
with Store(Path(sys.argv[1]), JOBS) as store:
    at = store.as_of or datetime(2013, 3, 5, tzinfo=UTC)
    for _ in range(int(sys.argv[2])):
        at += timedelta(minutes=10)
        # Some of what comes was delivered before.
        store.apply(events.between(stream, at - timedelta(hours=1), at), up_to=at)
        print(at.isoformat(), flush=True)
    sys.stdin.read()
"""


def test_killed_mid_stream_three_times_it_ends_equal_to_offline(path):
    rows = jobs(3000)
    history = happened(rows)
    stream = events.stream(JOBS, history)
    for n_batches in (150, 100, 37):
        command = [sys.executable, "-c", FEEDER, str(path), str(n_batches + 10)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as feeder:
            printed = [feeder.stdout.readline().strip() for _ in range(n_batches)]
            feeder.send_signal(signal.SIGKILL)
        assert feeder.returncode == -signal.SIGKILL
        with Store(path, JOBS) as store:
            assert store.as_of >= datetime.fromisoformat(printed[-1])
    due = rows["planned_at"] - HOUR
    asked = rows[(due > NOW - 12 * HOUR) & (due <= NOW)]

    with Store(path, JOBS) as store:
        # Killed at last a day before: the last hours lie within reach of it.
        assert NOW - 25 * HOUR < store.as_of < NOW - 12 * HOUR
        store.apply(events.between(stream, store.as_of, NOW), up_to=NOW)
        online_rows = list(online.requests(asked, JOBS, store=store))

    expected = offline.compute(asked, JOBS, history=history)
    assert len(expected) > 200
    for found, row in zip(online_rows, expected.to_dict("records"), strict=True):
        assert same(*({name: values[name] for name in RECENT_NAMES} for values in (found, row)))


def test_a_file_for_other_events_or_observations_is_refused(path):
    with Store(path, JOBS) as store:
        store.apply([happening()], up_to=NOW)
    starts_only = replace(JOBS, features=JOBS.windows[:1])

    with pytest.raises(FailedPreconditionError, match=r"made for other features.*a new file"):
        Store(path, starts_only)

    # What no read needs may change: names, order, formulas, which window is how long.
    shuffled = replace(JOBS, due="0min", features=(*JOBS.windows, *JOBS.latest))
    with Store(path, shuffled) as store:
        assert n_1h(store) == 1


def test_a_file_of_an_older_version_is_refused_and_left_as_it_is(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE old_events (kind TEXT)")
        database.execute("INSERT INTO old_events VALUES ('started')")

    with pytest.raises(FailedPreconditionError, match=r"no feature store of this version.*old_ev"):
        Store(path, JOBS)

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM old_events").fetchall() == [("started",)]


def test_a_value_that_is_no_whole_number_is_refused_and_nothing_applied(path):
    with Store(path, JOBS) as store:
        with pytest.raises(InvalidArgumentError, match=r"no whole number.*tenths"):
            store.apply([happening(), happening(job_id=2, value=0.5)], up_to=NOW)

        assert store.as_of is None
        assert n_1h(store) == 0


def test_what_no_feature_uses_is_left_out_and_what_has_other_entities_refused(path):
    other = Observed("prices", "A", NOW_S, NOW_S, {"eur": 1.0})
    with Store(path, JOBS) as store:
        assert store.apply([happening("canceled"), other], up_to=NOW) == 0
        with pytest.raises(InvalidArgumentError, match="another number of entities"):
            store.apply([happening()._replace(entities=("A",))], up_to=NOW)
        with pytest.raises(InvalidArgumentError, match=r"\['team', 'product'\] too"):
            store.read({"line": "A"}, at=NOW)
