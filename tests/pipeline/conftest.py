from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_mini.pipeline import training


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
def model(features: pd.DataFrame, labels: pd.Series) -> Any:
    return training.train(features, labels)


@pytest.fixture(scope="session")
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "delays"
    training.export(model, folder)
    return folder
