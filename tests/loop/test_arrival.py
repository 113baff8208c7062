"""What is delivered: in order, not at all, twice, broken, late, changed, or in other units."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import tensors
from mlops_mini.data.partitions import INBOX
from mlops_mini.loop import arrival, world
from tests.tenants import made
from tests.tenants.sensors import READINGS, VISITS
from tests.tenants.weekly import WEEKLY

NOW = datetime(2026, 2, 1, tzinfo=UTC)
WEEKS = [WEEKLY.calendar.period(f"2026-W{number:02}") for number in range(4)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The sensors' world of four weeks."""
    folder = tmp_path_factory.mktemp("sensors")
    made.write_sensors(folder, months=("2026-01",))
    return world.World(WEEKLY, folder, WEEKS)


class Receiver:
    """A workspace into which weeks are delivered, checked and taken."""

    def __init__(self, workspace: Path, rows: world.World) -> None:
        self.workspace, self.rows = workspace, rows
        self.checked: dict[str, str] = {}

    def send(self, week, change=lambda rows: rows) -> None:
        for table in WEEKLY.tables:
            part = self.rows.partition(table, week)
            arrival.send(change(part) if table is READINGS else part, table, week, self.workspace)

    def receive(self) -> list[tuple[str, str]]:
        waiting = arrival.receive(WEEKLY, self.workspace, now=NOW)
        for name, by_period in arrival.newest(WEEKLY, self.workspace).items():
            for partition in by_period.values():
                if partition.key not in self.checked:
                    table = WEEKLY.by_name[name]
                    self.checked[partition.key] = arrival.check(WEEKLY, table, partition)
                    if not self.checked[partition.key]:
                        arrival.take(partition, table, self.workspace)
        return waiting

    @property
    def usable(self) -> list[str]:
        arrived = arrival.newest(WEEKLY, self.workspace)
        return [str(week) for week in arrival.usable(arrived, self.checked, WEEKS)]

    def taken(self, week) -> pd.DataFrame:
        return pd.read_parquet(self.workspace / arrival.DATA / READINGS.name / f"{week}.parquet")


@pytest.fixture
def receiver(tmp_path, rows):
    return Receiver(tmp_path, rows)


def test_what_arrives_in_order_is_taken(receiver):
    for week in WEEKS:
        receiver.send(week)
        receiver.receive()

    assert receiver.usable == [str(week) for week in WEEKS]
    assert len(receiver.taken(WEEKS[1])) == 7 * 24 * 4


def test_a_missing_week_ends_what_can_be_used_until_it_comes_late(receiver):
    for week in (WEEKS[0], WEEKS[2], WEEKS[3]):
        receiver.send(week)
    receiver.receive()

    assert receiver.usable == ["2026-W00"]
    receiver.send(WEEKS[1])
    receiver.receive()
    assert receiver.usable == [str(week) for week in WEEKS]


def test_a_week_that_comes_twice_changes_nothing(receiver):
    receiver.send(WEEKS[0])
    receiver.receive()
    before = dict(receiver.checked)
    receiver.send(WEEKS[0])
    receiver.send(WEEKS[0])  # while it still waits

    assert receiver.receive() == []
    assert receiver.checked == before


def test_a_corrupt_file_waits_and_the_next_delivery_replaces_it(receiver):
    receiver.send(WEEKS[0])
    inbox = receiver.workspace / arrival.ARRIVALS / READINGS.name / INBOX
    (file,) = inbox.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-100])

    ((table, why),) = receiver.receive()

    assert table == READINGS.name
    assert "its manifest says" in why
    assert receiver.usable == []
    receiver.send(WEEKS[0])
    assert receiver.receive() == []
    assert receiver.usable == ["2026-W00"]


def test_other_units_are_refused_as_a_whole_and_the_right_ones_taken_later(receiver):
    receiver.send(WEEKS[0], lambda rows: world.in_other_units(READINGS, rows))
    receiver.receive()

    (problem,) = filter(None, receiver.checked.values())
    assert "rows break a rule" in problem
    assert "temp_c: in_range(-20, 200), found " in problem
    assert receiver.usable == []
    receiver.send(WEEKS[0])
    receiver.receive()
    assert receiver.usable == ["2026-W00"]
    assert receiver.taken(WEEKS[0])["temp_c"].median() < 100


def test_a_week_that_changes_under_its_name_takes_the_place_of_what_was_there(receiver):
    receiver.send(WEEKS[0])
    receiver.receive()
    receiver.send(WEEKS[0], lambda rows: rows.assign(load=0.5))
    receiver.receive()

    assert set(receiver.taken(WEEKS[0])["load"]) == {0.5}
    by_period = arrival.newest(WEEKLY, receiver.workspace)[READINGS.name]
    assert by_period[WEEKS[0]].arrival == 2


def test_a_week_without_events_is_fine_and_one_without_examples_is_not(receiver, rows):
    arrival.send(rows.partition(VISITS, WEEKS[0]).head(0), VISITS, WEEKS[0], receiver.workspace)
    receiver.send(WEEKS[1], lambda rows: rows.head(0))
    receiver.receive()

    problems = {key.partition("@")[0]: why for key, why in receiver.checked.items()}
    assert problems["visits-2026-W00.parquet"] == ""
    assert "no rows" in problems["readings-2026-W01.parquet"]


def test_flights_in_kilometers_are_refused():
    from mlops_mini.flights.tables import FLIGHTS

    rows = pd.DataFrame({"distance": pd.Series([1400, 2475], dtype="int16")})

    assert world.in_other_units(FLIGHTS, rows)["distance"].tolist() == [2253, 3983]
    assert world.in_other_units(VISITS, rows) is rows


def test_images_have_no_other_unit():
    from mlops_mini.photos.tables import PHOTOS

    rows = pd.DataFrame({"photo": [7], "image": tensors.column(np.zeros((1, 28, 28), np.uint8))})

    assert world.in_other_units(PHOTOS, rows) is rows
