"""Wrong labels, people who label, and what labeling again would bring."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from mlops_mini.data_centric import labels, priorities
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.review.queue import Item, ReviewQueue

CLASSES = ("bag", "boot", "coat")


def noisy_items(share_wrong: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Issues of 1,200 items in three blobs, and whether each item's label is wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=1200)
    x = np.eye(3)[true] * 3 + rng.normal(size=(1200, 3))
    given = np.where(rng.random(1200) < share_wrong, (true + 1) % 3, true)
    p = cross_val_predict(LogisticRegression(), x, given, cv=3, method="predict_proba")
    return labels.find_issues(given, p, classes=CLASSES), given != true


def answers(**columns: object) -> pd.DataFrame:
    defaults = {"seconds": 2.0, "annotator": "ann", "kind": "recorded"}
    return pd.DataFrame({**defaults, **columns}, index=range(len(columns["item"])))  # type: ignore[arg-type]


def test_wrong_labels_come_first() -> None:
    issues, is_wrong = noisy_items(0.08)

    top = is_wrong[issues["item"].head(80)]
    assert top.mean() > 0.8
    assert issues["quality"].is_monotonic_increasing
    assert 0.5 < issues["is_flagged"].sum() / is_wrong.sum() < 3
    assert (issues["label"] != issues["suggested"]).head(50).all()


def test_a_class_that_never_occurs_is_no_problem() -> None:
    p = np.tile([0.9, 0.05, 0.05], (6, 1))
    p[3:] = [0.05, 0.05, 0.9]

    issues = labels.find_issues([0, 0, 2, 2, 2, 2], p, classes=CLASSES)

    assert issues.loc[0, ["item", "label", "suggested"]].tolist() == [2, "coat", "bag"]


@pytest.mark.parametrize(
    ("given", "p"),
    [
        ([0, 1], np.full((2, 2), 0.5)),
        ([0, 3], np.full((2, 3), 0.3)),
        ([0, np.nan], np.full((2, 3), 0.3)),
        ([0, 1], np.full((2, 3), np.nan)),
        ([1, 1], np.full((2, 3), 0.3)),
    ],
)
def test_labels_that_fit_no_probabilities_are_refused(given: list[float], p: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError):
        labels.find_issues(given, p, classes=CLASSES)


def test_a_few_answers_tell_how_many_labels_are_wrong() -> None:
    issues, is_wrong = noisy_items(0.08)
    true = np.array(CLASSES)[
        [
            CLASSES.index(x) - w
            for x, w in zip(issues.sort_values("item")["label"], is_wrong, strict=True)
        ]
    ]
    n_wrong = is_wrong[issues["item"].head(200)].sum()
    n_covered = 0
    for seed in range(40):
        asked = issues.head(200).sample(40, random_state=seed)["item"].to_numpy()
        gain = labels.relabeling_gain(issues, answers(item=asked, label=true[asked]), n_items=200)
        n_covered += gain.wrong_low <= n_wrong <= gain.wrong_high
        assert gain.kind == "recorded"
        assert gain.hours == pytest.approx(160 * 2 / 3600)

    assert n_covered >= 32  # 95% of 40 is 38; 32 are three standard deviations less


def test_the_gain_of_relabeling_needs_answers_to_those_items() -> None:
    issues, _ = noisy_items(0.08)
    first, last = issues["item"].iloc[0], issues["item"].iloc[-1]

    with pytest.raises(InvalidArgumentError, match="aren't among the first 100"):
        labels.relabeling_gain(issues, answers(item=[last], label=["bag"]), n_items=100)
    with pytest.raises(InvalidArgumentError, match="two answers"):
        labels.relabeling_gain(issues, answers(item=[first] * 2, label=["bag"] * 2), n_items=100)
    with pytest.raises(InvalidArgumentError, match="without answers"):
        labels.relabeling_gain(issues, answers(item=[], label=[]), n_items=100)


def test_answers_come_back_from_their_file(tmp_path: Path) -> None:
    given = answers(item=[3, 1, 3], label=["bag", "boot", "coat"], seconds=[1.5, np.nan, 0.0])

    labels.write_answers(tmp_path / "ann.csv", given, classes=CLASSES)

    read = labels.read_answers(tmp_path / "ann.csv", classes=CLASSES)
    pd.testing.assert_frame_equal(read, given[list(labels.COLUMNS)])


def test_a_labeling_session_becomes_answers_that_count_as_recorded(tmp_path: Path) -> None:
    now_s = 1_000_000.0
    said = [("1", "bag", "ann", 0), ("1", "boot", "ben", 1), ("2", "bag", "ann", 4)]
    said += [("3", "coat", "ann", 3_600), ("2", "bag", "ben", 3_690), ("3", "bag", "ben", 3_790)]
    with ReviewQueue(
        tmp_path / "q.sqlite", categories=CLASSES, undo_s=60, clock=lambda: now_s
    ) as queue:
        queue.add([Item(id=str(n), kind="human", n_people=2) for n in (1, 2, 3)])
        assert labels.answers_of(queue).empty
        for item, label, annotator, at_s in said:
            now_s = 1_000_000.0 + at_s
            queue.decide(item, label, annotator=annotator)
        now_s += 59  # the last answer can still be taken back

        session = labels.answers_of(queue)

    assert session["seconds"].fillna(-1).tolist() == [-1, -1, 4, -1, -1]
    labels.write_answers(tmp_path / "session.csv", session, classes=CLASSES)
    read = labels.read_answers(tmp_path / "session.csv", classes=CLASSES)
    assert read["item"].tolist() == [1, 1, 2, 3, 2]
    assert labels.agreement(read).loc[0, ["n", "agree", "kind"]].tolist() == [2, 0.5, "recorded"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,shoe,2,ann,recorded", "none of"),
        ("1,bag,-2,ann,recorded", "seconds"),
        ("1,bag,soon,ann,recorded", "seconds"),
        ("1,bag,2,ann,guessed", "kind"),
        ("1,bag,2,,recorded", "lacks"),
        ("1,,2,ann,recorded", "lacks"),
    ],
)
def test_a_bad_answer_is_named(tmp_path: Path, row: str, said: str) -> None:
    file = tmp_path / "answers.csv"
    file.write_text(f"item,label,seconds,annotator,kind\n0,bag,2,ann,recorded\n{row}\n")

    with pytest.raises(DataIntegrityError, match=f"answer 2 of .*{said}"):
        labels.read_answers(file, classes=CLASSES)


def test_no_file_is_announced_and_a_half_one_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match='kind "stand-in"'):
        labels.read_answers(tmp_path / "nobody.csv", classes=CLASSES)
    (tmp_path / "half.csv").write_text("item,label\n1,bag\n")
    with pytest.raises(DataIntegrityError, match="seconds"):
        labels.read_answers(tmp_path / "half.csv", classes=CLASSES)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataIntegrityError, match="no CSV file"):
        labels.read_answers(tmp_path / "empty.csv", classes=CLASSES)


def test_agreement_of_two_annotators_and_of_one_with_herself() -> None:
    given = answers(
        item=[1, 2, 3, 4, 1, 2, 1, 2, 3],
        label=["bag", "boot", "coat", "bag", "bag", "coat", "bag", "boot", "boot"],
        annotator=["ann"] * 6 + ["ben"] * 3,
    )

    table = labels.agreement(given).set_index(["first", "second"])

    assert table.loc[("ann", "ann"), ["n", "agree"]].tolist() == [2, 0.5]
    assert table.loc[("ann", "ben"), ["n", "agree"]].tolist() == [3, pytest.approx(2 / 3)]
    assert (table["low"] < table["agree"]).all()
    assert set(table["kind"]) == {"recorded"}


def test_annotators_who_never_overlap_are_told_so() -> None:
    apart = answers(item=[1, 2], label=["bag", "bag"], annotator=["ann", "ben"])

    with pytest.raises(InvalidArgumentError, match="no item in common"):
        labels.agreement(apart)


def test_a_pair_without_common_items_has_no_numbers_beside_one_that_has() -> None:
    given = answers(item=[1, 1, 2], label=["bag"] * 3, annotator=["ann", "ben", "cid"])

    table = labels.agreement(given).set_index(["first", "second"])

    assert table["n"].to_dict() == {("ann", "ben"): 1, ("ann", "cid"): 0, ("ben", "cid"): 0}
    assert np.isnan(table.loc[("ann", "ben"), "kappa"])  # one class only: chance explains it


def test_human_accuracy_carries_its_kind_into_the_table_of_priorities() -> None:
    examples = pd.DataFrame(
        {"light": ["dim", "dim", "day", "day"], "label": ["bag", "coat", "bag", "boot"]},
        index=[10, 11, 12, 13],
    )
    given = answers(item=[10, 11, 12, 12], label=["bag", "bag", "bag", "boot"], kind="stand-in")

    human = labels.human_accuracy(given, examples, ["light"], label="label")
    counts = priorities.count_slices(examples.assign(ok=True), ["light"], is_right="ok")
    table = priorities.prioritize(counts, human=human)

    assert human.counts["n"].to_dict() == {"light=day": 1, "light=dim": 2}
    assert set(table["human_kind"]) == {"stand-in"}
    mixed = pd.concat([given, given.assign(kind="recorded")])
    with pytest.raises(InvalidArgumentError, match="can't be mixed"):
        labels.human_accuracy(mixed, examples, ["light"], label="label")
    with pytest.raises(InvalidArgumentError, match="aren't in the examples"):
        labels.human_accuracy(answers(item=[99], label=["bag"]), examples, ["light"], label="label")
