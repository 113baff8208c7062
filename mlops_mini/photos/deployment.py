"""Weeks of photos as they arrive from the stores, made from the sample of Fashion-MNIST."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_mini import files
from mlops_mini.data import tensors
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.photos import camera, datasets
from mlops_mini.photos.tables import CALENDAR, PHOTOS, RELABELED

FIRST_WEEK = "2026-W01"
N_WEEKS = 12
_OPENS_H, _CLOSES_H = 9, 20


def photos(
    *, n_photos: int = 6_000, n_weeks: int = N_WEEKS, seed: int = 0, folder: Path | None = None
) -> pd.DataFrame:
    """Take photos of pieces of the training set, spread over some weeks.

    Which piece is photographed, when and under which condition follows from the seed alone. Ids
    count the photos in the order in which they're taken.

    Args:
        n_photos: Up to 30,000; no piece is photographed twice.
        n_weeks: From `FIRST_WEEK` on, at least ten: a pipeline holds two out, and compares.
        seed: From 0.
        folder: The data folder of the sample; without it `workspace.data_folder()`.

    Returns:
        Rows of `PHOTOS` in order of time, labeled as the sample labels them.

    Raises:
        InvalidArgumentError: More photos than pieces, or fewer than ten weeks.
        NotFoundError: The sample isn't there.
    """
    sample = datasets.fashion_mnist(folder=folder)
    if not 0 < n_photos <= len(sample.train_labels) or not 10 <= n_weeks <= 50:
        raise InvalidArgumentError(
            f"{n_photos} photos in {n_weeks} weeks: take 1 to {len(sample.train_labels)} in 10 to"
            " 50 weeks"
        )
    generator = np.random.default_rng([seed, 2])
    pieces = generator.permutation(len(sample.train_labels))[:n_photos]
    midnight = pd.Timestamp(CALENDAR.period(FIRST_WEEK).start).tz_convert(CALENDAR.zone)
    days = generator.integers(0, 7 * n_weeks, n_photos)
    seconds = generator.integers(3600 * _OPENS_H, 3600 * _CLOSES_H, n_photos)
    local = midnight.tz_localize(None) + pd.to_timedelta(days, "D") + pd.to_timedelta(seconds, "s")
    taken_at = pd.Series(local).sort_values(ignore_index=True)
    ids = np.arange(n_photos)
    conditions = camera.draw_conditions(ids, seed=seed)
    images = camera.photograph(sample.train_images[pieces], ids, seed=seed, conditions=conditions)
    return pd.DataFrame(
        {
            "photo": ids,
            "taken_at": taken_at.dt.tz_localize(CALENDAR.zone).dt.tz_convert("UTC"),
            "condition": conditions.astype(object),
            "image": tensors.column(images),
            "clothing": np.array(datasets.CLASSES, object)[sample.train_labels[pieces]],
        }
    )


def write(rows: pd.DataFrame, folder: Path) -> None:
    """Write photos into a data folder, one file for each week, and a list of no corrections.

    Args:
        rows: As `photos` returns them.
        folder: Gets `photos/WEEK.parquet` and, if there's none yet, `relabeled.csv` with its line
            of column names: whoever relabels a photo adds a line.
    """
    (folder / PHOTOS.name).mkdir(parents=True, exist_ok=True)
    weeks = [str(CALENDAR.partition(at.to_pydatetime())) for at in rows["taken_at"]]
    for week, part in rows.groupby(weeks):
        table = pa.Table.from_pandas(part, PHOTOS.arrow, preserve_index=False)
        with files.whole_file(folder / PHOTOS.name / f"{week}.parquet") as unfinished:
            # pandas can't read its own notes on such columns.
            pq.write_table(table.replace_schema_metadata(None), unfinished)
    corrections = folder / f"{RELABELED.name}.csv"
    if not corrections.exists():
        corrections.write_text(",".join(RELABELED.columns) + "\n")
