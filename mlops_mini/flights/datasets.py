"""Flights, weather and their companions, each read and checked.

Every loader takes the folder to read from. Without one it is the folder that
`workspace.data_folder` tells; its README.md has sources and licenses.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from mlops_mini import files, workspace
from mlops_mini.data import table_files
from mlops_mini.data.periods import Period
from mlops_mini.errors import NotFoundError
from mlops_mini.flights import tables


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
    root = data_folder(folder)
    return table_files.partitions(tables.FLIGHTS, calendar=tables.CALENDAR, folder=root)


def flights(period: Period | str, *, folder: Path | str | None = None) -> pd.DataFrame:
    """Load the flights out of New York of a month or a week.

    Real defects are still in; `rules.split(tables.FLIGHTS, ...)` tells the rows that break a rule.

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
        InvalidArgumentError: The text is no period, or a period is not of New York.
        NotFoundError: The folder, or a month that is needed, is not there.
        DataIntegrityError: A file is not what its checksum or its columns say, or has no flight.

    >>> january = flights("2013-01")
    >>> january.shape, float(january["arr_delay"].max())  # minutes
    ((27004, 15), 1272.0)
    >>> len(flights("2013-W00"))
    6099
    """
    return table_files.load(
        tables.FLIGHTS,
        tables.CALENDAR.period(period),
        calendar=tables.CALENDAR,
        folder=data_folder(folder),
    )


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
    return _read("weather.parquet", tables.WEATHER.arrow, folder)


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


def _read(name: str, schema: pa.Schema, folder: Path | str | None) -> pd.DataFrame:
    return table_files.read(files.checked_path(data_folder(folder), name), schema)


def count_rows(*, folder: Path | str | None = None) -> dict[str, int]:
    """Read and check every table of a folder, and count its rows.

    Args:
        folder: See `data_folder`.

    Returns:
        Rows by file; a file that is not there is left out.

    Raises:
        NotFoundError: The folder is not there.
        DataIntegrityError: A file is not what its checksum or its columns say.

    >>> n_rows = count_rows()
    >>> len(n_rows), n_rows["flights/2013-01.parquet"], n_rows["weather.parquet"]
    (15, 27004, 26115)
    """
    root = data_folder(folder)
    n_rows = {
        f"flights/{month}.parquet": len(flights(month, folder=root))
        for month in flight_months(root)
    }
    for name, load in (
        ("weather.parquet", weather),
        ("planes.parquet", planes),
        ("carriers.parquet", carriers),
    ):
        if (root / name).is_file():
            n_rows[name] = len(load(folder=root))
    return n_rows
