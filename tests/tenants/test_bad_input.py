"""What a new user gets wrong is one line, before anything is trained.

It names the use case, the column and the way out.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data.rules import in_range
from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.pipeline import examples, scoring
from mlops_mini.use_case import Label, UseCase
from tests.tenants import made
from tests.tenants.churn import CHURN, CUSTOMERS
from tests.tenants.sensors import STOPS
from tests.test_cli import run

MONTHS = ("2026-01", "2026-02")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made.write_customers(tmp_path / "data", months=MONTHS, n_rows=300)
    return tmp_path / "data"


def change(data: Path, how) -> None:
    """Change each month's file as a frame of texts."""
    for month in MONTHS:
        path = data / "customers" / f"{month}.csv"
        how(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def to_examples(use_case: UseCase, data: Path, folder: Path) -> pd.DataFrame:
    """Do what the pipeline does before it trains."""
    january, february = map(use_case.calendar.period, MONTHS)
    examples.clean(
        use_case,
        [january, february],
        folder / "clean",
        quarantine_file=folder / "quarantine.csv",
        partitions_file=folder / "partitions.json",
        data_folder=data,
    )
    examples.write(
        use_case,
        [january],
        february,
        train_file=folder / "train.parquet",
        test_file=folder / "test.parquet",
        data_folder=folder / "clean",
    )
    return pd.read_parquet(folder / "train.parquet")


def with_table(**changes) -> UseCase:
    return replace(CHURN, tables=[replace(CUSTOMERS, **changes)])


def repeated(rows):
    return rows.assign(customer=np.where(rows.index < 20, rows["customer"].iloc[0], rows.customer))


def without_zone(rows):
    return rows.assign(billed_at=rows["billed_at"].str[:19])


WRONG = {  # what's wrong with the files, with the use case, and what is said
    "a missing column": (
        lambda rows: rows.drop(columns="calls"),
        CHURN,
        ["lacks the columns ['calls']", "rename or add them"],
    ),
    "a constant label": (
        lambda rows: rows.assign(churned="0"),
        CHURN,
        ["churned is 0 in all 299 rows of 2026-01", "train on more periods"],
    ),
    "a label known only in the future": (
        lambda rows: rows.assign(churned=""),
        CHURN,
        ["no row of 2026-01 has a label", "churned is missing", "30d", "choose earlier periods"],
    ),
    "a label of other values": (
        lambda rows: rows.assign(churned="2"),
        CHURN,
        ["churned is 2.0 in 299 of 299 rows", "a label is 1 or 0", "have `prepare` make one"],
    ),
    "a repeating key": (
        repeated,
        CHURN,
        ["customer: comes only once, found c0-0 (19 rows)", "have the partition sent again"],
    ),
    "a time without zone": (
        without_zone,
        CHURN,
        ["without an offset in column 'billed_at': '2026-01", "local_times.to_utc"],
    ),
    "rows that all break a rule": (
        lambda rows: rows,
        with_table(rules=[in_range("monthly_usd", -5, -1)]),
        [
            "300 of 300 rows break a rule",
            "monthly_usd: in_range(-5, -1), found",
            "(300 rows), which no row keeps: correct",
        ],
    ),
    "a slice that prepare doesn't add": (
        lambda rows: rows,
        replace(with_table(prepare=lambda rows: rows), slices=["plan", "region"]),
        ["its slice 'region' is neither", "correct the name, or have `prepare` add it"],
    ),
    "a label that prepare doesn't add": (
        lambda rows: rows,
        replace(with_table(prepare=lambda rows: rows), label=Label("left")),
        ["its label 'left' is neither", "correct the name, or have `prepare` add it"],
    ),
    "a period without rows": (
        lambda rows: rows.head(0),
        CHURN,
        ["customers/2026-01.csv holds no rows", "write it again"],
    ),
}


def test_a_label_that_is_constant_where_a_model_is_judged_is_told(data, tmp_path):
    february = data / "customers" / "2026-02.csv"
    pd.read_csv(february, dtype=str).assign(churned="0").to_csv(february, index=False)

    with pytest.raises(MlopsMiniError, match=r"churned is 0 in all 299 rows of 2026-02: .* judge"):
        to_examples(CHURN, data, tmp_path)


@pytest.mark.parametrize("what", WRONG)
def test_it_is_one_line_before_anything_is_trained(what, data, tmp_path):
    how, use_case, words = WRONG[what]
    change(data, how)

    with pytest.raises(MlopsMiniError) as refused:
        to_examples(use_case, data, tmp_path)

    said = str(refused.value)
    assert said.startswith("use case churn: ")
    assert said.count("use case churn") == 1
    assert "\n" not in said
    assert [each for each in words if each not in said] == [], said


def test_a_period_without_rows_in_one_file_is_told_before_a_run_begins(data, tmp_path):
    parts = [pd.read_csv(data / "customers" / f"{month}.csv") for month in MONTHS]
    (tmp_path / "whole").mkdir()
    pd.concat(parts).to_csv(tmp_path / "whole" / "customers.csv", index=False)
    arguments = ["--use-case", "tests.tenants.churn:CHURN", "--data", str(tmp_path / "whole")]

    failed = run("pipeline", "run", "--period", "2026-03", *arguments)

    (line,) = failed.stderr.splitlines()
    assert line.startswith("mlops-mini: use case churn: no customers of 2026-03 in ")
    assert "the file has rows of ['2026-01', '2026-02']: ask for one of these" in line


def test_another_order_of_columns_changes_nothing(data, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before = to_examples(CHURN, data, tmp_path / "a")
    change(data, lambda rows: rows[list(rows.columns[::-1])])

    pd.testing.assert_frame_equal(to_examples(CHURN, data, tmp_path / "b"), before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": ["plan", "age"]}, "features name ['age']; table customers has"),
        ({"features": ["plan", "billed_at"]}, "['billed_at'], and an instant is no number"),
        ({"slices": ["region"]}, "the slice 'region' isn't a column of table customers, which has"),
        ({"label": Label("left")}, "the label 'left' isn't a column of table customers, which has"),
        ({"features": ["churned"]}, "the label churned is among the features"),
    ],
)
def test_a_column_that_is_none_is_told_when_the_use_case_is_made(changes, words):
    with pytest.raises(MlopsMiniError) as refused:
        replace(CHURN, **changes)

    assert str(refused.value).startswith("use case churn: ")
    assert words in str(refused.value)


def test_a_column_that_cannot_name_a_feature_is_told_when_the_use_case_is_made():
    columns = {**CUSTOMERS.columns, "price (USD)": "number"}

    with pytest.raises(
        MlopsMiniError, match=r"use case churn: .*'price \(USD\)' can't name a feat"
    ):
        replace(with_table(columns=columns), features=["price (USD)"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nowhere:CHURN",
            "no module nowhere for the use case nowhere:CHURN: it must lie in the cu",
        ),
        ("tests.tenants.churn:LEFT", "has no LEFT; its use cases are ['CHURN']"),
        ("tests.tenants.churn:PLANS", "is of type tuple, not a UseCase; those in"),
        ("churn.py", "'churn.py' doesn't name a use case: write its module, a colon"),
    ],
)
def test_a_name_that_does_not_import_is_one_line(name, words):
    failed = run("describe", name)

    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert words in line


def test_predictions_that_look_back_need_data(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "new.csv").write_text("reading,machine,read_at,load\n1,saw,2026-03-01T00:00Z,0.5\n")

    with pytest.raises(MlopsMiniError) as refused:
        scoring.score(STOPS, tmp_path, tmp_path / "new.csv")

    assert "use case stops: features look back at ['readings', 'visits']" in str(refused.value)
    assert "--data" in str(refused.value)


def test_predictions_name_a_column_that_their_file_lacks(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "new.csv").write_text("customer,billed_at,plan,calls\nc1,2026-03-01T00:00Z,pro,1\n")

    with pytest.raises(MlopsMiniError) as refused:
        scoring.score(CHURN, tmp_path, tmp_path / "new.csv")

    assert "use case churn: " in str(refused.value)
    assert "lacks the columns ['monthly_usd']" in str(refused.value)


def test_predictions_want_a_model(tmp_path):
    arguments = ["--use-case", "tests.tenants.churn:CHURN"]

    failed = run("predict", str(tmp_path / "gone"), "new.csv", *arguments)

    assert failed.stderr.splitlines()[-1].startswith("mlops-mini: no model folder ")


def test_predictions_never_replace_their_rows(tmp_path):
    (tmp_path / "new.csv").write_text("customer\n")
    arguments = ["--use-case", "tests.tenants.churn:CHURN", "--out", str(tmp_path / "new.csv")]

    failed = run("predict", str(tmp_path), str(tmp_path / "new.csv"), *arguments)

    assert "would replace the rows: name another file" in failed.stderr
    assert (tmp_path / "new.csv").read_text() == "customer\n"


def test_a_prepare_that_wants_the_outcome_is_told_with_its_line(tmp_path):
    def prepare(rows):
        return rows.assign(left=rows["churned"] == 1)

    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "new.csv").write_text(
        "customer,billed_at,plan,monthly_usd,calls\nc1,2026-03-01T00:00Z,pro,9,1\n"
    )

    with pytest.raises(MlopsMiniError) as refused:
        scoring.score(with_table(prepare=prepare), tmp_path, tmp_path / "new.csv")

    said = str(refused.value)
    assert said.startswith(f"use case churn: customers: prepare fails in {__file__}, line ")
    assert "KeyError: 'churned'" in said
    assert "outcomes aren't among them when a prediction is due" in said


@pytest.mark.parametrize("matures_after", ["soon", "nan", "-1h"])
def test_a_label_that_matures_at_no_time_is_refused(matures_after: str) -> None:
    with pytest.raises(InvalidArgumentError, match="label churned: matures_after is"):
        Label("churned", matures_after=matures_after)
