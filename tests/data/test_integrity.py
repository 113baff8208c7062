import datetime as dt

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import integrity
from mlops_mini.errors import InvalidArgumentError


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "delay_min": [1.0, None, -3.0],
            "carrier": ["UA", None, ""],
            "at": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03"], utc=True),
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(delay_min=[1.0, None, -3.5]),
        lambda table: table.assign(delay_min=[1.0, 0.0, -3.0]),
        lambda table: table.assign(carrier=["UA", "", ""]),
        lambda table: table.assign(carrier=["U", None, "A"]),
        lambda table: table.assign(at=table["at"] + pd.Timedelta(microseconds=1)),
        lambda table: table.assign(delay_min=table["delay_min"].astype("float32")),
        lambda table: table.rename(columns={"at": "at_utc"}),
        lambda table: table[["carrier", "delay_min", "at"]],
        lambda table: table[::-1],
        lambda table: table[:2],
        lambda table: table.assign(more=0),
    ],
)
def test_digest_tells_tables_apart(table, change):
    assert integrity.contents_digest(change(table)) != integrity.contents_digest(table)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.copy(),
        lambda table: table.set_index(pd.Index([7, 8, 9])),
        lambda table: table.assign(at=table["at"].astype("datetime64[us, UTC]")),
        lambda table: table.assign(at=table["at"].dt.tz_convert("Asia/Tokyo")),
        lambda table: table.assign(carrier=["UA", np.nan, ""]),
        lambda table: table.assign(carrier=table["carrier"].astype("string")),
        lambda table: table.assign(carrier=table["carrier"].astype("category")),
    ],
)
def test_digest_leaves_out_how_a_table_is_held(table, change):
    assert integrity.contents_digest(change(table)) == integrity.contents_digest(table)


def test_digest_sees_a_change_after_row_10000():
    table = pd.DataFrame({"late": np.zeros(30_000)})

    changed = table.assign(late=[0.0] * 29_999 + [1.0])

    assert integrity.contents_digest(changed) != integrity.contents_digest(table)


def test_digest_knows_the_shape_of_arrays():
    array = np.arange(6, dtype=np.uint8)

    digests = {integrity.contents_digest({"a": array.reshape(n, -1)}) for n in (1, 2, 3)}

    assert len(digests) == 3


def test_digest_refuses_a_name_that_is_no_text():
    table = pd.DataFrame({dt.date(2013, 1, 1): [1]})

    with pytest.raises(InvalidArgumentError, match=r"named datetime.date\(2013, 1, 1\) \(date\)"):
        integrity.contents_digest(table)


def test_digest_refuses_other_objects_by_column():
    with pytest.raises(InvalidArgumentError, match="'a' holds other objects than strings"):
        integrity.contents_digest(pd.DataFrame({"a": [1, "1"]}))
