"""A table whose label is one of several classes, and may be corrected later."""

from dataclasses import replace

import pandas as pd
import pytest

from mlops_mini import description
from mlops_mini.data.table import Table
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.photos.use_case import PHOTOS
from mlops_mini.pipeline import labels
from mlops_mini.use_case import Label, UseCase

TICKETS = Table(
    name="tickets",
    key=["ticket"],
    time="opened",
    columns={"ticket": "integer", "opened": "instant", "words": "number", "team": "text?"},
)
MOVED = Table(
    name="moved",
    key=["ticket", "at"],
    time="at",
    columns={"ticket": "integer", "at": "instant", "team": "text"},
)
TEAMS = ("billing", "network", "shop")
ROUTING = UseCase(
    "routing",
    tables=[TICKETS, MOVED],
    label=Label("team", classes=TEAMS, corrected_in="moved"),
    features=replace(
        PHOTOS.feature_set, of="tickets", key="ticket", time="opened", inputs=["words"], features=[]
    ),
    slices=["team"],
)
MARCH = ROUTING.calendar.period("2026-03")


def tickets(teams: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"ticket": range(len(teams)), "team": teams, "words": 5.0})


def test_a_label_is_the_number_of_its_class_in_a_column_of_its_own() -> None:
    read = labels.read(ROUTING, tickets(["shop", None, "billing"]))

    assert (ROUTING.label.column, ROUTING.label.n_classes) == ("team_index", 3)
    assert read.fillna(-1).tolist() == [2.0, -1.0, 0.0]
    assert Label("left").column == "left"


def test_a_label_of_no_class_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"team is 'sales' in 1 of 2 rows.*'billing'"):
        labels.read(ROUTING, tickets(["sales", "shop"]))


def test_the_last_correction_counts_and_the_others_stay() -> None:
    rows = tickets(["shop", "shop", "billing"])
    moved = pd.DataFrame(
        {
            "ticket": [1, 1, 99],
            "at": pd.to_datetime(["2026-03-05", "2026-03-04", "2026-03-06"], utc=True),
            "team": ["network", "billing", "shop"],
        }
    )

    corrected = labels.correct(ROUTING, rows, moved)

    assert corrected["team"].tolist() == ["shop", "network", "billing"]
    assert rows["team"].tolist() == ["shop", "shop", "billing"]
    assert labels.correct(ROUTING, rows, moved[:0])["team"].tolist() == rows["team"].tolist()


@pytest.mark.parametrize("to_do", ["learn", "judge"])
def test_a_class_without_a_row_is_named(to_do) -> None:
    read = labels.read(ROUTING, tickets(["shop", "shop", "billing"]))

    with pytest.raises(InvalidArgumentError, match=rf"never 'network' in 3 .* to {to_do} of it"):
        labels.check(ROUTING, read, [MARCH], to_do=to_do)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a"]}, r"classes are \['a'\]; name two or more"),
        ({"classes": ["a", "b", "a"]}, "each once"),
    ],
)
def test_refuses_classes_that_tell_nothing_apart(change, message) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Label("team", **change)


@pytest.mark.parametrize("corrected_in", ["nowhere", "tickets"])
def test_refuses_corrections_from_no_other_table(corrected_in) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"corrected in '{corrected_in}', which must"):
        replace(ROUTING, label=Label("team", classes=TEAMS, corrected_in=corrected_in))


def test_settings_are_for_a_training_of_ones_own() -> None:
    with pytest.raises(InvalidArgumentError, match=r"settings in 'how.json'.*`train` of your own"):
        replace(ROUTING, settings="how.json")


def test_the_summary_lists_the_classes() -> None:
    said = description.summary(ROUTING)

    assert "predicts the probability of each team (billing, network and shop)" in said
    assert "The team is known at opened." in said
