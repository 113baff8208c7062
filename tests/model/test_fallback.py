"""The fallback: each version also answers from the features that need no store."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.local_server import LocalServer
from mlops_mini.model import evaluation, training
from mlops_mini.model.digest import model_digest
from mlops_mini.use_case import UseCase
from tests.once import made_once
from tests.tenants import churn

FEW = ["origin", "mins"]


@pytest.fixture(scope="session")
def examples_file(features, labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    pd.DataFrame(features).assign(late=labels).to_parquet(folder / "examples.parquet")
    return folder / "examples.parquet"


def train(file: Path, folder: Path, features: pd.DataFrame, **changes) -> Path:
    names = list(features.columns)
    training.train_from_file(file, folder, label="late", features=names, epochs=2, **changes)
    return folder


@pytest.fixture(scope="session")
def version(examples_file, features, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        train(examples_file, folder / "delays" / "1", features, fallback=FEW)

    return made_once(tmp_path_factory, "fallback", make) / "delays" / "1"


def test_the_model_itself_stays_the_same_to_the_bit(
    version: Path, examples_file: Path, features, tmp_path: Path
) -> None:
    alone = train(examples_file, tmp_path / "alone", features)

    answers = [evaluation.predict(folder, features) for folder in (version, alone)]

    np.testing.assert_array_equal(*answers)
    again = train(examples_file, tmp_path / "again", features, fallback=FEW)
    assert model_digest(again) == model_digest(version) != model_digest(alone)


@pytest.mark.slow
def test_a_server_answers_by_it_without_the_features_of_the_store(
    version: Path, features, tmp_path: Path
) -> None:
    asked = training.as_inputs(features[FEW].head(20))
    answers = []
    with LocalServer(version.parent, tmp_path / "server") as server:
        server.wait_until_served(1)
        for transport in ("rest", "grpc"):
            with server.client(transport) as client:
                answers.append(client.predict(asked, signature="fallback")["probability"])
                with pytest.raises(InvalidArgumentError):
                    client.predict(asked)

    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    assert np.ptp(answers[0]) > 0.05


def test_a_warm_start_goes_on_with_the_fallback_too(
    version: Path, examples_file: Path, features, tmp_path: Path
) -> None:
    start = {"parent": version, "parent_digest": model_digest(version)}

    warm = train(examples_file, tmp_path / "warm", features, fallback=FEW, **start)

    assert (warm / "assets.extra" / "fallback" / training.KERAS_FILE).is_file()
    assert model_digest(warm) != model_digest(version)


def test_flights_fall_back_on_what_needs_no_store() -> None:
    groups = {feature.name: feature.group for feature in FLIGHTS.feature_set.features}

    assert len(FLIGHTS.fallback) == 15
    assert {groups[name] for name in FLIGHTS.fallback} == {"schedule", "weather"}


@pytest.mark.parametrize(
    ("names", "words"), [(["plam"], r"names \['plam'\], which are none"), (None, "names all of")]
)
def test_a_fallback_must_be_some_of_the_features(names: list[str] | None, words: str) -> None:
    known = churn.CHURN
    with pytest.raises(InvalidArgumentError, match=words):
        UseCase(
            "churn",
            tables=known.tables,
            label=known.label,
            features=known.features,
            fallback=names or list(known.feature_set.names),
        )
