"""Trains the model that `service.py` serves, and publishes it as the next version.

It learns from flights with the features of `mlops_mini`, as they were known an hour before each
departure, whether a flight arrives more than 15 minutes late.

Example: python deploy/fastapi/train.py models/flights --months 2013-01
"""

import argparse
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

sys.path.insert(0, str(Path(__file__).parent))
import service

from mlops_mini.flights import year

CATEGORIES = ["carrier", "origin", "dest"]


def train(months: list[str], *, seed: int = 0) -> Pipeline:
    """Train on all flights of some months whose outcome is known."""
    flights = year.read(months)
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), CATEGORIES),
        remainder="passthrough",
    )
    trees = HistGradientBoostingClassifier(
        categorical_features=range(len(CATEGORIES)), learning_rate=0.12, max_iter=60,
        max_leaf_nodes=15, early_stopping=False, random_state=seed,
    )  # fmt: skip
    columns = flights.features[list(service.Flight.model_fields)]
    return make_pipeline(encode, trees).fit(columns, flights.late)


def publish(model: Pipeline, base_path: Path) -> Path:
    """Put a model in place as the next version, all at once, and return its folder."""
    base_path.mkdir(parents=True, exist_ok=True)
    versions = [int(path.name) for path in base_path.iterdir() if path.name.isdecimal()]
    folder = base_path / str(max(versions, default=0) + 1)
    unfinished = base_path / f".{folder.name}.unfinished"
    unfinished.mkdir()
    joblib.dump(model, unfinished / service.MODEL_FILE)
    return unfinished.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_path", type=Path)
    parser.add_argument("--months", nargs="+", default=["2013-01"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(publish(train(options.months, seed=options.seed), options.base_path))
