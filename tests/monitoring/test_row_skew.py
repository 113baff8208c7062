from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.monitoring import row_skew
from mlops_mini.prediction_log import Reader
from mlops_mini.statistics import drift, mergeable
from tests.monitoring.logs import log_file, record

N = 200


@pytest.fixture
def computed() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    usd = rng.uniform(0, 100, N).round(2)
    usd[::10] = np.nan
    plan = pd.Series(rng.choice(["basic", "gold"], N), dtype="category").cat.add_categories("new")
    plan[::7] = np.nan
    ids = [f"r{i}" for i in range(N)]
    return pd.DataFrame({"request_id": ids, "usd": usd, "plan": plan, "n": rng.integers(0, 9, N)})


def write(folder: Path, sent: pd.DataFrame, **options: object) -> Path:
    """Log requests with these features, as a client of the model server sends them."""
    records = []
    for i, row in enumerate(sent.to_dict("records")):
        request_id, plan = row.pop("request_id"), row.pop("plan")
        arrays = {name: np.float32([value]) for name, value in row.items()}
        arrays["plan"] = np.array([b"" if pd.isna(plan) else plan.encode()], object)
        records.append(record(request_id, i, arrays, 0.5, **options))
    log_file(folder, 0).write_bytes(b"".join(records))
    return folder / "log"


def compared(log: Path, computed: pd.DataFrame, **options: object) -> row_skew.RowSkew:
    return row_skew.compare(Reader(log), computed, model="churn", **options)


def shares(found: row_skew.RowSkew) -> dict[str, float]:
    return {column.column: column.share for column in found.columns}


@pytest.mark.parametrize("n_batch", [7, 5_000])
def test_what_was_computed_right_differs_nowhere(computed, tmp_path: Path, n_batch: int) -> None:
    """Numbers are rounded to float32, NaN is sent as it is, and a missing text is an empty one."""
    found = compared(write(tmp_path, computed), computed, n_batch=n_batch)

    assert shares(found) == {"usd": 0.0, "plan": 0.0, "n": 0.0}
    assert (found.n_rows, found.n_different, found.n_unknown) == (N, 0, 0)


def test_rows_show_what_distributions_cannot(computed, tmp_path: Path) -> None:
    """A store that lags by one request sends each what the one before should have got."""
    late = computed.assign(usd=np.roll(computed["usd"], 1))
    before, after = (
        mergeable.add(mergeable.create(), table[["usd"]]) for table in (computed, late)
    )

    found = compared(write(tmp_path, late), computed)

    assert drift.compare(before, after).columns[0].psi == 0
    (usd,) = (column for column in found.columns if column.share)
    assert (usd.column, found.columns[0]) == ("usd", usd)
    assert usd.share * N == (late["usd"].fillna(-1) != computed["usd"].fillna(-1)).sum() > 0.9 * N
    assert found.n_different == usd.share * N
    assert usd.example == f"request r0: {late['usd'][0]} was sent, nan computed"


def test_each_feature_has_its_own_share(computed, tmp_path: Path) -> None:
    sent = computed.copy()
    sent.loc[:9, "usd"] *= 100  # of a unit
    sent.loc[5:24, "plan"] = "new"
    sent = sent.drop(columns="n")

    found = compared(write(tmp_path, sent), computed)

    n_plans = (computed["plan"].iloc[5:25] != "new").sum()
    assert shares(found) == {"n": 1.0, "plan": n_plans / N, "usd": 9 / N}  # one of ten is missing
    assert found.columns[0].example == f"request r0: nan was sent, {computed['n'][0]} computed"
    assert found.n_different == N


def test_a_tolerance_is_relative(computed, tmp_path: Path) -> None:
    log = write(tmp_path, computed.assign(usd=computed["usd"] * (1 + 1e-5)))

    assert shares(compared(log, computed))["usd"] > 0.8
    assert shares(compared(log, computed, rtol=1e-4))["usd"] == 0


def test_only_known_requests_of_the_model_count_and_each_once(computed, tmp_path: Path) -> None:
    log = write(tmp_path, computed)
    again = computed.iloc[:30].assign(usd=-1.0)  # of known requests: the first one was answered
    with log_file(tmp_path, 0).open("ab") as file:
        for folder, model in (("again", "churn"), ("other", "flowers")):
            (tmp_path / folder).mkdir()
            write(tmp_path / folder, again, model=model)
            file.write(log_file(tmp_path / folder, 0).read_bytes())

    found = compared(log, computed.iloc[20:], n_batch=50)

    assert (found.n_rows, found.n_different) == (N - 20, 0)
    assert found.n_unknown == 40


def test_nothing_computed_leaves_every_row_unknown(computed, tmp_path: Path) -> None:
    found = compared(write(tmp_path, computed), computed[:0])

    assert (found.n_rows, found.n_different, found.n_unknown) == (0, 0, N)
    assert set(shares(found).values()) == {0.0}


def test_a_request_with_several_rows(tmp_path: Path) -> None:
    sent = {"usd": np.float32([1, 2, 3])}
    log_file(tmp_path, 0).write_bytes(record("a", 0, sent, [0.5] * 3))
    table = pd.DataFrame({"request_id": "a", "row": [2, 0, 1], "usd": [3.0, 1.0, 7.0]})

    found = compared(tmp_path / "log", table)

    assert shares(found) == {"usd": pytest.approx(1 / 3)}


def test_nothing_asked_and_what_makes_no_table(computed, tmp_path: Path) -> None:
    found = compared(write(tmp_path, computed, model="flowers"), computed)

    assert (found.n_rows, found.n_different, shares(found)["usd"]) == (0, 0, 0.0)
    with pytest.raises(InvalidArgumentError, match="no request_id among"):
        compared(tmp_path / "log", computed.drop(columns="request_id"))
    with pytest.raises(InvalidArgumentError, match="request r3, row 0, was computed twice"):
        compared(tmp_path / "log", pd.concat([computed, computed.iloc[3:5]]))
