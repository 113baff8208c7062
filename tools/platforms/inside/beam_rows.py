"""Counts made-up rows under Apache Beam, and has options for Dataflow checked."""

import json
import resource
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import apache_beam as beam
import numpy as np
import pandas as pd

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.statistics.beam import combine_fn
from mlops_mini.statistics.beam_job import checked_options

BATCH_ROWS = 100_000


def batch(seed: int) -> pd.DataFrame:
    """Make rows of whole numbers, of noisy ones, and of texts."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "delay_min": random.integers(-60, 1300, BATCH_ROWS),
            "noise": random.normal(size=BATCH_ROWS),
            "carrier": random.choice(["AA", "B6", "DL", "EV", "UA"], BATCH_ROWS),
        }
    )


def counted(n_rows: int, file: Path) -> None:
    """Count rows that are made inside the pipeline, and write how many there were."""
    with beam.Pipeline(options=checked_options(["--runner=DirectRunner"])) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(n_rows // BATCH_ROWS))
            | beam.Reshuffle()
            | beam.Map(batch)
            | beam.CombineGlobally(combine_fn())
            | beam.Map(lambda statistics: file.write_text(str(statistics.n_rows)))
        )


def answer(arguments: Sequence[str]) -> str:
    """Say what is said of options."""
    try:
        checked_options(arguments)
    except InvalidArgumentError as exc:
        return f"refused: {exc}"
    return "accepted"


def main(folder: Path, n_rows: int, on_dataflow: Sequence[str]) -> None:
    """Count and check, and write what was found."""
    began = time.monotonic()
    counted(n_rows, folder / "n_rows.txt")
    found = {
        "version": version("apache-beam"),
        "n_rows": int((folder / "n_rows.txt").read_text()),
        "seconds": time.monotonic() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "accepted": answer(on_dataflow),
        "unknown": answer([*on_dataflow, "--max_num_wrokers=5"]),
        "missing": answer([each for each in on_dataflow if "--project" not in each]),
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
