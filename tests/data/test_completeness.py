import pandas as pd
import pytest

from mlops_mini.data import completeness
from mlops_mini.flights import datasets, tables
from tests.flight_data import periods

SERIES = tables.WEATHER.series


def hours_there(weather, period):
    return completeness.completeness(SERIES, "time_hour", weather, tables.CALENDAR.period(period))


def findings(weather, period):
    return completeness.findings(SERIES, "time_hour", weather, tables.CALENDAR.period(period))


@pytest.fixture(scope="module")
def weather():
    return datasets.weather()


@pytest.fixture(scope="module")
def months(weather):
    tables = {str(month): hours_there(weather, month) for month in periods("2013-01", "2013-12")}
    return pd.concat(tables, names=["month"])


def test_the_year_lacks_165_hours(months):
    assert months["n_expected"].sum() == 26_280
    assert months["n_missing"].sum() == 165
    holes = months["n_missing"].groupby("origin").sum() - 30  # 1 at the start, 29 at the end
    assert holes.to_dict() == {"EWR": 27, "JFK": 24, "LGA": 24}


def test_the_longest_hole_is_five_hours(months):
    longest = months["longest_gap"].drop("2013-12").groupby("month").max()

    assert longest.max() == 5
    assert longest[longest == 5].index.tolist() == ["2013-10", "2013-11"]


def test_weeks_add_up_to_the_year(weather):
    weeks = periods("2013-W00", "2013-W52")
    n_missing = [hours_there(weather, week)["n_missing"].sum() for week in weeks]

    assert sum(n_missing) == 165
    assert n_missing[52] == 72  # a day of three airports


def test_only_the_end_of_december_is_too_old(months):
    is_old = months["age_h"] > pd.Timedelta(SERIES.max_age) / pd.Timedelta(hours=1)

    assert months[is_old].index.get_level_values("month").unique().tolist() == ["2013-12"]
    assert months.loc["2013-12", "age_h"].tolist() == [29, 29, 29]


@pytest.mark.parametrize(("age_h", "is_stale"), [(6, False), (7, True)])
def test_six_hours_are_not_too_old(weather, age_h, is_stale):
    july = weather[weather["month"] == 7]
    shorter = july[july["time_hour"] <= july["time_hour"].max() - pd.Timedelta(hours=age_h)]

    names = [finding.name for finding in findings(shorter, "2013-07")]

    assert ("stale" in names) == is_stale
    assert "incomplete" in names


def test_an_airport_without_any_hour_is_incomplete_and_stale(weather):
    july = weather[(weather["month"] == 7) & (weather["origin"] != "JFK")]

    found = findings(july, "2013-07")

    assert {finding.name for finding in found if finding.text.startswith("JFK")} == {
        "incomplete",
        "stale",
    }
    assert "JFK lacks 744 of 744 hours of 2013-07, at most 744 in a row" in {
        finding.text for finding in found
    }


def test_complete_weather_has_no_finding(weather):
    may = weather[weather["month"] == 5]

    assert findings(may, "2013-05") == ()
