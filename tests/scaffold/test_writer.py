"""What `mlops-mini new` guesses of a table, and that it holds once the guesses are right."""

import ast
import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini import description
from mlops_mini.data import storing
from mlops_mini.errors import AlreadyExistsError, DataIntegrityError, InvalidArgumentError
from mlops_mini.pipeline import examples
from mlops_mini.scaffold import guesses, writer
from mlops_mini.use_case import UseCase, load
from tests.tenants import made
from tests.test_cli import run

N = 400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A current folder, in which modules are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def telco() -> pd.DataFrame:
    """A table as others publish it: names with spaces, Yes and No, local times, a leak."""
    rng = np.random.default_rng(3)
    left = rng.random(N) < 0.4
    charges = rng.uniform(18.25, 118.75, N).round(2)
    start = pd.Timestamp("2026-01-03 08:15")
    return pd.DataFrame(
        {
            "customerID": [f"{i:04}-XY" for i in range(N)],
            "Signup": (start + pd.to_timedelta(np.arange(N) * 7, "h")).strftime("%Y-%m-%d %H:%M"),
            "SeniorCitizen": rng.integers(0, 2, N),
            "Payment Method": rng.choice(["Mailed check", "Card (automatic)"], N),
            "Monthly Charges": charges,
            "Total": pd.Series(charges * 12).mask(rng.random(N) < 0.1),
            "refund": left * 5.0 + rng.random(N),
            "note": "",
            "Churn": np.where(left, "Yes", "No"),
        }
    )


def written(folder: Path, frame: pd.DataFrame, name: str = "case", suffix: str = "csv") -> str:
    """Write a table and the description guessed from it; return the module's text."""
    file = folder / f"people.{suffix}"
    frame.to_csv(file, index=False) if suffix == "csv" else frame.to_parquet(file, index=False)
    writer.write(name, file, folder)
    source = (folder / f"{name}.py").read_text()
    ast.parse(source)
    assert max(map(len, source.splitlines())) <= 100
    return source


def loaded(name: str = "case") -> UseCase:
    importlib.invalidate_caches()
    return load(f"{name}:{name.upper()}")


def learn(use_case: UseCase, file: Path, folder: Path) -> pd.DataFrame:
    """Do what the pipeline does before it trains, on the file sent; the rows to train on."""
    data = folder / "data"
    table, calendar = use_case.examples, use_case.calendar
    parts = storing.store(file, table, calendar=calendar, folder=data)
    first, second = (part.period for part in parts[:2])
    examples.clean(
        use_case, [first, second], folder / "clean", quarantine_file=folder / "q.csv",
        partitions_file=folder / "p.json",
        data_folder=data,
    )  # fmt: skip
    files = {"train_file": folder / "train.parquet", "test_file": folder / "test.parquet"}
    examples.write(use_case, [first], second, data_folder=folder / "clean", **files)
    return pd.read_parquet(folder / "train.parquet")


def test_right_guesses_go_through_without_a_change(folder):
    made.write_customers(folder, months=("2026-01", "2026-02", "2026-03"))
    months = sorted((folder / "customers").glob("*.csv"))
    frame = pd.concat([pd.read_csv(month) for month in months])

    source = written(folder, frame)
    use_case = loaded()

    assert 'features=["plan", "monthly_usd", "calls"]' in source
    assert use_case.label.name == "churned"
    assert "predicts the probability that churned is 1" in description.summary(use_case)
    assert description.tables(use_case)
    train = learn(use_case, folder / "people.csv", folder)
    assert {"customer", "plan", "monthly_usd", "calls", "churned"} == set(train)


def test_a_table_as_others_publish_it_goes_through_too(folder):
    source = written(folder, telco())
    use_case = loaded()

    assert use_case.examples.key == ["customerID"]
    assert (use_case.examples.time, use_case.label.name) == ("Signup_utc", "Churn_is_Yes")
    assert use_case.feature_set.names == (
        "SeniorCitizen", "payment_method", "monthly_charges", "Total",
    )  # fmt: skip
    for line in (
        '# Not among them: "refund" tells the label almost by itself (AUC 1.000)',
        '# "note" has no value, or is of a kind that tables don\'t have: left out.',
        'in_range("Monthly Charges", 0, 200),',
        '"Total": "number?",',
        'is_in("Payment Method", ["Card (automatic)", "Mailed check"]),',
        "# A guess: time has no zone. Whose clocks are they?",
        "It could be SeniorCitizen too.",
    ):
        assert line in " ".join(source.split()).replace(" # ", " ") or line in source
    train = learn(use_case, folder / "people.csv", folder)
    assert set(train["Churn_is_Yes"]) == {0.0, 1.0}
    assert train["payment_method"].isin(["Card (automatic)", "Mailed check"]).all()


def test_parquet_with_times_without_a_zone_goes_through(folder):
    frame = telco().assign(Signup=lambda rows: pd.to_datetime(rows["Signup"]))
    written(folder, frame, suffix="parquet")

    assert len(learn(loaded(), folder / "people.parquet", folder)) > 50


def test_a_key_that_comes_once_in_each_month_is_found(folder):
    frame = telco().assign(customerID=lambda rows: rows.index % 150)
    frame["Signup"] = frame["Signup"].str[:10]

    source = written(folder, frame[["customerID", "Signup", "Total", "Churn"]])

    assert "# A guess: no value comes twice in a month." in source
    assert 'key=["customerID"]' in source


@pytest.mark.parametrize(
    ("written_as", "expected", "is_unsure"),
    [
        ("%Y/%m/%d", "", False),
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M", False),
        ("%m/%d/%Y", "%m/%d/%Y", False),
    ],
)
def test_dates_are_read_as_they_are_written(folder, written_as, expected, is_unsure):
    signup = pd.to_datetime(telco()["Signup"])
    source = written(folder, telco().assign(Signup=signup.dt.strftime(written_as)))

    assert (f'written_as="{expected}"' in source) == bool(expected)
    assert ("it could be written as" in source) == is_unsure


def test_a_day_that_could_be_a_month_is_told(folder):
    days = [f"0{1 + i % 9}/0{1 + i % 7}/2026" for i in range(N)]

    assert "it could be written as %d/%m/%Y too" in written(folder, telco().assign(Signup=days))


@pytest.mark.parametrize(
    ("drop", "question", "said"),
    [
        (
            "Signup",
            "No column has a date or a time",
            "people: its time names no column: name one of [",
        ),
        (
            "customerID",
            "No column tells rows apart",
            "people: its key names no column: name one of [",
        ),
        ("Churn", "No column has two values", "the label names no column: name the one to predict"),
    ],
)
def test_what_cannot_be_guessed_is_said_in_the_file_in_the_message_and_on_loading(
    folder, drop, question, said
):
    frame = telco().drop(columns=[drop, "SeniorCitizen"])
    if drop == "customerID":
        frame["Signup"] = frame["Signup"].str[:8] + "01"
        frame = frame[["Signup", "Payment Method", "Total", "Churn"]]
    if drop == "Churn":
        frame["Signup"] = frame["Signup"].str.replace(" ", "T") + ":00Z"
        frame = frame[["customerID", "Signup", "Total"]]
    frame.to_csv("people.csv", index=False)

    new = run("new", "case", "--from", "people.csv")
    described = run("describe", "case:CASE")

    assert new.returncode == 0, new.stderr
    assert f"Not guessed: {question}" in new.stdout
    assert f"# NOT GUESSED: {question}" in (folder / "case.py").read_text()
    assert described.returncode == 1
    (line,) = described.stderr.splitlines()
    assert said in line
    assert line.endswith(tuple(f"{folder}/case.py, line {n})" for n in range(20, 80)))


def test_a_file_that_is_there_is_never_overwritten(folder):
    (folder / "case.py").write_text("years = 'of work'\n")
    telco().to_csv("people.csv", index=False)

    with pytest.raises(AlreadyExistsError, match=r"case\.py is there already"):
        writer.write("case", folder / "people.csv", folder)

    assert (folder / "case.py").read_text() == "years = 'of work'\n"


@pytest.mark.parametrize("name", ["my-case", "class", "1st", "größe"])
def test_a_name_that_no_module_can_have_is_refused(folder, name):
    with pytest.raises(InvalidArgumentError, match="can't name a Python module"):
        writer.write(name, folder / "people.csv", folder)


def test_a_file_without_rows_or_that_is_none_is_refused(folder):
    (folder / "people.csv").write_text("a,b\n")
    (folder / "people.parquet").write_text("a,b\n1,2\n")

    with pytest.raises(DataIntegrityError, match="holds no rows"):
        guesses.read(folder / "people.csv")
    with pytest.raises(DataIntegrityError, match="can't be read as parquet"):
        guesses.read(folder / "people.parquet")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([18.25, 118.75], (0, 200)),
        ([0.012, 0.018], (0.012, 0.018)),
        ([-3, 47], (-10, 50)),
        ([1, 1], None),
        ([0.0, np.inf], None),
        ([1015, 1029], (1010, 1030)),
    ],
)
def test_ranges_are_rounded_outward(values, expected):
    kind = "integer" if all(isinstance(value, int) for value in values) else "number"
    found = guesses.limits(guesses.Column(data=pd.Series(values), kind=kind))

    assert found == (expected if expected is None else pytest.approx(expected))
    if found:
        assert found[0] <= min(values) <= max(values) <= found[1]
