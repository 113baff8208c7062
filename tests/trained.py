from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_mini.flights import arrivals, datasets
from mlops_mini.flights.definitions import FEATURES
from mlops_mini.model import training
from tests.once import made_once

FEATURE_NAMES = [feature.name for feature in FEATURES]


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

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Train on W05, judge on W06, where the impossible wind is."""
    train_periods, test_period = ["2013-W05"], "2013-W06"
    data_digest = arrivals.digest([*train_periods, test_period])

    def make(folder: Path) -> None:
        from kfp import dsl

        from mlops_mini.pipeline import components

        periods = {"train_periods": train_periods, "test_period": test_period}
        files = {
            name: dsl.Dataset(uri=str(folder / name))
            for name in ("raw", "clean", "quarantined", "train_examples", "test_examples")
        }
        components.ingest.python_func(
            **periods,
            data_folder=str(datasets.data_folder()),
            data_digest=data_digest,
            raw=files["raw"],
        )
        components.validate.python_func(
            **periods,
            raw=files["raw"],
            data_digest=data_digest,
            clean=files["clean"],
            quarantined=files["quarantined"],
            findings=dsl.Markdown(uri=str(folder / "findings")),
        )
        components.features.python_func(
            **periods,
            clean=files["clean"],
            data_digest=data_digest,
            train_examples=files["train_examples"],
            test_examples=files["test_examples"],
        )

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
            train_examples=dsl.Dataset(uri=str(stages.path("train_examples"))),
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
