"""Local clock times become instants in one way, whatever they're written in."""

from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from mlops_mini.data import local_times
from mlops_mini.errors import InvalidArgumentError

BERLIN = "Europe/Berlin"
EVERY_HALF_HOUR = pd.Series(pd.date_range("2026-01-01", "2026-12-31", freq="30min"))


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe"])
def test_gaps_and_overlaps_are_read_as_zoneinfo_reads_them(zone):
    clocks = EVERY_HALF_HOUR
    if zone == "Australia/Lord_Howe":  # moves its clocks by half an hour: see the next test
        clocks = clocks[clocks.dt.month.isin([1, 6, 12])]

    found = local_times.to_utc(clocks, zone)

    expected = [at.to_pydatetime().replace(tzinfo=ZoneInfo(zone)) for at in clocks]
    pd.testing.assert_series_equal(
        found, pd.Series(pd.to_datetime(expected, utc=True), clocks.index)
    )


@pytest.mark.parametrize(
    ("text", "written_as", "expected"),
    [
        ("2026-03-29 02:30", None, "2026-03-29 01:30"),  # skipped
        ("2026-10-25 02:30", None, "2026-10-25 00:30"),  # shown twice
        ("2026-07-01", None, "2026-06-30 22:00"),
        ("01.07.2026 12:00", "%d.%m.%Y %H:%M", "2026-07-01 10:00"),
        ("2026/07/01", "%Y/%m/%d", "2026-06-30 22:00"),
        ("yesterday", None, None),
        ("2026-07-01T12:00Z", None, None),
        ("2026-07-01T12:00+02:00", None, None),
        (None, None, None),
    ],
)
def test_texts_are_read_or_missing(text, written_as, expected):
    clocks = pd.Series([text, "2026-01-01"], index=[7, 9], name="at")

    found = local_times.to_utc(clocks, BERLIN, written_as=written_as)

    assert str(found.dtype) == "datetime64[ns, UTC]"
    assert found.index.tolist() == [7, 9]
    assert found.iloc[0] == pd.Timestamp(expected, tz="UTC") or (
        expected is None and found.isna()[7]
    )


def test_instants_and_unknown_zones_are_refused():
    with pytest.raises(InvalidArgumentError, match="need no conversion"):
        local_times.to_utc(EVERY_HALF_HOUR.dt.tz_localize("UTC"), BERLIN)
    with pytest.raises(InvalidArgumentError, match="no time zone 'Mars/Olympus'"):
        local_times.to_utc(EVERY_HALF_HOUR, "Mars/Olympus")
