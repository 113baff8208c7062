"""Dataflow: our statistics under Apache Beam, whose runners here are its own for one machine."""

import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_mini import workspace
from mlops_mini.statistics import mergeable, protos
from mlops_mini.statistics.beam_job import dataflow_arguments
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics
from tools.platforms import environments
from tools.platforms.piece import Piece

MONTHS = ("2013-01", "2013-02")
RUNNERS = {
    "DirectRunner": ["--runner=DirectRunner"],
    # What Dataflow speaks too: workers get the pipeline by Beam's portable protocol.
    "PortableRunner": [
        "--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK",
    ],
}  # fmt: skip
N_ROWS = 10_000_000
MOST_MB = 400
ON_DATAFLOW = dataflow_arguments(
    project="flights-prod",
    region="us-central1",
    bucket="flights-statistics",
    image="us-docker.pkg.dev/flights-prod/mlops/beam@sha256:" + 64 * "0",
)


def run(folder: Path) -> Piece:
    """Count two months on both runners, compare, count many rows, and try Dataflow's options."""
    environment = environments.made("beam")
    (folder / "flights").mkdir()
    ours = mergeable.create()
    for month in MONTHS:
        file = workspace.existing_data_folder(None) / "flights" / f"{month}.parquet"
        shutil.copy(file, folder / "flights")
        ours = mergeable.merge(ours, mergeable.add(mergeable.create(), pd.read_parquet(file)))
    facts = {}
    for name, options in RUNNERS.items():
        output = folder / f"{name}.pb"
        began = time.monotonic()
        files = [f"--input={folder}/flights/*.parquet", f"--output={output}"]
        python = str(environment / "bin" / "python")
        job = [python, "-m", "mlops_mini.statistics.beam_job", *files, *options]
        environments.run(job, more={"PYTHONPATH": str(environments.REPOSITORY)})
        theirs = protos.read(output)
        different = differing(ours, theirs)
        environments.require(not different, f"under {name} {different} are counted otherwise")
        seconds = time.monotonic() - began
        what = f"{theirs.n_rows:,} rows, {name}"
        facts |= {
            f"{what}: columns that differ from pandas": f"{len(different)} of {len(ours.columns)}",
            f"{what}: time": f"{seconds:.0f} s, start included",
        }
    found = environments.ask(
        environment, "beam_rows", folder, str(N_ROWS), *ON_DATAFLOW, sees_package=True
    )
    environments.require(
        found["n_rows"] == N_ROWS and found["peak_mb"] < MOST_MB,
        f"{found['n_rows']} rows took {found['peak_mb']:.0f} MB, expected {N_ROWS} under {MOST_MB}",
    )
    said = [found[name].partition(":")[0] for name in ("accepted", "unknown", "missing")]
    environments.require(said == ["accepted", "refused", "refused"], f"options were {said}")
    return Piece(
        name="Dataflow",
        notes_tool="Dataflow (Apache Beam)",
        our_object="`statistics.beam_job`: the mergeable statistics as a `CombineFn`",
        command="make platforms ONLY=dataflow",
        state="ran",
        facts={
            "Apache Beam": found["version"],
            **facts,
            f"{found['n_rows']:,} rows, DirectRunner: time": f"{found['seconds']:.0f} s",
            f"{found['n_rows']:,} rows, DirectRunner: peak memory": f"{found['peak_mb']:.0f} MB",
            "options for Dataflow": found["accepted"],
            "options with an unknown one": found["unknown"],
            "options without a project": found["missing"],
            "environment": environments.size_mb(environment),
        },
    )


def differing(a: TableStatistics, b: TableStatistics) -> list[str]:
    """Name the columns whose counts aren't the same, or whose means differ beyond 1e-12."""
    names = dict.fromkeys([*a.columns, *b.columns])
    return [
        name
        for name in names
        if name not in a.columns
        or name not in b.columns
        or not _is_same(a.columns[name], b.columns[name])
    ]


def _is_same(a: ColumnStatistics, b: ColumnStatistics) -> bool:
    exact = ("kind", "n_missing", "n_present", "level", "n_fractional", "minimum", "maximum")
    return (
        all(getattr(a, name) == getattr(b, name) for name in exact)
        and a.counts.index.equals(b.counts.index)
        and bool((a.counts.to_numpy() == b.counts.to_numpy()).all())
        and bool(np.isclose(a.mean, b.mean, rtol=1e-12, atol=0))
        and bool(np.isclose(a.squares, b.squares, rtol=1e-12, atol=0))
    )
