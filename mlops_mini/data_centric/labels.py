"""Labels that are likely wrong, people who label, and what labeling some again would bring.

What people answer is kept in a CSV file, one row per answer, with these columns:

| column | meaning |
|---|---|
| `item` | which example, as an id or a number |
| `label` | the class that the annotator chose, by name |
| `seconds` | how long that took, 0 or more, or empty |
| `annotator` | who it was |
| `kind` | "recorded" from people, "published" by others, or a "stand-in": a model instead |

An annotator who gets an item twice has two rows for it: that's how consistency with oneself is
measured.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import files
from mlops_mini.data_centric.priorities import Human, Kind, count_slices
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.review.queue import ReviewQueue

COLUMNS = ("item", "label", "seconds", "annotator", "kind")
_LONGEST_LOOK_S = 120.0  # who takes longer for an answer has had a break


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelingGain:
    """What labeling the most suspicious items again is expected to bring.

    Attributes:
        n_items: How many would be labeled again.
        wrong: How many wrong labels are expected among them.
        wrong_low: At least so many, with the confidence asked for.
        wrong_high: At most so many.
        accuracy_gain: By how much the share of right labels among all would rise, 0 to 1.
        hours: How long the rest of them takes one annotator, NaN if no answer was timed.
        kind: What the answers are that this rests on.
    """

    n_items: int
    wrong: float
    wrong_low: float
    wrong_high: float
    accuracy_gain: float
    hours: float
    kind: str


def find_issues(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, classes: Sequence[str]
) -> pd.DataFrame:
    """Rank all items by how likely their label is wrong.

    Args:
        labels: Class of each item, an index into `classes`, shape [n_items].
        probabilities: Of each class, shape [n_items, n_classes], from models that haven't been
            trained on the item, such as in cross-validation.
        classes: Names of the classes.

    Returns:
        Most suspicious first: `item`, its position, `label`, `suggested`, the class that the model
        finds most likely, `quality`, 0 to 1, the probability of the given label, and `is_flagged`,
        cleanlab's own cut. Ask people in this order, and don't delete: the order is good, but more
        than half of what's flagged may be right.

    Raises:
        InvalidArgumentError: Shapes don't fit, a label is no class, or fewer than two
            classes occur.

    Source:
        Northcutt, Jiang and Chuang, Confident learning, JAIR 2021, by the package cleanlab.

    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]]
    >>> find_issues([0, 0, 1, 1, 1], probabilities, classes=["bag", "boot"]).head(1)
       item label suggested  quality  is_flagged
    0     4  boot       bag     0.05        True
    """
    given, p = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if p.shape != (len(given), len(classes)) or not np.isfinite(p).all():
        raise InvalidArgumentError(
            f"{len(given)} labels of {len(classes)} classes need finite probabilities of shape"
            f" {(len(given), len(classes))}, got {p.shape}"
        )
    if not (np.issubdtype(given.dtype, np.integer) and np.isin(given, range(len(classes))).all()):
        raise InvalidArgumentError(f"labels must be whole numbers from 0 to {len(classes) - 1}")
    present = np.unique(given)
    if len(present) < 2:
        raise InvalidArgumentError("labels of a single class can't be compared: bring others too")

    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        # Its import asks for widgets in every notebook, which nobody needs here.
        warnings.simplefilter("ignore", TqdmWarning)
        from cleanlab import filter as cleanlab_filter
        from cleanlab import rank

    # A class without items would be a row of zeros in cleanlab's confident joint.
    among, columns = np.searchsorted(present, given), p[:, present]
    columns = columns / columns.sum(axis=1, keepdims=True).clip(min=1e-12)
    quality = rank.get_label_quality_scores(among, columns)
    flagged = cleanlab_filter.find_label_issues(among, columns, n_jobs=1)
    names = np.asarray(classes, dtype=object)
    table = pd.DataFrame(
        {
            "item": np.arange(len(given)),
            "label": names[given],
            "suggested": names[p.argmax(axis=1)],
            "quality": quality,
            "is_flagged": flagged,
        }
    )
    return table.sort_values("quality", kind="stable", ignore_index=True)


def read_answers(path: Path, *, classes: Sequence[str]) -> pd.DataFrame:
    """Read what annotators have answered.

    Args:
        path: A CSV file with the columns of this module.
        classes: Names of the classes.

    Returns:
        One row per answer, in the file's order. Items keep their type: numbers or texts.

    Raises:
        NotFoundError: There's no such file.
        DataIntegrityError: A column or a value is missing, a label is no class, a time is negative,
            or a kind is unknown.
    """
    try:
        answers = pd.read_csv(path)
    except FileNotFoundError as exc:
        raise NotFoundError(
            f"nobody has labeled anything at {path}: label some items, or compare with a stand-in,"
            ' and call it so (kind "stand-in")'
        ) from exc
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as exc:
        raise DataIntegrityError(f"{path} is no CSV file with {', '.join(COLUMNS)}: {exc}") from exc
    _check_answers(answers, classes, str(path))
    return answers[list(COLUMNS)]


def answers_of(queue: ReviewQueue) -> pd.DataFrame:
    """Take what people have answered on the review page: a labeling session of your own.

    Args:
        queue: As `mlops-mini review` opens it.

    Returns:
        One row per answer that can't be taken back any more, in order, with this module's columns.
        Items are the queue's ids, so texts. An answer's time is that since the same person's
        answer before; it's missing for the first one, and after a break of two minutes.
    """
    decisions = pd.DataFrame(
        [(d.item_id, d.label, d.annotator, d.decided_at) for d in queue.decisions()],
        columns=["item", "label", "annotator", "decided_at"],
    )
    since_last = decisions.groupby("annotator")["decided_at"].diff()
    seconds = since_last.where(since_last <= _LONGEST_LOOK_S)
    return decisions.assign(seconds=seconds, kind="recorded")[list(COLUMNS)]


def write_answers(path: Path, answers: pd.DataFrame, *, classes: Sequence[str]) -> None:
    """Write answers as the CSV file that `read_answers` reads, whole or not at all.

    Args:
        path: Where to; a file that's there is replaced.
        answers: One row per answer, with this module's columns.
        classes: Names of the classes.

    Raises:
        DataIntegrityError: As for reading.
    """
    _check_answers(answers, classes, "what's to be written")
    with files.whole_file(path) as unfinished:
        answers.to_csv(unfinished, columns=list(COLUMNS), index=False)


def agreement(answers: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Measure how consistently annotators label: with each other, and each with themself.

    Args:
        answers: As `read_answers` returns them.
        confidence: Of the interval.

    Returns:
        One row for each two annotators, also for each and themself if they answered items twice:
        `first`, `second`, `n` items in common, `agree`, the share of equal answers, `low` and
        `high` (Wilson), `kappa` (Cohen), which is 0 if they agree as often as by chance, and
        `kind`. Pairs without common items have n 0 and no numbers.

    Raises:
        InvalidArgumentError: No item has two answers.

    >>> answers = pd.DataFrame({"item": [1, 2, 1, 2], "label": ["bag", "boot", "bag", "bag"]})
    >>> answers = answers.assign(annotator=["ann", "ann", "ben", "ben"], kind="recorded")
    >>> agreement(answers)[["first", "second", "n", "agree", "kappa"]]
      first second  n  agree  kappa
    0   ann    ben  2    0.5    0.0
    """
    nth = answers.groupby(["annotator", "item"]).cumcount()
    first_time = {str(who): rows for who, rows in answers[nth == 0].groupby("annotator")}
    again = {str(who): rows for who, rows in answers[nth == 1].groupby("annotator")}
    pairs = [(who, first_time[who], who, again[who]) for who in sorted(again)]
    pairs += [
        (one, first_time[one], other, first_time[other])
        for one, other in itertools.combinations(sorted(first_time), 2)
    ]
    kind = " and ".join(sorted(answers["kind"].unique()))
    rows = [
        {"first": one, "second": other, **_agreement(by_one, by_other, confidence), "kind": kind}
        for one, by_one, other, by_other in pairs
    ]
    if not any(row["n"] for row in rows):
        raise InvalidArgumentError(
            f"{', '.join(sorted(first_time))} have answered no item in common, and none of them an"
            " item twice, so nothing can be said of consistency: give both the same items"
        )
    return pd.DataFrame(rows)


def human_accuracy(
    answers: pd.DataFrame, examples: pd.DataFrame, tags: Sequence[str], *, label: str
) -> Human:
    """Count how often annotators chose the label that the data has, slice by slice.

    Args:
        answers: As `read_answers` returns them, all of one kind.
        examples: Indexed by item, with tags and the label.
        tags: Columns to slice by, as for `priorities.count_slices`.
        label: Column with the label, by name.

    Returns:
        For `priorities.prioritize`. Items that are asked twice count once.

    Raises:
        InvalidArgumentError: Answers are of several kinds, or to items that `examples` doesn't
            have.
    """
    kinds = sorted(answers["kind"].unique())
    if len(kinds) != 1:
        raise InvalidArgumentError(f"answers of the kinds {kinds} can't be mixed: take one kind")
    if unknown := sorted(set(answers["item"]) - set(examples.index), key=str):
        raise InvalidArgumentError(f"items {unknown[:5]} were answered but aren't in the examples")
    once = answers.drop_duplicates(["annotator", "item"])
    joined = examples.loc[once["item"]].reset_index(drop=True)
    joined["answer_is_right"] = (joined[label] == once["label"].to_numpy()).to_numpy()
    return Human(counts=count_slices(joined, tags, is_right="answer_is_right"), kind=kinds[0])


def relabeling_gain(
    issues: pd.DataFrame, answers: pd.DataFrame, *, n_items: int, confidence: float = 0.95
) -> RelabelingGain:
    """Estimate what labeling the most suspicious items again would bring, from a few answers.

    The model's own probabilities can't tell: where classes are easily confused, they promise twice
    as many wrong labels as there are. A few answers to items drawn at random from those can.

    Args:
        issues: As `find_issues` returns them.
        answers: To items drawn at random from the first `n_items` issues, one answer each, such as
            `issues.head(n_items).sample(40, random_state=0)`.
        n_items: How many would be labeled again.
        confidence: Of the interval.

    Returns:
        The number of wrong labels among them, and what follows from it. An answer that differs from
        the label counts as a wrong label.

    Raises:
        InvalidArgumentError: An answered item isn't among those, or has two answers, or there are
            no answers.

    Source:
        What's known plus the beta-binomial prediction of the others, from Jeffreys' prior.

    >>> issues = pd.DataFrame({"item": range(1000), "label": "bag"})
    >>> answers = pd.DataFrame({"item": range(0, 400, 10), "label": ["bag", "boot"] * 20})
    >>> gain = relabeling_gain(issues, answers.assign(seconds=3, kind="recorded"), n_items=400)
    >>> gain.wrong, gain.wrong_low, gain.wrong_high, gain.accuracy_gain, gain.hours
    (200.0, 143.0, 257.0, 0.2, 0.3)
    """
    from scipy import stats

    first = issues.head(n_items)
    if not answers["item"].is_unique:
        raise InvalidArgumentError("an item has two answers: keep one of them, such as the last")
    if unknown := sorted(set(answers["item"]) - set(first["item"]), key=str):
        raise InvalidArgumentError(
            f"items {unknown[:5]} were answered but aren't among the first {n_items} issues: draw"
            " from these, at random"
        )
    if answers.empty:
        raise InvalidArgumentError("without answers nothing can be said: label a few items first")
    given = first.set_index("item")["label"].loc[answers["item"]]
    n_wrong = int((given.to_numpy() != answers["label"].to_numpy()).sum())
    n_open = len(first) - len(answers)
    predicted = stats.betabinom(n_open, n_wrong + 0.5, len(answers) - n_wrong + 0.5)
    low, high = predicted.interval(confidence)
    expected = n_wrong + predicted.mean()
    return RelabelingGain(
        n_items=len(first),
        wrong=float(expected),
        wrong_low=float(n_wrong + low),
        wrong_high=float(n_wrong + high),
        accuracy_gain=float(expected / len(issues)),
        hours=float(answers["seconds"].mean() * n_open / 3600),
        kind=" and ".join(sorted(answers["kind"].unique())),
    )


def _agreement(
    first: pd.DataFrame, second: pd.DataFrame, confidence: float
) -> Mapping[str, float | int]:
    from statsmodels.stats import inter_rater, proportion

    both = first.set_index("item")["label"].to_frame("first")
    both = both.join(second.set_index("item")["label"].rename("second"), how="inner")
    if both.empty:
        return {"n": 0, "agree": np.nan, "low": np.nan, "high": np.nan, "kappa": np.nan}
    n_equal = int((both["first"] == both["second"]).sum())
    low, high = proportion.proportion_confint(
        n_equal, len(both), alpha=1 - confidence, method="wilson"
    )
    # If both used a single class only, chance alone explains everything: kappa isn't defined.
    names = sorted(set(both["first"]) | set(both["second"]))
    counts = pd.crosstab(both["first"], both["second"]).reindex(
        index=names, columns=names, fill_value=0
    )
    kappa = np.nan if len(names) == 1 else inter_rater.cohens_kappa(counts, return_results=False)
    return {
        "n": len(both),
        "agree": n_equal / len(both),
        "low": float(low),
        "high": float(high),
        "kappa": float(kappa),
    }


def _check_answers(answers: pd.DataFrame, classes: Sequence[str], where: str) -> None:
    if missing_columns := [name for name in COLUMNS if name not in answers]:
        raise DataIntegrityError(f"{where} lacks the columns {missing_columns} of answers")
    empty = answers[["item", "label", "annotator", "kind"]].isna().any(axis=1)
    seconds = pd.to_numeric(answers["seconds"], errors="coerce")
    problems = {
        "lacks item, label, annotator or kind": empty,
        f"has a label that's none of {list(classes)}": ~answers["label"].isin(list(classes)),
        f"has a kind that's none of {get_args(Kind)}": ~answers["kind"].isin(get_args(Kind)),
        "has a time that's no number of seconds": answers["seconds"].notna() & ~(seconds >= 0),
    }
    for problem, is_there in problems.items():
        if is_there.any():
            raise DataIntegrityError(f"answer {int(np.argmax(is_there)) + 1} of {where} {problem}")
