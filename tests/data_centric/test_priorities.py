"""Gap x share: the lecture's table, and what bad counts and thin slices do."""

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data_centric.priorities import Human, count_slices, prioritize, worst_slices
from mlops_mini.errors import InvalidArgumentError


def lecture(utterances: int) -> tuple[pd.DataFrame, Human]:
    """The speech example of the lecture, as if so many utterances had been labeled."""
    table = pd.DataFrame(
        {
            "clear speech": [0.94, 0.95, 0.60],
            "car noise": [0.89, 0.93, 0.04],
            "people noise": [0.87, 0.89, 0.30],
            "low bandwidth": [0.70, 0.70, 0.06],
        },
        index=["model", "human", "share"],
    ).T
    n = (table["share"] * utterances).round().astype(int)
    counts = {who: (table[who] * n).round().astype(int) for who in ("model", "human")}
    model = pd.DataFrame({"n": n, "n_right": counts["model"], "share": table["share"]})
    return model, Human(counts=pd.DataFrame({"n": n, "n_right": counts["human"]}), kind="published")


def test_the_lectures_table_comes_out() -> None:
    counts, human = lecture(100_000)

    table = prioritize(counts, human=human)

    points = (100 * table["room"]).round(2).to_dict()
    assert points == {
        "clear speech": 0.60, "people noise": 0.60, "car noise": 0.16, "low bandwidth": 0.0,
    }  # fmt: skip
    assert (100 * table["gap"]).round(1).to_dict() == {
        "clear speech": 1, "people noise": 2, "car noise": 4, "low bandwidth": 0,
    }  # fmt: skip
    assert set(table["human_kind"]) == {"published"}
    assert table["tie_group"].to_dict() == {
        "clear speech": 1, "people noise": 1, "car noise": 2, "low bandwidth": 3,
    }  # fmt: skip


def test_five_hundred_utterances_cannot_tell_the_lectures_rows_apart() -> None:
    counts, human = lecture(500)

    table = prioritize(counts, human=human)

    assert (table["gap_low"] < 0).all()
    assert (table["tie_group"] == 1).all()
    assert table["p_best"].max() < 0.6
    assert table["p_best"].sum() == pytest.approx(1)


def test_intervals_are_newcombes() -> None:
    # Newcombe 1998, table II: 56/70 against 48/80 gives .0524 to .3339 by method 10.
    counts = pd.DataFrame({"n": [80], "n_right": [48], "share": [1.0]}, index=["a"])
    human = Human(counts=pd.DataFrame({"n": [70], "n_right": [56]}, index=["a"]), kind="recorded")

    row = prioritize(counts, human=human).loc["a"]

    assert row["gap_low"] == pytest.approx(0.0524, abs=1e-4)
    assert row["gap_high"] == pytest.approx(0.3339, abs=1e-4)


def test_thin_slices_are_uncertain_and_unmeasured_ones_come_last() -> None:
    counts = pd.DataFrame(
        {"n": [2000, 2, 1, 0], "n_right": [1400, 1, 1, 0], "share": [0.9, 0.05, 0.03, 0.02]},
        index=["most", "two", "one", "none"],
    )
    people = pd.DataFrame({"n": [200, 2], "n_right": [190, 2]}, index=["most", "two"])

    table = prioritize(counts, human=Human(counts=people, kind="recorded"))

    assert list(table.index[:2]) == ["most", "two"]
    assert table.loc["two", "gap_low"] < 0 < table.loc["two", "gap_high"]
    for unmeasured in ("one", "none"):  # no human, no model
        assert table.loc[unmeasured, ["gap", "room", "p_best", "tie_group"]].isna().all()
    assert table["p_best"].sum() == pytest.approx(1)


def test_a_negative_gap_is_shown_and_gives_no_room() -> None:
    counts = pd.DataFrame({"n": [1000] * 2, "n_right": [890, 500], "share": 0.5}, index=["a", "b"])
    people = pd.DataFrame({"n": [1000] * 2, "n_right": [835, 900]}, index=["a", "b"])

    table = prioritize(counts, human=Human(counts=people, kind="published"))

    assert table.loc["a", "gap"] == pytest.approx(-0.055)
    assert table.loc["a", "room"] == 0


def test_perfect_model_and_perfect_people_still_have_an_interval() -> None:
    counts = pd.DataFrame({"n": [40], "n_right": [40], "share": [1.0]}, index=["a"])
    human = Human(counts=counts[["n", "n_right"]], kind="recorded")

    row = prioritize(counts, human=human).loc["a"]

    assert row["gap_low"] < 0 < row["gap_high"]


def test_without_people_the_error_is_the_gap() -> None:
    counts = pd.DataFrame({"n": [100], "n_right": [60], "share": [0.5]}, index=["tilted"])

    row = prioritize(counts).loc["tilted"]

    assert row["human_kind"] == "the label"
    assert row["room"] == pytest.approx(0.2)
    assert 0.3 < row["gap_low"] < 0.4 < row["gap_high"] < 0.5


def test_importance_and_ease_change_the_order_but_not_the_room() -> None:
    counts = pd.DataFrame(
        {"n": [1000, 1000], "n_right": [600, 800], "share": [0.5, 0.5]}, index=["a", "b"]
    )

    table = prioritize(counts, importance={"b": 3}, ease={"a": 0.5})

    assert list(table.index) == ["b", "a"]
    assert table["room"].round(3).tolist() == [0.1, 0.2]


def test_ties_share_the_probability_of_being_best() -> None:
    counts = pd.DataFrame({"n": [50] * 2, "n_right": [50, 50], "share": 0.5}, index=["a", "b"])

    table = prioritize(counts, ease={"a": 0, "b": 0})

    assert table["p_best"].tolist() == [0.5, 0.5]
    assert table["tie_group"].tolist() == [1, 1]


def test_overlapping_tags_and_missing_values_are_counted_as_they_are() -> None:
    rows = pd.DataFrame(
        {
            "is_dim": [True, True, False, False],
            "light": ["low", "low", None, "high"],
            "only": "same",
            "right": [True, None, False, True],
        }
    )

    counts = count_slices(rows, ["is_dim", "light", "only"], is_right="right")

    assert counts.loc["is_dim"].tolist() == [1, 1, 0.5]
    assert counts.loc["light=low"].tolist() == [1, 1, 0.5]
    assert counts.loc["light=high"].tolist() == [1, 1, 0.25]
    assert counts.loc["only=same"].tolist() == [3, 2, 1.0]
    assert counts["share"].sum() > 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share": 1.5}, "between 0 and 1"),
        ({"n_right": 11}, "between 0 and n"),
        ({"n_right": -1}, "between 0 and n"),
    ],
)
def test_impossible_counts_are_refused(change: dict[str, float], said: str) -> None:
    counts = pd.DataFrame({"n": [10], "n_right": [5], "share": [1.0]}, index=["a"])

    with pytest.raises(InvalidArgumentError, match=said):
        prioritize(counts.assign(**change))


def test_weights_of_unknown_slices_and_kinds_are_refused() -> None:
    counts = pd.DataFrame({"n": [10], "n_right": [5], "share": [1.0]}, index=["a"])

    with pytest.raises(InvalidArgumentError, match="typo"):
        prioritize(counts, importance={"typo": 2})
    with pytest.raises(InvalidArgumentError, match="ease must be between 0 and 1"):
        prioritize(counts, ease={"a": 2})
    with pytest.raises(InvalidArgumentError, match="stand-in"):
        Human(counts=counts, kind="guessed")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="no rows"):
        count_slices(pd.DataFrame({"a": [], "ok": []}), ["a"], is_right="ok")


def test_sliceline_finds_a_planted_intersection() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "light": rng.choice(["dim", "day"], 4000),
            "kind": rng.choice(["bag", "coat", "shirt"], 4000),
            "store": "the only one",
        }
    )
    is_planted = (rows["light"] == "dim") & (rows["kind"] == "coat")
    rows["wrong"] = rng.random(4000) < np.where(is_planted, 0.9, 0.1)

    worst = worst_slices(rows, ["light", "kind", "store"], loss="wrong")

    assert worst.loc[0, "slice"] == "light=dim & kind=coat"
    assert worst.loc[0, "n"] == is_planted.sum()


def test_sliceline_has_nothing_to_say_of_one_slice_or_no_error() -> None:
    rows = pd.DataFrame({"only": "same", "two": ["a", "b"] * 200, "wrong": 0.0})

    assert worst_slices(rows, ["only", "two"], loss="wrong").empty
    assert worst_slices(rows.assign(wrong=1.0), ["only"], loss="wrong").empty
    with pytest.raises(InvalidArgumentError, match="without a label"):
        worst_slices(rows.assign(wrong=np.nan), ["two"], loss="wrong")
