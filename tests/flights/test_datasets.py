import json
import shutil
import subprocess
import sys
from zoneinfo import available_timezones

import pandas as pd
import pytest

from mlops_mini.data import integrity
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.flights import airports, datasets, times
from mlops_mini.flights.tables import CALENDAR
from mlops_mini.photos import datasets as photos
from tests.flight_data import periods

FLIGHTS_PER_MONTH = {
    1: 27004, 2: 24951, 3: 28834, 4: 28330, 5: 28796, 6: 28243,
    7: 29425, 8: 29327, 9: 27574, 10: 28889, 11: 27268, 12: 28135,
}  # fmt: skip
BASE_RATES = {
    1: 0.227, 2: 0.229, 3: 0.228, 4: 0.279, 5: 0.220, 6: 0.308,
    7: 0.315, 8: 0.238, 9: 0.132, 10: 0.168, 11: 0.174, 12: 0.326,
}  # fmt: skip


@pytest.fixture
def own_folder(tmp_path):
    """A user's folder with one month and no checksums."""
    source = datasets.data_folder()
    (tmp_path / "flights").mkdir()
    shutil.copy(source / "flights/2013-02.parquet", tmp_path / "flights/2013-02.parquet")
    return tmp_path


def test_each_month_has_its_flights_and_its_base_rate(year):
    known = year[year["arr_delay"].notna()]
    base_rates = (known["arr_delay"] > 15).groupby(known["month"]).mean()

    assert year.groupby("month").size().to_dict() == FLIGHTS_PER_MONTH
    assert base_rates.round(3).to_dict() == BASE_RATES


def test_planes_are_looked_up_without_losing_the_flights_of_unknown_ones(year):
    known = year["tailnum"].isin(datasets.planes()["tailnum"])
    joined = year.merge(datasets.planes(), how="left", on="tailnum", validate="many_to_one")

    assert (~known).sum() == 52_606
    assert len(joined) == len(year) == 336_776


def test_airports_that_the_source_lacks_have_a_zone_by_hand(year):
    caribbean = {"SJU": 5_819, "BQN": 896, "STT": 522, "PSE": 365}
    flights = year[year["dest"].isin(caribbean)]
    zones = airports.zones()

    assert flights["dest"].value_counts().to_dict() == caribbean
    assert {zones[code] for code in caribbean} == {"America/Puerto_Rico", "America/St_Thomas"}
    assert times.derive_utc(flights, zones)["sched_arr_utc"].notna().all()


def test_committed_files_hold_the_contents_they_say():
    folder = datasets.data_folder()
    said = json.loads((folder / "contents.json").read_text())
    loaded = {
        f"flights/{month}.parquet": datasets.flights(month) for month in datasets.flight_months()
    }
    loaded |= {
        "weather.parquet": datasets.weather(),
        "planes.parquet": datasets.planes(),
        "carriers.parquet": datasets.carriers(),
    }
    sample = photos.fashion_mnist()
    images = {name: getattr(sample, name) for name in sample.__slots__}

    digests = {name: integrity.contents_digest(table) for name, table in loaded.items()}
    digests["fashion_mnist.npz"] = integrity.contents_digest(images)

    assert digests == said


def test_real_defects_are_still_in(year):
    weather = datasets.weather()

    assert weather["wind_speed"].nlargest(2).round(2).tolist() == [1048.36, 42.58]
    assert weather["time_hour"].max() == pd.Timestamp("2013-12-30T23:00Z")
    assert year["arr_delay"].isna().sum() == 8_255 + 1_175
    assert year["tailnum"].isna().sum() == 2_512
    assert year["dep_delay"].max() == 1301
    assert set(year["flight_id"]) == set(range(336_776))


def test_weeks_hold_each_flight_of_the_year_once(year):
    weeks = [datasets.flights(week) for week in periods("2013-W00", "2013-W52")]
    labeled = [week["arr_delay"].notna().sum() for week in weeks]

    assert sorted(pd.concat(weeks)["flight_id"]) == list(range(336_776))
    assert sum(labeled[:5]) == 29_695
    assert sum(labeled[5:52]) == 296_892
    assert labeled[52] == 759


def test_a_week_over_two_months_has_flights_of_both():
    assert set(datasets.flights("2013-W12")["month"]) == {3, 4}


def test_airports_all_have_a_zone(year):
    zones = airports.zones()

    assert set(zones) == set(year["origin"]) | set(year["dest"])
    assert len(zones) == 107
    assert set(zones.values()) < available_timezones()


def test_finds_the_folder_by_argument_then_environment_then_repository(own_folder, monkeypatch):
    assert len(datasets.flight_months()) == 12

    monkeypatch.setenv("MLOPS_MINI_DATA", str(own_folder))

    assert datasets.flight_months() == [CALENDAR.period("2013-02")]
    assert datasets.data_folder(own_folder / "flights") == own_folder / "flights"


def test_names_a_missing_folder_and_the_ways_out(tmp_path):
    with pytest.raises(
        NotFoundError, match=r"MLOPS_MINI_DATA.*`python -m tools.rebuild_data`"
    ) as error:
        datasets.flights("2013-01", folder=tmp_path / "nowhere")

    assert str(tmp_path / "nowhere") in str(error.value)


def test_names_a_missing_month_and_those_there(tmp_path):
    with pytest.raises(
        NotFoundError, match=r"no flights of 2014-01 .* 2013-01 to 2013-12 \(12 months\)"
    ):
        datasets.flights("2014-01")
    with pytest.raises(NotFoundError, match="there is no month at all"):
        datasets.flights("2013-01", folder=tmp_path)


def test_a_week_needs_all_its_months(own_folder):
    assert len(datasets.flights("2013-W05", folder=own_folder)) > 6_000
    with pytest.raises(NotFoundError, match="no flights of 2013-03"):
        datasets.flights("2013-W08", folder=own_folder)


def test_refuses_a_text_that_is_no_period():
    with pytest.raises(InvalidArgumentError, match="is not a period"):
        datasets.flights("March")


def test_loads_a_folder_without_checksums(own_folder):
    assert len(datasets.flights("2013-02", folder=own_folder)) == FLIGHTS_PER_MONTH[2]


def test_counts_what_is_there(own_folder):
    assert datasets.count_rows(folder=own_folder) == {
        "flights/2013-02.parquet": FLIGHTS_PER_MONTH[2]
    }


def test_refuses_a_file_that_is_not_the_listed_one(own_folder):
    shutil.copy(datasets.data_folder() / "checksums.txt", own_folder)
    with (own_folder / "flights/2013-02.parquet").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(DataIntegrityError, match="has SHA-256"):
        datasets.flights("2013-02", folder=own_folder)


def test_refuses_a_week_without_flights(own_folder):
    path = own_folder / "flights/2013-02.parquet"
    flights = pd.read_parquet(path)
    flights[flights["day"] < 3].to_parquet(path, index=False)

    with pytest.raises(DataIntegrityError, match="no flights of 2013-W06"):
        datasets.flights("2013-W06", folder=own_folder)


def test_data_and_features_load_neither_tensorflow_nor_grpc():
    code = (
        "import sys\n"
        "from mlops_mini.data import integrity, periods, rules, table_files\n"
        "from mlops_mini.flights import datasets, features, row_rules, tables, times\n"
        "from mlops_mini.features import offline, online\n"
        "heavy = {'tensorflow', 'keras', 'grpc', 'pandera', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
