"""Certificates: what they promise, and that they keep it."""

from datetime import UTC, datetime

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController, precision
from scipy import stats

from mlops_mini.automation.certificates import (
    Certificate,
    Scope,
    certify_categories,
    certify_threshold,
    naive_threshold,
)
from mlops_mini.errors import InvalidArgumentError

SCOPE = Scope(
    model_version=3,
    data_from=datetime(2026, 5, 1, tzinfo=UTC),
    data_until=datetime(2026, 5, 8, tzinfo=UTC),
    expires_at=datetime(2026, 6, 1, tzinfo=UTC),
)
GRID = np.linspace(0, 1, 4001)
# A population of which the truth is known: scores are even, and an item with the score s is wrong
# with the probability .63 (1 - s) ** 3.9. That's 13 % of all, and much like a small CNN's.
_MOST, _POWER = 0.63, 3.9
ORACLE = (0.02 * (_POWER + 1) / _MOST) ** (1 / _POWER)  # the coverage with 2 % errors, .62


def _error_above(threshold: float) -> float:
    return _MOST * (1 - threshold) ** _POWER / (_POWER + 1)


def _draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    scores = rng.random(n)
    return scores, rng.random(n) >= _MOST * (1 - scores) ** _POWER


def _certify(scores: np.ndarray, correct: np.ndarray, **options: object) -> Certificate:
    return certify_threshold(scores, correct, other_scores=GRID, scope=SCOPE, **options)


def test_the_promise_is_kept_and_the_obvious_way_breaks_it() -> None:
    rng = np.random.default_rng(11)
    kept, naive, coverages = [], [], []
    for _ in range(1000):
        scores, correct = _draw(rng, 2000)
        certificate = _certify(scores, correct)
        threshold = certificate.threshold
        kept.append(threshold is None or _error_above(threshold) <= 0.02)
        coverages.append(0 if threshold is None else 1 - threshold)
        naive.append(_error_above(naive_threshold(scores, correct, other_scores=GRID)) <= 0.02)

    assert 1 - np.mean(kept) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
    assert np.mean(coverages) >= ORACLE - 0.08
    assert 1 - np.mean(naive) > 0.16


@pytest.mark.parametrize(("n", "is_certified"), [(148, False), (149, True)])
def test_149_items_without_an_error_are_enough_and_148_are_not(n, is_certified) -> None:
    certificate = _certify(np.ones(n), np.ones(n, bool))

    assert (certificate.threshold is not None) == is_certified
    assert certificate.n_more == (0 if is_certified else 1)
    assert is_certified or certificate.reason.endswith("label 1 more")


@pytest.mark.parametrize(
    ("errors", "n"),
    [(1, 236), (2, 313), (3, 386), (4, 456), (5, 523), (6, 590), (10, 845), (20, 1449)],
)
def test_so_many_errors_pass_from_this_number_of_items_on(errors, n) -> None:
    for size, is_certified in ((n - 1, False), (n, True)):
        correct = np.arange(size) >= errors
        assert (_certify(np.ones(size), correct).threshold is not None) == is_certified


def test_scores_that_are_all_equal_are_automated_together_or_not_at_all() -> None:
    good = _certify(np.full(500, 0.7), np.arange(500) > 2)
    bad = _certify(np.full(500, 0.7), np.arange(500) > 100)

    assert good.automates(np.full(500, 0.7)).all()
    assert bad.threshold is None
    assert bad.n_more is None
    assert bad.reason.endswith("too many to be helped by more labels")


def test_scores_of_exactly_1_go_together() -> None:
    # In float32 a softmax reaches 1.0: two thirds of these do.
    scores = np.float32(np.where(np.arange(900) % 3 == 0, 0.5, 1.0))
    correct = np.where(scores == 1, np.arange(900) > 4, np.arange(900) % 2 == 0)

    certificate = certify_threshold(scores, correct, other_scores=scores, scope=SCOPE)

    assert certificate.threshold == 1.0
    assert certificate.n_auto == 600
    assert certificate.automates(np.float32([1.0, 0.99999994])).tolist() == [True, False]


def test_an_item_without_a_score_is_never_automated() -> None:
    scores = np.append(np.ones(149), np.nan)

    certificate = _certify(scores, np.append(np.ones(149), 0))

    assert certificate.n == 150
    assert certificate.n_auto == 149
    assert certificate.automates(scores).sum() == 149


def test_without_labels_it_says_how_many_it_takes() -> None:
    certificate = _certify(np.zeros(0), np.zeros(0, bool))

    assert certificate.threshold is None
    assert certificate.n_more == 497  # so that 149 are among the surest 30 %
    assert certificate.upper_bound == 1


def test_if_everything_is_wrong_nothing_is_automated() -> None:
    certificate = _certify(np.linspace(0.5, 1, 1000), np.zeros(1000, bool))

    assert certificate.threshold is None
    assert certificate.n_more is None
    assert not certificate.automates([0.0, 0.99, 1.0]).any()


def test_labeling_as_many_more_as_it_says_is_enough() -> None:
    rng = np.random.default_rng(5)
    scores, correct = _draw(rng, 120)
    certificate = _certify(scores, correct)
    assert certificate.threshold is None
    n_all = 120 + certificate.n_more

    # The same share of errors among more items.
    repeated = np.resize(np.sort(scores), n_all), np.resize(correct[np.argsort(scores)], n_all)

    assert _certify(*repeated).threshold is not None


def test_thresholds_come_from_scores_of_other_items_alone() -> None:
    scores, correct = _draw(np.random.default_rng(2), 5000)
    others = np.array([0.2, 0.5, 0.5, 0.9])

    threshold = certify_threshold(scores, correct, other_scores=others, scope=SCOPE).threshold

    assert threshold in {0.0, *others}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"scores": [0.5, 1.2]}, "0.5 to 1.2, expected 0 to 1"),
        ({"scores": [0.5]}, "one score and one yes or no per item"),
        ({"correct": [1, 2]}, "something else than yes and no"),
        ({"correct": [1, np.nan]}, "leave items without a label out"),
        ({"max_error": 0}, "max_error is 0"),
        ({"confidence": 1}, "confidence 1"),
        ({"step": 0}, "step 0"),
        ({"other_scores": []}, "no threshold to try"),
        ({"other_scores": [np.nan]}, "no threshold to try"),
    ],
)
def test_what_has_no_meaning_is_refused(changed, words) -> None:
    given = {"scores": [0.5, 0.6], "correct": [1, 0], "other_scores": GRID, "scope": SCOPE}

    with pytest.raises(InvalidArgumentError, match=words):
        certify_threshold(**given | changed)


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    certificate = _certify(np.ones(1200), np.arange(1200) >= 15)

    exact = stats.binomtest(15, 1200).proportion_ci(0.90, method="exact")
    assert certificate.upper_bound == pytest.approx(exact.high)
    assert certificate.upper_bound == pytest.approx(0.0192, abs=5e-5)


def test_a_certificate_is_for_one_version_and_one_time() -> None:
    certificate = _certify(np.ones(149), np.ones(149))
    during, after = datetime(2026, 5, 20, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)

    assert certificate.why_void(model_version=3, at=during) == ""
    assert certificate.why_void(model_version=4, at=during) == "it's for model version 3, not 4"
    assert "expired at 2026-06-01" in certificate.why_void(model_version=3, at=after)
    assert "begin only" in certificate.why_void(
        model_version=3, at=datetime(2026, 4, 1, tzinfo=UTC)
    )
    with pytest.raises(InvalidArgumentError, match="in this order"):
        Scope(model_version=1, data_from=after, data_until=during, expires_at=after)


def test_promises_by_category_are_held_together() -> None:
    rng = np.random.default_rng(3)
    predicted = rng.choice(["bag", "shirt"], 6000, p=[0.7, 0.3])
    scores, correct = _draw(rng, 6000)
    correct &= (predicted == "bag") | (rng.random(6000) < 0.8)  # a fifth of the shirts is none
    made = certify_categories(
        scores, correct, predicted, categories=["bag", "shirt", "hat"],
        other_scores=GRID, other_predicted=rng.choice(["bag", "shirt", "hat"], GRID.size),
        scope=SCOPE,
    )  # fmt: skip

    assert made["bag"].threshold is not None
    assert made["shirt"].threshold is None
    assert made["shirt"].n_more is None
    assert made["hat"].n == 0  # never predicted
    # 203 among the surest 30 %, without an error, at a confidence of 1 - .05 / 3.
    assert made["hat"].n_more == pytest.approx(203 / 0.3, rel=0.05)
    assert made["bag"].confidence == pytest.approx(1 - 0.05 / 3)
    with pytest.raises(InvalidArgumentError, match="without \\['shirt'\\]"):
        certify_categories(
            scores, correct, predicted, categories=["bag"], other_scores=GRID,
            other_predicted=np.full(GRID.size, "bag"), scope=SCOPE,
        )  # fmt: skip


# It warns where the share of errors goes down and up again, which is chance.
@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires a monotonic risk")
def test_mapie_is_never_looser() -> None:
    rng = np.random.default_rng(17)
    thresholds = np.round(np.arange(0.85, 0.0, -0.05), 2)
    ours, theirs = [], []
    for _ in range(40):
        scores, correct = _draw(rng, 2000)
        controller = BinaryClassificationController(
            lambda given: np.column_stack([1 - given[:, 0], given[:, 0]]),
            precision,
            target_level=0.98,
            confidence_level=0.95,
            list_predict_params=thresholds,
            fwer_method="fixed_sequence",
        )
        controller.calibrate(scores[:, None], correct.astype(int))
        valid = np.asarray(controller.valid_predict_params)
        theirs.append(valid.min() if valid.size else np.inf)
        made = certify_threshold(
            scores, correct, other_scores=thresholds, scope=SCOPE, step=1 / thresholds.size
        )
        ours.append(np.inf if made.threshold is None else made.threshold)

    assert np.isfinite(ours).all()
    assert (np.array(theirs) >= np.array(ours) - 1e-9).all()
