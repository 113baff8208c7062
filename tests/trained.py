import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from mlops_mini import workspace
from mlops_mini.data.periods import Period
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.model import training
from mlops_mini.pipeline import examples
from tests.once import made_once

FEATURE_NAMES = FLIGHTS.feature_set.names


@pytest.fixture(scope="session")
def features() -> pd.DataFrame:
    """Make 3,000 rows with every kind of gap that flights have."""
    rng = np.random.default_rng(7)
    n_rows = 3_000
    gust = rng.gamma(4, 6, n_rows).astype(np.float32)
    return pd.DataFrame(
        {
            "origin": rng.choice(["EWR", "JFK", "LGA", ""], n_rows, p=[0.4, 0.3, 0.29, 0.01]),
            "mins": rng.integers(300, 1440, n_rows).astype(np.float32),
            "gust": np.where(rng.random(n_rows) < 0.75, np.float32(np.nan), gust),
            "constant": np.full(n_rows, 0.1, np.float32),
            "empty": np.full(n_rows, np.nan, np.float32),
        }
    )


@pytest.fixture(scope="session")
def labels(features: pd.DataFrame) -> pd.Series:
    logit = (features["mins"] - 900) / 200 + 1.5 * (features["origin"] == "EWR") - 1.5
    chance = np.random.default_rng(8).random(len(features))
    return pd.Series((chance < 1 / (1 + np.exp(-logit))).astype(float))


@pytest.fixture(scope="session")
def exported(
    features: pd.DataFrame, labels: pd.Series, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model trained on `features` and `labels`. Never change it."""

    def make(folder: Path) -> None:
        training.export(training.train(features, labels), folder)

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture(scope="session")
def model(exported: Path) -> Any:
    """The Keras model of the export."""
    import keras

    return keras.models.load_model(exported / training.KERAS_FILE, compile=False)


@dataclass(frozen=True)
class Stages:
    """What the first tasks of the pipeline have made of two weeks. Never change it."""

    train_periods: list[str]
    test_period: str
    data_digest: str
    folder: Path

    use_case: ClassVar[dict[str, str]] = {
        "use_case": "mlops_mini.flights.use_case:FLIGHTS",
        "use_case_digest": "of the code",
    }

    @property
    def periods(self) -> list[Period]:
        return [FLIGHTS.calendar.period(text) for text in (*self.train_periods, self.test_period)]

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def columns(self) -> dict[str, Any]:
        """Key, label, features and slices of the examples."""
        names = ("key", "label", "features", "slices")
        return dict(zip(names, json.loads(self.path("columns.json").read_text()), strict=True))


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Train on W05, judge on W06, where the impossible wind is."""
    train_periods, test_period = ["2013-W05"], "2013-W06"
    data_folder = workspace.data_folder()
    periods_needed = [FLIGHTS.calendar.period(text) for text in (*train_periods, test_period)]
    data_digest = examples.digest(FLIGHTS, periods_needed, data_folder=data_folder)

    def make(folder: Path) -> None:
        from kfp import dsl

        from mlops_mini.pipeline import components

        periods = {"train_periods": train_periods, "test_period": test_period, **Stages.use_case}
        files = {
            name: dsl.Dataset(uri=str(folder / name))
            for name in ("raw", "clean", "quarantined", "train_examples", "test_examples")
        }
        components.ingest.python_func(
            **periods,
            data_folder=str(data_folder),
            data_digest=data_digest,
            raw=files["raw"],
        )
        components.validate.python_func(
            **periods,
            raw=files["raw"],
            data_digest=data_digest,
            clean=files["clean"],
            quarantined=files["quarantined"],
            partitions=dsl.Artifact(uri=str(folder / "partitions")),
            findings=dsl.Markdown(uri=str(folder / "findings")),
        )
        columns = components.features.python_func(
            **periods,
            clean=files["clean"],
            data_digest=data_digest,
            train_examples=files["train_examples"],
            test_examples=files["test_examples"],
        )
        (folder / "columns.json").write_text(json.dumps(columns))

    return Stages(
        train_periods, test_period, data_digest, made_once(tmp_path_factory, "stages", make)
    )


@pytest.fixture(scope="session")
def candidate(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model trained on the train examples of `stages`, and its digest. Never change it."""

    def make(folder: Path) -> None:
        from kfp import dsl

        from mlops_mini.pipeline import components

        digest = components.train.python_func(
            **Stages.use_case,
            train_examples=dsl.Dataset(uri=str(stages.path("train_examples"))),
            label=stages.columns["label"],
            features=stages.columns["features"],
            seed=0,
            epochs=2,
            warm_start="",
            warm_start_digest="",
            data_digest=stages.data_digest,
            model=dsl.Model(uri=str(folder / "model")),
        )
        (folder / "digest").write_text(digest)

    folder = made_once(tmp_path_factory, "candidate", make)
    return folder / "model", (folder / "digest").read_text()
