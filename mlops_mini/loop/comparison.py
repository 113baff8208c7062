"""What never and weekly retraining would have served, on the same rows.

Never retraining is the loop's own first version, for as long as it lasts. Weekly retraining trains
anew with the loop's settings, and has everything its own way: all labels up to the last minute, no
gate, and no release.

It runs beside the loop, in a process of its own: `python -m mlops_mini.loop.comparison WORKSPACE`
writes one small file per period and goes on where it was if it's killed. Nothing in the loop reads
them before its end.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from mlops_mini.data.periods import Period
from mlops_mini.errors import UnavailableError
from mlops_mini.files import whole_file
from mlops_mini.loop import state
from mlops_mini.loop.state import State
from mlops_mini.processes import ChildProcess

_FOLDER = "comparison"
_TIMEOUT_S = 1800.0
_N_STARTS = 5
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """Mean log loss of a period's labeled rows, nats.

    Attributes:
        period: The period.
        n_rows: How many rows there are.
        never: Under the loop's first version.
        always: Under one that has learned from all periods before it.
    """

    period: str
    n_rows: int
    never: float
    always: float


class Comparison:
    """The process that compares; it ends with the `with`, or with us."""

    def __init__(self, workspace: Path) -> None:
        """Start it."""
        self._workspace = workspace
        self._child = self._start()

    def wait(self, known: State) -> None:
        """Wait until all periods that were served are compared; start it anew if it has died.

        Raises:
            UnavailableError: It dies again and again.
            DeadlineExceededError: It takes more than half an hour.
        """
        names = {each.period for each in known.served}
        for n_left in reversed(range(_N_STARTS)):
            try:
                self._child.wait_for(
                    lambda: names <= read(self._workspace).keys() or None,
                    what="the comparison",
                    timeout_s=_TIMEOUT_S,
                )
            except UnavailableError:
                if names <= read(self._workspace).keys():  # it has ended just now
                    return
                if not n_left:
                    raise
                self._child = self._start()
            else:
                return

    def _start(self) -> ChildProcess:
        (self._workspace / _FOLDER).mkdir(exist_ok=True)
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
        )
        paths = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
        return ChildProcess(
            [sys.executable, "-m", "mlops_mini.loop.comparison", str(self._workspace.resolve())],
            name="the comparison",
            log_file=self._workspace / _FOLDER / "log.txt",
            env={**one_thread, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def close(self) -> None:
        """End it."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def read(workspace: Path) -> dict[str, Compared]:
    """Read what is there by now, by period."""
    files = sorted((workspace / _FOLDER).glob("*.json"))
    return {file.stem: Compared(**json.loads(file.read_bytes())) for file in files}


def compare(workspace: Path) -> None:
    """Compare all periods that aren't compared yet."""
    from mlops_mini.loop.world import World
    from mlops_mini.model import evaluation, training
    from mlops_mini.use_case import load

    plan = state.read(workspace).plan
    use_case = load(plan.use_case)
    periods = plan.periods(use_case.calendar)
    world = World(use_case, Path(plan.data_folder), periods)
    train = use_case.train or training.train

    def loss(answer: Callable[[pd.DataFrame], Any], period: Period) -> float:
        features, labels = world.examples_of(period)
        if not len(labels):
            return 0.0
        return float(evaluation.log_loss_per_row(answer(features), labels).mean())

    def trained(until: int) -> Any:
        parts = [world.examples_of(period) for period in periods[:until]]
        return train(
            pd.concat([features for features, _ in parts]),
            np.concatenate([labels for _, labels in parts]),
            seed=plan.seed,
            epochs=plan.epochs,
        )

    def ask(model: Any, features: pd.DataFrame) -> Any:
        inputs = training.as_inputs(features)
        return model.predict(inputs, batch_size=8192, verbose=0)["probability"]

    first = functools.partial(evaluation.predict, _first_version(workspace, use_case.name))
    for until, period in enumerate(periods[plan.n_first :], plan.n_first):
        file = workspace / _FOLDER / f"{period}.json"
        if file.exists():
            continue
        never = always = loss(first, period)
        if until > plan.n_first:
            always = loss(functools.partial(ask, trained(until)), period)
        n_rows = len(world.examples_of(period)[1])
        compared = Compared(period=str(period), n_rows=n_rows, never=never, always=always)
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(asdict(compared)) + "\n")


def _first_version(workspace: Path, model: str) -> Path:
    """Wait until the loop has published its first version; it ends with us if it never does."""
    while True:
        events = state.read(workspace).events
        for event in events:
            if event.kind == "first":
                return workspace / "models" / model / str(event.version)
        time.sleep(_POLL_S)


if __name__ == "__main__":
    os.nice(10)  # on what the loop leaves of the processor
    compare(Path(sys.argv[1]))
