"""The review queue: who is given what, and that a decision counts once."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_mini.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from mlops_mini.review.queue import Item, Kind, ReviewQueue

CATEGORIES = ("bag", "coat", "shirt")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[ReviewQueue]:
    with ReviewQueue(
        tmp_path / "q.sqlite", categories=CATEGORIES, undo_s=60, claim_s=30, clock=clock
    ) as made:
        yield made


def _add(queue: ReviewQueue, *ids: str, kind: Kind = "human", **options: object) -> None:
    queue.add([Item(id=each, kind=kind, **options) for each in ids])


def _id(item: Item | None) -> str | None:
    return item.id if item else None


def test_items_come_in_order_and_one_person_keeps_theirs(queue) -> None:
    _add(queue, "1", "2")

    assert _id(queue.next_for("ann")) == "1"
    assert _id(queue.next_for("ann")) == "1"  # a reload
    assert _id(queue.next_for("bob")) == "2"
    assert queue.next_for("cat") is None


def test_who_went_away_loses_the_item_after_a_while(queue, clock) -> None:
    _add(queue, "1")
    queue.next_for("ann")
    clock.now_s += 31

    assert _id(queue.next_for("bob")) == "1"
    queue.decide("1", "bag", annotator="bob")
    with pytest.raises(AbortedError, match="somebody else has labeled 1"):
        queue.decide("1", "coat", annotator="ann")


def test_the_hint_is_shown_only_where_it_may_be(queue) -> None:
    for kind in ("hint", "shadow", "audit"):
        _add(queue, kind, kind=kind, answer="bag", score=0.8, model_version=2)

    shown = []
    for _ in range(3):
        item = queue.next_for("ann")
        shown.append((item.kind, item.answer, item.score))
        queue.decide(item.id, "bag", annotator="ann")

    assert shown == [("hint", "bag", 0.8), ("shadow", "", None), ("audit", "", None)]


def test_the_same_decision_twice_is_one_and_another_is_refused(queue, clock) -> None:
    _add(queue, "1")
    for _ in range(2):
        queue.decide("1", "bag", annotator="ann")

    with pytest.raises(AbortedError, match="you've labeled 1 as bag: undo that first"):
        queue.decide("1", "coat", annotator="ann")

    clock.now_s += 60
    assert [(each.item_id, each.label) for each in queue.outcomes()] == [("1", "bag")]
    queue.decide("1", "bag", annotator="ann")  # sent again, after a lost connection
    assert len(queue.outcomes()) == 1


def test_a_decision_is_final_after_its_time_for_an_undo(queue, clock) -> None:
    _add(queue, "1", "2")
    queue.decide("1", "bag", annotator="ann")
    clock.now_s += 59
    assert queue.outcomes() == []
    queue.decide("2", "coat", annotator="ann")
    clock.now_s += 2

    assert [each.item_id for each in queue.outcomes()] == ["1"]
    assert queue.progress("ann").n_undoable == 1
    assert queue.undo("ann") == "2"
    with pytest.raises(FailedPreconditionError, match="final after 1 minutes"):
        queue.undo("ann")


def test_what_was_undone_is_the_next_to_be_decided(queue, clock) -> None:
    _add(queue, "1", "2", "3")
    queue.decide("1", "bag", annotator="ann")
    assert _id(queue.next_for("ann")) == "2"

    queue.undo("ann")

    assert _id(queue.next_for("ann")) == "1"
    assert _id(queue.next_for("bob")) in ("3", "2")
    queue.decide("1", "shirt", annotator="ann")
    clock.now_s += 60
    assert [each.label for each in queue.outcomes()] == ["shirt"]


def test_two_who_agree_settle_an_item(queue, clock) -> None:
    _add(queue, "1", n_people=2)
    queue.decide("1", "bag", annotator="ann")
    clock.now_s += 60
    assert queue.outcomes() == []
    assert queue.next_for("ann") is None  # nobody decides the same item twice

    queue.decide("1", "bag", annotator="bob")
    clock.now_s += 60

    (outcome,) = queue.outcomes()
    assert (outcome.label, outcome.n_people) == ("bag", 2)


@pytest.mark.parametrize(("third", "label"), [("coat", "coat"), ("shirt", "")])
def test_if_two_differ_a_third_decides(third, label, queue, clock) -> None:
    _add(queue, "1", n_people=2)
    queue.decide("1", "bag", annotator="ann")
    queue.decide("1", "coat", annotator="bob")
    clock.now_s += 60
    assert queue.outcomes() == []

    assert _id(queue.next_for("cat")) == "1"
    queue.decide("1", third, annotator="cat")
    clock.now_s += 60

    (outcome,) = queue.outcomes()
    assert (outcome.label, outcome.n_people) == (label, 3)


def test_who_takes_a_different_opinion_back_needs_no_third(queue, clock) -> None:
    _add(queue, "1", n_people=2)
    queue.decide("1", "bag", annotator="ann")
    queue.decide("1", "coat", annotator="bob")
    queue.undo("bob")
    queue.decide("1", "bag", annotator="bob")
    clock.now_s += 60

    assert [each.label for each in queue.outcomes()] == ["bag"]


def test_outcomes_keep_what_the_model_said_and_are_read_from_where_one_was(queue, clock) -> None:
    _add(queue, "1", kind="audit", answer="bag", score=0.99, model_version=7)
    _add(queue, "2")
    for item_id in "12":
        queue.decide(item_id, "coat", annotator="ann")
    clock.now_s += 60

    first, second = queue.outcomes()

    assert (first.kind, first.answer, first.score, first.model_version) == ("audit", "bag", 0.99, 7)
    assert queue.outcomes(after=first.seq) == [second]


def test_an_item_that_was_withdrawn_is_not_decided(queue) -> None:
    _add(queue, "1")
    queue.next_for("ann")
    queue.withdraw("1")

    with pytest.raises(AbortedError, match="was withdrawn"):
        queue.decide("1", "bag", annotator="ann")
    assert queue.next_for("ann") is None
    assert queue.n_open() == 0


def test_an_item_is_added_once(queue) -> None:
    _add(queue, "1", text="first")

    assert queue.add([Item(id="1", kind="human", text="again"), Item(id="2", kind="human")]) == 1
    assert queue.next_for("ann").text == "first"


def test_open_items_are_counted_whatever_becomes_of_them(queue, tmp_path, clock) -> None:
    """Also in a file of before there was a counter."""

    def counted() -> tuple[int, int]:
        with sqlite3.connect(tmp_path / "q.sqlite") as connection:
            (n,) = connection.execute("select count(*) from item where state = 'open'").fetchone()
        return queue.n_open(), n

    queue.add([Item(id=str(n), kind="human") for n in range(5)])
    queue.add([Item(id="4", kind="human"), Item(id="5", kind="human")])
    assert counted() == (6, 6)
    queue.withdraw("5")
    queue.withdraw("5")
    queue.decide("0", "bag", annotator="ann")
    queue.decide("1", "coat", annotator="ann")
    assert counted() == (3, 3)
    queue.undo("ann")
    assert counted() == (4, 4)
    clock.now_s += 10_000
    queue.outcomes()
    queue.withdraw("1")
    queue.decide("2", "coat", annotator="ann")
    assert counted() == (2, 2)

    with sqlite3.connect(tmp_path / "q.sqlite") as connection:
        connection.executescript(
            "drop trigger item_added; drop trigger item_moved; drop table open_items;"
        )
    with ReviewQueue(tmp_path / "q.sqlite") as reopened:
        assert reopened.n_open() == 2


def test_the_oldest_audit_tells_how_long_nobody_has_looked(queue, clock) -> None:
    _add(queue, "1", "2", kind="audit", answer="bag", score=1.0, model_version=1)
    clock.now_s += 100

    assert queue.oldest_audit_s() == 100
    for item_id in "12":
        queue.decide(item_id, "bag", annotator="ann")
    assert queue.oldest_audit_s() == 0


@pytest.mark.parametrize(
    ("item_id", "label", "annotator", "error"),
    [
        ("1", "<script>alert(1)</script>", "ann", InvalidArgumentError),
        ("1", "bag", " ", InvalidArgumentError),
        ("1", "bag", "a" * 201, InvalidArgumentError),
        ("gone", "bag", "ann", NotFoundError),
    ],
)
def test_what_is_no_decision_is_refused(item_id, label, annotator, error, queue) -> None:
    _add(queue, "1")

    with pytest.raises(error):
        queue.decide(item_id, label, annotator=annotator)
    assert queue.n_open() == 1


def test_a_queue_keeps_its_categories_and_decisions(queue, tmp_path, clock) -> None:
    _add(queue, "1")
    queue.decide("1", "bag", annotator="ann")
    clock.now_s += 60

    with ReviewQueue(tmp_path / "q.sqlite", clock=clock) as again:
        assert again.categories == CATEGORIES
        assert [each.label for each in again.outcomes()] == ["bag"]
    with pytest.raises(FailedPreconditionError, match="has the categories"):
        ReviewQueue(tmp_path / "q.sqlite", categories=["hat"])
    with pytest.raises(NotFoundError, match="no queue at"):
        ReviewQueue(tmp_path / "gone.sqlite")


def test_a_file_that_is_no_queue_is_said_to_be_away(tmp_path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 100)

    with pytest.raises(UnavailableError, match="can't be used"):
        ReviewQueue(tmp_path / "text")
    with pytest.raises(UnavailableError, match="can't be opened"):
        ReviewQueue(tmp_path / "nowhere" / "q.sqlite", categories=CATEGORIES)


def test_an_older_reader_sees_what_another_process_has_written(queue, tmp_path) -> None:
    _add(queue, "1")
    other = sqlite3.connect(tmp_path / "q.sqlite")
    other.execute("update item set state = 'withdrawn'")
    other.commit()
    other.close()

    assert queue.n_open() == 0


@pytest.mark.parametrize("options", [{"id": ""}, {"id": "a" * 201}, {"id": "1", "n_people": 4}])
def test_an_item_without_meaning_is_refused(options) -> None:
    with pytest.raises(InvalidArgumentError, match="an item needs an id"):
        Item(kind="human", **options)
