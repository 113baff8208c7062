"""Speed of our runner and of Kubeflow's own local runner, on the same pipeline of ten tasks.

The pipeline ingests two tables, validates them, makes features for training and for the test,
trains a small Keras model, evaluates it, judges it, pushes it if it is good enough, and tells how
it ended. Runs it with `kfp.local` and with our runner in both of its modes; a second run has
another seed, which changes every table, so that nothing comes from a cache. Each way has a process
of its own in each round. Prints the table and writes it to benchmarks/pipeline_speed.md; fails if
our second run is not 4 times as fast as that of `kfp.local`.

Example: python -m benchmarks.pipeline_speed
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from kfp import dsl, local
from kfp.dsl import Dataset, Input, Model, Output, PipelineTaskFinalStatus

from mlops_mini.runner.runner import Runner

LEAST_RATIO = 4.0
WAYS = {
    "kfp_local": "kfp.local, SubprocessRunner(use_venv=False)",
    "fork": "ours, fork server",
    "inline": "ours, inline",
}
RUNS = ("first run", "second run, nothing cached", "all cached")

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def ingest(seed: int, n_rows: int, table: Output[Dataset]) -> None:
    """Make a table of 8 columns and a label."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(n_rows, 8)), columns=[f"x{i}" for i in range(8)])
    rows["late"] = (rows["x0"] + rows["x1"] * rows["x2"] > rng.normal(size=n_rows)).astype(int)
    rows.to_csv(table.path, index=False)


@component
def validate(one: Input[Dataset], other: Input[Dataset], clean: Output[Dataset]) -> None:
    """Put two tables together, if they have no gaps."""
    import pandas as pd

    rows = pd.concat([pd.read_csv(table.path) for table in (one, other)])
    if rows.isna().any().any() or not rows["late"].isin([0, 1]).all():
        raise ValueError("the tables have gaps, or labels that are neither 0 nor 1")
    rows.to_csv(clean.path, index=False)


@component
def features(clean: Input[Dataset], part: str, made: Output[Dataset]) -> None:
    """Make one more column, for the rows to train on or for the others."""
    import pandas as pd

    rows = pd.read_csv(clean.path)
    n_train = len(rows) * 3 // 4
    rows = rows[:n_train] if part == "train" else rows[n_train:]
    rows.assign(x8=rows["x1"] * rows["x2"]).to_csv(made.path, index=False)


@component
def train(rows: Input[Dataset], model: Output[Model]) -> None:
    """Fit a small Keras model."""
    from pathlib import Path

    import keras
    import pandas as pd

    keras.utils.set_random_seed(0)
    table = pd.read_csv(rows.path)
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(1, "sigmoid")]
    made = keras.Sequential([keras.layers.Input((9,)), *layers])
    made.compile("adam", "binary_crossentropy")
    made.fit(table.drop(columns="late"), table["late"], epochs=3, batch_size=256, verbose=0)
    Path(model.path).mkdir(parents=True)
    made.save(Path(model.path) / "model.keras")


@component
def evaluate(rows: Input[Dataset], model: Input[Model]) -> float:
    """Return the area under the ROC curve."""
    from pathlib import Path

    import keras
    import pandas as pd
    from sklearn import metrics

    table = pd.read_csv(rows.path)
    trained = keras.models.load_model(Path(model.path) / "model.keras")
    scores = trained.predict(table.drop(columns="late"), verbose=0)
    return float(metrics.roc_auc_score(table["late"], scores[:, 0]))


@component
def gate(auc: float) -> bool:
    """Tell whether a model is good enough."""
    return auc > 0.7


@component
def push(model: Input[Model], folder: str) -> None:
    """Copy the model to where it would be served."""
    import shutil

    shutil.copytree(model.path, folder, dirs_exist_ok=True)


@component
def tell(status: PipelineTaskFinalStatus, folder: str) -> None:
    """Write down how it ended."""
    from pathlib import Path

    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "verdict.txt").write_text(status.state)


@dsl.pipeline(name="ten-tasks")
def ten_tasks(seed: int, folder: str) -> None:
    """Train, judge and push; what has an effect outside is never taken from the cache."""
    told = tell(folder=folder).set_caching_options(enable_caching=False)
    with dsl.ExitHandler(told):
        one = ingest(seed=seed, n_rows=10_000).outputs["table"]
        other = ingest(seed=seed, n_rows=20_000).outputs["table"]
        clean = validate(one=one, other=other).outputs["clean"]
        to_learn = features(clean=clean, part="train").outputs["made"]
        to_test = features(clean=clean, part="test").outputs["made"]
        model = train(rows=to_learn).outputs["model"]
        auc = evaluate(rows=to_test, model=model).output
        with dsl.If(gate(auc=auc).output == True):  # noqa: E712 - kfp compares so
            push(model=model, folder=folder).set_caching_options(enable_caching=False)


def cpu_s() -> float:
    """CPU seconds of this process and of all that it has started."""
    this = psutil.Process()
    return sum(sum(one.cpu_times()[:4]) for one in (this, *this.children(recursive=True)))


def measured(run: Callable[[int, Path], Any], folder: Path) -> list[tuple[float, float]]:
    """Wall and CPU seconds of a first run, one with another seed, and the same once more."""
    figures = []
    for i, seed in enumerate((1, 2, 2)):
        pushed = folder / f"pushed_{i}"
        wall, cpu = time.perf_counter(), cpu_s()
        run(seed, pushed)
        figures.append((time.perf_counter() - wall, cpu_s() - cpu))
        found = sorted(file.name for file in pushed.iterdir())
        if found != ["model.keras", "verdict.txt"]:
            raise RuntimeError(f"run {i} has not pushed its model: there is {found}")
    return figures


def measure(way: str, folder: Path) -> list[tuple[float, float]]:
    """Measure one way, in this process; `kfp.local` has no cache, so its third run is left out."""
    if way == "kfp_local":
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "root"))
        return measured(lambda seed, to: ten_tasks(seed=seed, folder=str(to)), folder)[:2]
    with Runner(folder / "root", mode=way) as runner:  # type: ignore[arg-type]
        return measured(
            lambda seed, to: runner.run(ten_tasks, {"seed": seed, "folder": str(to)}), folder
        )


def in_own_process(way: str) -> list[tuple[float, float]]:
    """Measure one way in a process that has not imported anything for another."""
    with tempfile.TemporaryDirectory() as folder:
        # kfp.local starts `python3`, whichever it finds; it also prints a lot.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "benchmarks.pipeline_speed", "--measure", way, folder]
        with (Path(folder) / "log.txt").open("w") as log:
            done = subprocess.run(
                command, stdout=log, stderr=log, env={**os.environ, "PATH": path}, check=False
            )
        if done.returncode:
            raise RuntimeError((Path(folder) / "log.txt").read_text())
        return json.loads((Path(folder) / "figures.json").read_text())


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, folder = options.measure
        figures = measure(way, Path(folder))
        (Path(folder) / "figures.json").write_text(json.dumps(figures))
        return
    rounds = [{way: in_own_process(way) for way in WAYS} for _ in range(options.rounds)]
    wall, cpu = (
        {
            way: [statistics.median(run[i] for run in runs) for runs in zip(*every, strict=True)]
            for way in WAYS
            for every in [[one[way] for one in rounds]]
        }
        for i in (0, 1)
    )
    lines = []
    for way, title in WAYS.items():
        # kfp.local keeps nothing, and inline nobody takes what was made inline.
        kept = 3 if way == "fork" else 2
        cells = [f"{a:.2f} / {b:.2f}" for a, b in zip(wall[way], cpu[way], strict=True)]
        lines.append(f"| {title} | {' | '.join([*cells[:kept], '-'][:3])} |")
    ratios = {way: wall["kfp_local"][1] / wall[way][1] for way in ("fork", "inline")}
    cpu_ratio = cpu["kfp_local"][1] / cpu["fork"][1]
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, kfp"
        f" {version('kfp')}, TensorFlow {version('tensorflow')}"
    )
    text = "\n".join(
        [
            "# Speed of the pipeline's runner",
            "",
            "Ten tasks: ingest twice, validate, features twice, train, evaluate, gate, push, exit",
            "handler. Wall / CPU seconds, children included.",
            "",
            f"| how | {' | '.join(RUNS)} |",
            "| --- | ---: | ---: | ---: |",
            *lines,
            "",
            f"With the fork server the second run is {ratios['fork']:.1f} times as fast as that of",
            f"kfp.local, for {cpu_ratio:.1f} times less CPU; inline {ratios['inline']:.1f} times.",
            "When all is cached, push and exit handler still run: they have effects outside.",
            "",
            f"Medians of {options.rounds} rounds, the ways in turn, each in a process of its own.",
            f"{options.date}, {machine}.",
        ]
    )
    sys.stdout.write(text + "\n")
    if ratios["fork"] < LEAST_RATIO:
        sys.exit(f"only {ratios['fork']:.1f} times as fast, at least {LEAST_RATIO:.0f} is promised")
    Path(__file__).with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
