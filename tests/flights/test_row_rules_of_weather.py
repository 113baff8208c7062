import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import DataIntegrityError
from mlops_mini.flights import datasets
from mlops_mini.flights.airports import NEW_YORK
from mlops_mini.flights.tables import CALENDAR
from tests.flight_data import periods, split_weather_rows


def of(weather, period):
    period = CALENDAR.period(period)
    return weather[(weather["time_hour"] >= period.start) & (weather["time_hour"] < period.end)]


@pytest.fixture(scope="module")
def weather():
    return datasets.weather()


@pytest.fixture(scope="module")
def july(weather):
    return of(weather, "2013-07")


@pytest.fixture(scope="module")
def splits(weather):
    return {
        str(month): split_weather_rows(of(weather, month), month)
        for month in periods("2013-01", "2013-12")
    }


def test_one_hour_of_the_year_is_quarantined(splits):
    quarantined = pd.concat([split.quarantined for split in splits.values()])

    assert sum(len(split.kept) for split in splits.values()) == 26_114
    row = quarantined.squeeze()
    assert (row["origin"], str(row["time_hour"])) == ("EWR", "2013-02-12 08:00:00+00:00")
    assert row["reason"] == "wind_speed: in_range(0, 100), found 1048.36058"


def test_a_failure_names_position_column_rule_and_value(weather, splits):
    failure = splits["2013-02"].failures.squeeze()

    assert (failure["column"], failure["rule"]) == ("wind_speed", "in_range(0, 100)")
    assert failure["value"] == "1048.36058"
    assert of(weather, "2013-02").iloc[failure["row"]]["wind_speed"] > 1000


def test_weeks_keep_the_same_rules(weather):
    weeks = periods("2013-W00", "2013-W51")
    found = [split_weather_rows(of(weather, week), week) for week in weeks]

    assert sum(len(split.quarantined) for split in found) == 1


def test_a_week_without_weather_is_refused(weather):
    with pytest.raises(DataIntegrityError, match="weather of 2013-W52 refused: no rows"):
        split_weather_rows(of(weather, "2013-W52"), "2013-W52")


def test_missing_gusts_and_pressures_are_fine(splits):
    kept = pd.concat([split.kept for split in splits.values()])
    names = {finding.name for split in splits.values() for finding in split.findings}

    assert kept["wind_gust"].isna().sum() == 20_777  # and the quarantined one
    assert kept["pressure"].isna().sum() == 2_729
    assert "many missing" not in names


def test_more_missing_pressures_than_usual_are_a_finding(july):
    half = july.assign(pressure=july["pressure"].where(np.arange(len(july)) % 2 == 0))

    split = split_weather_rows(half, "2013-07")

    assert [(finding.name, finding.column) for finding in split.findings[:1]] == [
        ("many missing", "pressure")
    ]
    assert "expected at most 35.0%" in split.findings[0].text


@pytest.mark.parametrize("column", ["pressure", "wind_gust", "temp", "origin", "time_hour"])
def test_a_wholly_empty_column_refuses_the_partition(july, column):
    with pytest.raises(DataIntegrityError, match=f"column '{column}' is wholly empty"):
        split_weather_rows(july.assign(**{column: None}), "2013-07")


def test_weather_that_ends_early_is_stale(splits):
    stale = {
        month: [finding.text for finding in split.findings if finding.name == "stale"]
        for month, split in splits.items()
    }

    assert [month for month, texts in stale.items() if texts] == ["2013-12"]
    assert stale["2013-12"] == [
        f"{origin}'s last hour is 29 h old at the end of 2013-12, and is used for at most 6 h"
        for origin in ("EWR", "JFK", "LGA")
    ]


def test_a_quarantined_hour_is_not_a_missing_one(splits):
    texts = [finding.text for finding in splits["2013-02"].findings]

    assert "EWR lacks 3 of 672 hours of 2013-02, at most 1 in a row" in texts


def test_the_empty_observation_is_a_finding_and_is_kept(splits):
    found = {
        (month, finding.text)
        for month, split in splits.items()
        for finding in split.findings
        if finding.name == "empty observation"
    }

    hour = "2013-08-22 13:00:00+00:00"
    assert found == {("2013-08", f"EWR at {hour} has no temp, dewp and humid")}
    assert hour in set(splits["2013-08"].kept["time_hour"].astype(str))


def test_the_hour_that_is_there_twice_by_local_time_is_kept(weather, splits):
    local = ["origin", "year", "month", "day", "hour"]

    assert of(weather, "2013-11").duplicated(local).sum() == 3
    assert splits["2013-11"].quarantined.empty


def test_of_two_rows_of_an_hour_the_first_is_kept(july):
    again = july.iloc[[10]].assign(temp=70.0)

    split = split_weather_rows(pd.concat([july, again]), "2013-07")

    assert len(split.kept) == len(july)
    assert split.quarantined["temp"].tolist() == [70.0]
    assert (
        split.quarantined["reason"].item().startswith("origin, time_hour: comes only once, found")
    )


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("temp", 121.0, "temp: in_range(-30, 120), found 121.0"),
        ("visib", -1.0, "visib: in_range(0, 10), found -1.0"),
        ("humid", 100.5, "humid: in_range(0, 100), found 100.5"),
        ("origin", "BOS", "origin: isin(('EWR', 'JFK', 'LGA')), found BOS"),
        ("hour", 5.0, "year, month, day, hour: is the local hour of time_hour, found"),
        (
            "time_hour",
            pd.Timestamp("2013-07-05T04:30Z"),
            "time_hour: is a full hour, found 2013-07-05 04:30",
        ),
    ],
)
def test_a_reason_names_column_rule_and_value(july, column, value, reason):
    row = july.index[100]
    changed = july.astype({"hour": float})
    changed.loc[row, column] = value

    split = split_weather_rows(changed, "2013-07")

    assert split.quarantined.index.tolist() == [row]
    assert reason in split.quarantined["reason"].item()


def test_hours_of_another_month_are_quarantined(weather, july):
    august = of(weather, "2013-08").head(3)

    split = split_weather_rows(pd.concat([july, august]), "2013-07")

    assert len(split.quarantined) == 3
    assert split.quarantined["reason"].str.startswith("time_hour: is in 2013-07, found 2013").all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hour: hour.dt.tz_localize(None), r"datetime64\[ns\] without a time zone"),
        (lambda hour: hour.dt.tz_convert(NEW_YORK), "expected instants in UTC"),
        (lambda hour: hour.astype(str), "'time_hour' is object, expected instants in UTC"),
    ],
)
def test_instants_must_be_in_utc(july, change, message):
    with pytest.raises(DataIntegrityError, match=message):
        split_weather_rows(july.assign(time_hour=change(july["time_hour"])), "2013-07")


def test_local_times_that_pass_for_utc_are_refused(july):
    local = july["time_hour"].dt.tz_convert(NEW_YORK).dt.tz_localize(None).dt.tz_localize("UTC")

    with pytest.raises(DataIntegrityError, match="is the local hour of time_hour"):
        split_weather_rows(july.assign(time_hour=local), "2013-07")


UNITS = {
    "temperatures in Celsius": (
        lambda rows: {"temp": (rows.temp - 32) / 1.8, "dewp": (rows.dewp - 32) / 1.8},
        "temp, dewp, humid",
    ),
    "temperature alone in Celsius": (
        lambda rows: {"temp": (rows.temp - 32) / 1.8},
        "temp, dewp, humid",
    ),
    "humidity from 0 to 1": (lambda rows: {"humid": rows.humid / 100}, "temp, dewp, humid"),
    "winds in km/h": (
        lambda rows: {"wind_speed": rows.wind_speed * 1.609, "wind_gust": rows.wind_gust * 1.609},
        "wind_speed",
    ),
    "winds in m/s": (
        lambda rows: {"wind_speed": rows.wind_speed * 0.447, "wind_gust": rows.wind_gust * 0.447},
        "wind_gust",
    ),
    "winds in knots": (lambda rows: {"wind_speed": rows.wind_speed / 1.15078}, "wind_speed"),
    "gusts alone in km/h": (lambda rows: {"wind_gust": rows.wind_gust * 1.609}, "wind_gust"),
    "precipitation in mm": (lambda rows: {"precip": rows.precip * 25.4}, "precip"),
    "visibility in km": (lambda rows: {"visib": rows.visib * 1.609}, "visib: in_range"),
    "pressure in inches": (lambda rows: {"pressure": rows.pressure / 33.86}, "pressure: in_range"),
}


@pytest.mark.parametrize("month", ["2013-01", "2013-07", "2013-W12"])
@pytest.mark.parametrize("unit", UNITS)
def test_another_unit_refuses_the_partition(weather, month, unit):
    convert, columns = UNITS[unit]
    rows = of(weather, month)

    with pytest.raises(DataIntegrityError, match=f"weather of {month} refused") as error:
        split_weather_rows(rows.assign(**convert(rows)), month)

    assert columns in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("month", ["2013-02", "2013-08"])
def test_another_unit_at_one_airport_refuses_the_partition(weather, month):
    rows = of(weather, month)
    is_ewr = rows["origin"] == "EWR"
    celsius = rows[["temp", "dewp"]].where(~is_ewr, (rows[["temp", "dewp"]] - 32) / 1.8)

    with pytest.raises(DataIntegrityError, match="in EWR, expected 0 to 1: another unit"):
        split_weather_rows(rows.assign(**celsius), month)


def test_everything_wrong_is_told_at_once(july):
    bad = july.drop(columns=["visib"]).assign(
        time_hour=july["time_hour"].dt.tz_localize(None), pressure=np.nan
    )

    with pytest.raises(DataIntegrityError) as error:
        split_weather_rows(bad, "2013-07")

    for part in ("['visib'] are missing", "without a time zone", "'pressure' is wholly empty"):
        assert part in str(error.value)


def test_an_extra_column_is_a_finding(july):
    split = split_weather_rows(july.assign(snow=0.0), "2013-07")

    assert split.findings[0].name == "extra column"
    assert split.findings[0].column == "snow"
    assert "snow" in split.kept.columns


def test_every_row_that_arrived_is_kept_or_quarantined(weather):
    february = of(weather, "2013-02")
    split = split_weather_rows(february, "2013-02")

    together = pd.concat([split.kept, split.quarantined.drop(columns="reason")]).sort_index()
    pd.testing.assert_frame_equal(together, february)


@pytest.mark.parametrize("column", ["origin", "time_hour"])
def test_a_few_hours_without_key_are_quarantined(july, column):
    split = split_weather_rows(
        july.head(50).assign(**{column: None}), "2013-07", max_quarantined_share=1.0
    )

    assert len(split.quarantined) == 50
    assert split.quarantined["reason"].str.contains(f"{column}: not_nullable").all()
