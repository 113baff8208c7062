from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import airports, times


def flight(**values):
    usual = {
        "year": 2013, "month": 6, "day": 1, "sched_dep_time": 600, "sched_arr_time": 800,
        "dep_delay": 0.0, "arr_delay": 0.0, "dest": "ORD",
    }  # fmt: skip
    return pd.DataFrame([usual | values])


def test_the_year_keeps_the_limits_of_the_schedule(year):
    utc = times.derive_utc(year, airports.zones())

    assert utc["sched_dep_utc"].min() == pd.Timestamp("2013-01-01T10:15Z")
    assert utc["sched_dep_utc"].max() == pd.Timestamp("2014-01-01T04:59Z")
    assert utc["block_min"].between(50, 700).sum() == len(year)
    assert utc["block_min"].median() == 165
    assert utc["dep_utc"].isna().equals(year["dep_delay"].isna())
    assert utc["arr_utc"].isna().equals(year["arr_delay"].isna())


def test_label_comes_hours_after_the_prediction(year):
    utc = times.derive_utc(year, airports.zones())
    wait_h = (utc["arr_utc"] - utc["pred_utc"]).dropna() / pd.Timedelta(hours=1)

    assert wait_h.quantile([0.5, 0.9, 0.99, 0.999]).round(2).tolist() == [3.83, 6.98, 8.73, 12.05]
    assert round(wait_h.max(), 1) == 33.7


def test_crosses_zones_and_midnight():
    utc = times.derive_utc(
        flight(sched_dep_time=2330, sched_arr_time=25, arr_delay=-5.0), airports.zones()
    ).loc[0]

    assert utc["sched_dep_utc"] == pd.Timestamp("2013-06-02T03:30Z")
    assert utc["pred_utc"] == pd.Timestamp("2013-06-02T02:30Z")
    assert utc["block_min"] == 115
    assert utc["arr_utc"] == pd.Timestamp("2013-06-02T05:20Z")


def test_arizona_keeps_its_clocks_in_summer():
    winter = flight(month=1, dest="PHX", sched_dep_time=1000, sched_arr_time=1300)
    summer = winter.assign(month=7)

    blocks = [
        times.derive_utc(flights, airports.zones()).loc[0, "block_min"]
        for flights in (winter, summer)
    ]

    assert blocks == [300, 360]


def test_an_airport_without_a_zone_gives_missing():
    both = pd.concat([flight(dest="XXX"), flight()], ignore_index=True)

    utc = times.derive_utc(both, airports.zones())

    assert utc[["block_min", "sched_arr_utc", "arr_utc"]].isna().all(axis=1).tolist() == [
        True,
        False,
    ]
    assert utc[["sched_dep_utc", "dep_utc", "pred_utc"]].notna().all(axis=None)


def test_nothing_is_made_of_what_memory_holds_at_a_missing_delay():
    delays_min = pd.Series([1.0] * 50 + [np.nan] * 50)
    leftovers = [np.full(len(delays_min), 1e308) for _ in range(8)]
    del leftovers  # the memory that pandas is given next

    lasting = times._lasting(delays_min)

    assert lasting.isna().sum() == 50
    assert (lasting.dropna() == pd.Timedelta(minutes=1)).all()


def test_no_airport_at_all_has_a_zone():
    assert times.derive_utc(flight(), {}).loc[0].isna().sum() == 3


@pytest.mark.parametrize("hhmm", [100, 130, 200, 230, 300])
@pytest.mark.parametrize(("month", "day"), [(3, 10), (11, 3)])
def test_reads_local_times_as_zoneinfo_when_clocks_change(month, day, hhmm):
    local = datetime(2013, month, day, tzinfo=ZoneInfo("America/New_York"))
    local += timedelta(hours=hhmm // 100, minutes=hhmm % 100)

    instant = times.scheduled_departure(flight(month=month, day=day, sched_dep_time=hhmm)).loc[0]

    assert instant == pd.Timestamp(local.astimezone(ZoneInfo("UTC")))


def test_the_end_of_a_day_is_2400():
    instant = times.scheduled_departure(flight(sched_dep_time=2400)).loc[0]

    assert instant == pd.Timestamp("2013-06-02T04:00Z")


def test_keeps_the_index_and_the_frame_given():
    flights = flight().set_index(pd.Index([77]))
    before = flights.copy()

    assert times.derive_utc(flights, airports.zones()).index.tolist() == [77]
    pd.testing.assert_frame_equal(flights, before)


def test_refuses_a_date_that_does_not_exist():
    with pytest.raises(InvalidArgumentError, match=r"rules\.split"):
        times.scheduled_departure(flight(day=31))
