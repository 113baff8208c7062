from datetime import timedelta
from pathlib import Path

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.triggers import settings
from mlops_mini.triggers.settings import Settings

FULL = """
cool_down: 7d
lease: 5min
max_refusals: 4
schedule: {cron: "30 6 * * mon", zone: America/New_York, catches_up: true}
new_data: {min_rows: 50000}
degradation: {margin: 0.01, windows: 3}
drift: {threshold: 0.25, features: [mins, block]}
notify: {command: [notify-send, mlops-mini]}
"""


def test_all_of_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "triggers.yaml"
    file.write_text(FULL)

    read = settings.read(file)

    assert (read.limits.cool_down, read.limits.lease) == (timedelta(days=7), timedelta(minutes=5))
    assert (read.limits.max_refusals, read.schedule.catches_up) == (4, True)
    assert [when for _, when in read.rows()] == [
        "when somebody asks",
        "30 6 * * mon, America/New_York",
        "50,000 new rows",
        "worse by more than 0.01 over 3 windows",
        "PSI above 0.25 of mins, block",
    ]
    assert read.command == ("notify-send", "mlops-mini")


def test_without_a_file_only_somebody_who_asks_fires(tmp_path: Path) -> None:
    read = settings.read(tmp_path / "triggers.yaml")

    assert read == Settings()
    assert [when for _, when in read.rows()][1:] == ["never"] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colldown: 7d", r"nobody knows \['colldown'\]"),
        ("drift: {limit: 0.2}", r"nobody knows \['drift\.limit'\]"),
        ("cool_down: soon", "cool_down is 'soon', expected a duration"),
        ("schedule: {cron: '61 * * * *'}", "'61' is no minute"),
        ("schedule: {zone: UTC}", "0 fields"),
        ("schedule: {cron: '@daily', tz: UTC}", "holds no settings"),
        ("max_refusals: 0", "must be 0 or more"),
        ("[1, 2]", "holds no settings"),
        ("drift: 3", "holds no settings"),
        ("a: [", "holds no settings"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "triggers.yaml"
    file.write_text(text)

    with pytest.raises(InvalidArgumentError, match=f"triggers.yaml.*{message}"):
        settings.read(file)
