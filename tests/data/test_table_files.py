import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_mini.data import table_files
from mlops_mini.errors import DataIntegrityError

SCHEMA = pa.schema(
    [
        pa.field("n", pa.int16(), nullable=False),
        pa.field("code", pa.string()),
        pa.field("x", pa.float64()),
        pa.field("at", pa.timestamp("us", tz="UTC")),
    ]
)


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "n": [1, 2],
            "code": ["UA", None],
            "x": [0.5, np.nan],
            "at": pd.to_datetime(["2013-01-01T05:00Z", None]),
        }
    )


def write(folder, frame):
    path = folder / "table.parquet"
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return path


def test_narrows_wider_types_and_leaves_other_columns_out(tmp_path, frame):
    other_maker = frame.assign(more=1, code=frame["code"].astype("category"))

    read = table_files.read(write(tmp_path, other_maker), SCHEMA)

    assert read.dtypes.astype(str).to_dict() == {
        "n": "int16",
        "code": "object",
        "x": "float64",
        "at": "datetime64[ns, UTC]",
    }
    assert read["code"].tolist() == ["UA", None]


@pytest.mark.parametrize("values", [[1, 2], [1.0, None], [1.0, 2.0]])
def test_integers_that_may_be_missing_are_always_floats(tmp_path, frame, values):
    schema = pa.schema([pa.field("n", pa.int16(), nullable=True)])

    read = table_files.read(write(tmp_path, frame.assign(n=values)), schema)

    assert read["n"].dtype == "float64"
    assert read["n"].fillna(-1).tolist() == [-1 if value is None else value for value in values]


def test_lets_a_missing_value_through_for_the_row_rules(tmp_path, frame):
    read = table_files.read(write(tmp_path, frame.assign(n=[3.0, None])), SCHEMA)

    assert read["n"].isna().tolist() == [False, True]


def test_reads_a_wholly_empty_column(tmp_path, frame):
    read = table_files.read(write(tmp_path, frame.assign(x=None, code=None)), SCHEMA)

    assert read["x"].dtype == "float64"
    assert read[["x", "code"]].isna().all(axis=None)


@pytest.mark.parametrize("keep", [0, 4, 500, -1])
def test_refuses_a_truncated_file(tmp_path, frame, keep):
    path = write(tmp_path, frame)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataIntegrityError, match="not a readable parquet file") as error:
        table_files.read(path, SCHEMA)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_damage_inside_the_file(tmp_path, frame):
    path = write(tmp_path, frame)
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196
    path.write_bytes(data)

    with pytest.raises(DataIntegrityError, match="not a readable parquet file"):
        table_files.read(path, SCHEMA)


def test_names_missing_columns_and_those_there(tmp_path, frame):
    path = write(tmp_path, frame.rename(columns={"n": "number"}))

    with pytest.raises(DataIntegrityError, match=r"lacks the columns \['n'\]; it has \['number'"):
        table_files.read(path, SCHEMA)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", ["1", "2"]),
        ("n", [True, False]),
        ("code", [1, 2]),
        ("x", ["0.5", "1"]),
        ("at", ["2013-01-01", "2013-01-02"]),
        ("at", pd.to_datetime(["2013-01-01", "2013-01-02"])),
    ],
)
def test_refuses_a_column_of_another_kind(tmp_path, frame, name, values):
    path = write(tmp_path, frame.assign(**{name: values}))

    with pytest.raises(DataIntegrityError, match=f"column '{name}' of type .* expected"):
        table_files.read(path, SCHEMA)


@pytest.mark.parametrize("values", [[1, 40_000], [1.0, 2.5]])
def test_refuses_values_that_the_type_cannot_hold(tmp_path, frame, values):
    path = write(tmp_path, frame.assign(n=values))

    with pytest.raises(DataIntegrityError, match="values in column 'n' that do not fit int16"):
        table_files.read(path, SCHEMA)


def test_refuses_a_file_without_rows(tmp_path, frame):
    path = write(tmp_path, frame[:0].assign(code=pd.Series(dtype="string")))

    with pytest.raises(DataIntegrityError, match="holds no rows"):
        table_files.read(path, SCHEMA)
