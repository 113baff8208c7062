"""Flights, weather and their companions, and a sample of Fashion-MNIST, each read and checked.

Every loader takes the folder to read from. Without one it is the folder that
`workspace.data_folder` tells; its README.md has sources and licenses.
"""

import csv
import zipfile
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_mini import workspace
from mlops_mini.data import integrity, table
from mlops_mini.data.periods import Period
from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.flights import tables, times

ZONES_FILE = "airport_zones.csv"
FASHION_FILE = "fashion_mnist.npz"

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def data_folder(folder: Path | str | None = None) -> Path:
    """Find the folder with the data.

    Args:
        folder: The folder itself; without it `workspace.data_folder()`.

    Returns:
        A folder that exists.

    Raises:
        NotFoundError: It does not.
    """
    path = Path(folder) if folder else workspace.data_folder()
    if not path.is_dir():
        raise NotFoundError(
            f"no data folder {path}, which should hold flights and weather: name one by --data"
            " (folder=) or MLOPS_MINI_DATA, such as data/ in a checkout of mlops_mini, work below"
            " such a checkout, or make one with `python -m tools.rebuild_data`"
        )
    return path


def flight_months(folder: Path | str | None = None) -> list[Period]:
    """List the months of flights that a folder holds.

    Args:
        folder: See `data_folder`.

    Returns:
        Months in order; none if there are none.

    >>> [str(month) for month in flight_months()[:3]]
    ['2013-01', '2013-02', '2013-03']
    """
    files = (data_folder(folder) / "flights").glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].parquet")
    return sorted(Period.parse(file.stem) for file in files)


def flights(period: Period | str, *, folder: Path | str | None = None) -> pd.DataFrame:
    """Load the flights out of New York of a month or a week.

    Real defects are still in; `mlops_mini.flights.row_rules` tells the rows that break a rule.

    Args:
        period: A month, which is one file, or a week, which is cut from the months that it touches
            by the instant of the scheduled departure.
        folder: See `data_folder`. It holds `flights/YYYY-MM.parquet`.

    Returns:
        One row a flight, in the order of the source within each month:

        - `flight_id` int32: row number in the source, from 0; the stable name of the flight.
        - `year` int16, `month` int8, `day` int8: date of the scheduled departure in New York.
        - `sched_dep_time` int16: scheduled departure, HHMM on the clocks of New York.
        - `sched_arr_time` int16: scheduled arrival, HHMM on the clocks of the destination.
        - `dep_delay`, `arr_delay` float64: minutes, negative if early. NaN if canceled; `arr_delay`
          also if diverted. An outcome, known only once it has happened.
        - `air_time` float64: minutes in the air, NaN if canceled or diverted; an outcome too.
        - `carrier`, `origin`, `dest` str: codes of two letters or digits, and of three letters.
        - `flight` int16: flight number. `tailnum` str or None: the plane, known late.
        - `distance` int16: miles.

    Raises:
        InvalidArgumentError: The text is no period.
        NotFoundError: The folder, or a month that is needed, is not there.
        DataIntegrityError: A file is not what its checksum or its columns say, or has no flight.

    >>> january = flights("2013-01")
    >>> january.shape, float(january["arr_delay"].max())  # minutes
    ((27004, 15), 1272.0)
    >>> len(flights("2013-W00"))
    6099
    """
    period = Period.parse(period)
    root = data_folder(folder)
    parts = [_flights_of_month(root, month) for month in period.months()]
    if period.kind == "month":
        return parts[0]
    both = pd.concat(parts, ignore_index=True)
    instant = times.scheduled_departure(both)
    week = both[(instant >= period.start) & (instant < period.end)].reset_index(drop=True)
    if week.empty:
        raise DataIntegrityError(
            f"no flight of {period} in {[str(month) for month in period.months()]} of {root};"
            " expected at least one: are these months complete?"
        )
    return week


def _flights_of_month(root: Path, month: Period) -> pd.DataFrame:
    name = f"flights/{month}.parquet"
    if not (root / name).is_file():
        there = [str(other) for other in flight_months(root)]
        span = f"{there[0]} to {there[-1]} ({len(there)} months)" if there else "no month at all"
        raise NotFoundError(
            f"no flights of {month} in {root}; there is {span}: ask for one of these, or add {name}"
        )
    return table.read(integrity.checked_path(root, name), tables.FLIGHTS)


def weather(*, folder: Path | str | None = None) -> pd.DataFrame:
    """Load the hourly weather at the three airports.

    Args:
        folder: See `data_folder`.

    Returns:
        One row an airport and hour:

        - `origin` str; `year` int16, `month day hour` int8: airport and local hour. As a key these
          are **not** unique: the hour when clocks go back is there twice.
        - `temp`, `dewp` float64: degrees Fahrenheit. `humid`: relative humidity, percent.
        - `wind_dir` float64: degrees. `wind_speed`, `wind_gust`: miles per hour.
        - `precip` float64: inches. `pressure`: millibars. `visib`: miles.
        - `time_hour` `datetime64[ns, UTC]`: the hour observed, published one hour later.

    Raises:
        NotFoundError: The folder or the file is not there.
        DataIntegrityError: The file is not what its checksum or its columns say.

    >>> hours = weather()
    >>> hours.duplicated(["origin", "time_hour"]).any().item()
    False
    >>> hours.duplicated(["origin", "year", "month", "day", "hour"]).sum().item()
    3
    """
    return _read("weather.parquet", tables.WEATHER, folder)


def planes(*, folder: Path | str | None = None) -> pd.DataFrame:
    """Load the planes.

    Args:
        folder: See `data_folder`.

    Returns:
        One row a plane: `tailnum type manufacturer model engine` str, `year` built float64 or NaN,
        `engines` int8, `seats` int16, `speed` float64 cruising, miles per hour, mostly NaN. Every
        sixth flight has a `tailnum` that is not here.

    Raises:
        NotFoundError: The folder or the file is not there.
        DataIntegrityError: The file is not what its checksum or its columns say.

    >>> planes()["tailnum"].is_unique
    True
    """
    return _read("planes.parquet", tables.PLANES, folder)


def carriers(*, folder: Path | str | None = None) -> pd.DataFrame:
    """Load the names of the carriers.

    Args:
        folder: See `data_folder`.

    Returns:
        One row a carrier: its code `carrier` and its `name`, str.

    Raises:
        NotFoundError: The folder or the file is not there.
        DataIntegrityError: The file is not what its checksum or its columns say.

    >>> carriers().set_index("carrier").loc["HA", "name"]
    'Hawaiian Airlines Inc.'
    """
    return _read("carriers.parquet", tables.CARRIERS, folder)


def _read(name: str, schema: object, folder: Path | str | None) -> pd.DataFrame:
    return table.read(integrity.checked_path(data_folder(folder), name), schema)


def airport_zones(*, folder: Path | str | None = None) -> Mapping[str, str]:
    """Load the time zone of each airport.

    Args:
        folder: See `data_folder`.

    Returns:
        IANA zone by airport code, read-only.

    Raises:
        NotFoundError: The folder or the file is not there.
        DataIntegrityError: The file is not what its checksum says, or a line names no known zone.

    >>> airport_zones()["SJU"]
    'America/Puerto_Rico'
    """
    path = integrity.checked_path(data_folder(folder), ZONES_FILE)
    return _parse_zones(path, integrity.file_sha256(path))


@lru_cache(maxsize=8)
def _parse_zones(path: Path, _sha256: str) -> Mapping[str, str]:
    zones: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                zones[row["airport"]] = ZoneInfo(row["zone"]).key
            except (KeyError, ValueError, TypeError, AttributeError, OSError) as exc:
                raise DataIntegrityError(
                    f"{path} has the line {list(row.values())}, expected columns airport and zone,"
                    " an IANA time zone such as America/Denver: correct it"
                ) from exc
    return MappingProxyType(zones)


@dataclass(frozen=True, kw_only=True, slots=True)
class FashionMnist:
    """A sample of Fashion-MNIST: photos of clothes, and what they show.

    Attributes:
        train_images: The first 30,000 of the training set, uint8 of shape (30000, 28, 28), 0 is the
            background and 255 the brightest.
        train_labels: Class of each, uint8 0 to 9, an index into `FASHION_CLASSES`.
        test_images: The whole test set, uint8 of shape (10000, 28, 28).
        test_labels: Class of each, uint8 0 to 9.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def fashion_mnist(*, folder: Path | str | None = None) -> FashionMnist:
    """Load the sample of Fashion-MNIST.

    Args:
        folder: See `data_folder`.

    Returns:
        Images and labels, fresh arrays.

    Raises:
        NotFoundError: The folder or the file is not there.
        DataIntegrityError: The file is not what its checksum says, or its arrays are others.

    >>> sample = fashion_mnist()
    >>> sample.train_images.shape, FASHION_CLASSES[sample.train_labels[0]]
    ((30000, 28, 28), 'Ankle boot')
    """
    path = integrity.checked_path(data_folder(folder), FASHION_FILE)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            sample = FashionMnist(**arrays)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as exc:
        raise DataIntegrityError(
            f"{path} is not the sample as npz ({str(exc).partition(chr(10))[0]}); get it back with"
            " `git checkout -- data` or `python -m tools.rebuild_data`"
        ) from exc
    for images, labels in (
        (sample.train_images, sample.train_labels),
        (sample.test_images, sample.test_labels),
    ):
        found = (images.dtype.name, images.shape, labels.dtype.name)
        if found != ("uint8", (len(labels), 28, 28), "uint8"):
            raise DataIntegrityError(
                f"{path} has images {images.dtype}{images.shape} with labels"
                f" {labels.dtype}{labels.shape}, expected uint8 of (n, 28, 28) with (n,);"
                " write it again"
            )
    return sample


def count_rows(*, folder: Path | str | None = None) -> dict[str, int]:
    """Read and check every data set of a folder, and count its rows.

    Args:
        folder: See `data_folder`.

    Returns:
        Rows, or images, by file; a file that is not there is left out.

    Raises:
        NotFoundError: The folder is not there.
        DataIntegrityError: A file is not what its checksum or its columns say.

    >>> n_rows = count_rows()
    >>> len(n_rows), n_rows["flights/2013-01.parquet"], n_rows["fashion_mnist.npz"]
    (17, 27004, 40000)
    """
    root = data_folder(folder)
    n_rows: dict[str, int] = {}
    for month in flight_months(root):
        n_rows[f"flights/{month}.parquet"] = len(flights(month, folder=root))
    loaders: tuple[tuple[str, Callable[..., Sized]], ...] = (
        ("weather.parquet", weather),
        ("planes.parquet", planes),
        ("carriers.parquet", carriers),
        (ZONES_FILE, airport_zones),
    )
    for name, load in loaders:
        if (root / name).is_file():
            n_rows[name] = len(load(folder=root))
    if (root / FASHION_FILE).is_file():
        sample = fashion_mnist(folder=root)
        n_rows[FASHION_FILE] = len(sample.train_labels) + len(sample.test_labels)
    return n_rows
