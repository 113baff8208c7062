"""Augmentation: the door to the library, policies, and the same pixels whoever computes them."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from mlops_mini.data_centric import policy, transforms
from mlops_mini.data_centric.policy import Policy
from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12) % 3
MADE_FROM = {"training": policy.training_digest(IMAGES, LABELS)}


@pytest.fixture(scope="module")
def pool() -> dict[str, transforms.Spec]:
    return transforms.candidates()


@pytest.fixture
def rule(pool: dict[str, transforms.Spec]) -> Policy:
    names = ["rotate strong", "gaussian blur weak", "dark and noise middle", "flip"]
    return Policy(
        transforms={name: pool[name] for name in names},
        weights=dict(zip(names, [0.4, 0.3, 0.2, 0.1], strict=True)),
        made_from=MADE_FROM,
    )


def test_the_library_is_mit_and_its_import_is_offline_and_silent() -> None:
    # Whatever opens a connection fails, and whatever is printed is seen.
    program = """
import socket
def refuse(*_):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mlops_mini.data_centric import transforms
print(transforms.library().__version__)
"""
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2.0.8\n", "")
    assert "MIT" in metadata.metadata("albumentations")["License"]


def test_albumentationsx_beside_it_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "albumentationsx-2.5.1.dist-info"
    beside.mkdir()
    (beside / "METADATA").write_text("Name: albumentationsx\nVersion: 2.5.1\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(FailedPreconditionError, match=r"albumentationsx 2\.5\.1 .*AGPL.*MIT"):
        transforms.library()


def test_every_candidate_keeps_shape_and_dtype_and_survives_json(
    pool: dict[str, transforms.Spec],
) -> None:
    from_file = json.loads(json.dumps(pool))
    assert len(pool) == 68
    for name, spec in pool.items():
        for image in (IMAGES[0], IMAGES[0][..., None], np.float32(IMAGES[0] / 255)):
            made = transforms.apply(name, spec, image, np.random.default_rng(1))
            again = transforms.apply(name, from_file[name], image, np.random.default_rng(1))

            assert (made.shape, made.dtype) == (image.shape, image.dtype), name
            assert np.array_equal(made, again), name


def test_an_image_follows_from_seed_epoch_and_row_alone(rule: Policy) -> None:
    whole = rule.augment(IMAGES, seed=3, epoch=1)

    order = RNG.permutation(12)
    shuffled = rule.augment(IMAGES[order], seed=3, epoch=1, rows=order)
    alone = rule.augment(IMAGES[7:8], seed=3, epoch=1, rows=np.array([7]))

    assert np.array_equal(shuffled, whole[order])
    assert np.array_equal(alone[0], whole[7])
    assert not np.array_equal(whole, rule.augment(IMAGES, seed=3, epoch=2))
    assert not np.array_equal(whole, rule.augment(IMAGES, seed=4, epoch=1))


def test_weights_are_kept(pool: dict[str, transforms.Spec]) -> None:
    names = ["flip", "invert"]
    rule = Policy(
        transforms={name: pool[name] for name in names},
        weights={"flip": 0.8, "invert": 0.2},
        made_from=MADE_FROM,
    )
    many = np.zeros((2000, 4, 4), np.uint8)

    share_inverted = (rule.augment(many, seed=0)[:, 0, 0] == 255).mean()

    assert abs(share_inverted - 0.2) < 0.03


def test_a_policy_comes_back_from_its_file(tmp_path: Path, rule: Policy) -> None:
    rule.save(tmp_path / "policy.json")

    loaded = policy.load(tmp_path / "policy.json")

    assert loaded.made_from == MADE_FROM
    assert np.array_equal(loaded.augment(IMAGES, seed=0), rule.augment(IMAGES, seed=0))
    loaded.check_made_for(IMAGES, LABELS)


def test_a_policy_made_for_another_data_set_is_refused(rule: Policy) -> None:
    with pytest.raises(FailedPreconditionError, match="made for the training data"):
        rule.check_made_for(IMAGES[::-1], LABELS)
    with pytest.raises(FailedPreconditionError, match="11 images"):
        rule.check_made_for(IMAGES[:11], LABELS[:11])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": {"flip": 0.5}}, "sum to 1"),
        ({"weights": {"flip": -1.0}}, "positive"),
        ({"weights": {}}, "each with a weight"),
        ({"weights": {"flop": 1.0}}, "each with a weight"),
        ({"transforms": {}, "weights": {}}, "needs transforms"),
        ({"made_from": {}}, "training"),
    ],
)
def test_an_impossible_policy_is_refused(
    pool: dict[str, transforms.Spec], change: dict[str, object], said: str
) -> None:
    possible = {
        "transforms": {"flip": pool["flip"]}, "weights": {"flip": 1.0}, "made_from": MADE_FROM
    }  # fmt: skip

    with pytest.raises(InvalidArgumentError, match=said):
        Policy(**{**possible, **change})  # type: ignore[arg-type]


def test_an_unknown_transform_is_refused() -> None:
    spec = {"__class_fullname__": "Nonsense", "p": 1.0}
    rule = policy.uniform({"nonsense": spec}, made_from=MADE_FROM)

    with pytest.raises(InvalidArgumentError, match=r"no transform of albumentations 2\.0\.8"):
        rule.augment(IMAGES, seed=0)
    with pytest.raises(InvalidArgumentError, match="needs transforms"):
        policy.uniform({}, made_from=MADE_FROM)


def test_a_transform_that_changes_the_shape_is_refused() -> None:
    a = transforms.library()
    crop = {"crop": a.to_dict(a.CenterCrop(8, 8, p=1))["transform"]}

    with pytest.raises(InvalidArgumentError, match="only transforms that keep both"):
        policy.uniform(crop, made_from=MADE_FROM).augment(IMAGES, seed=0)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES.astype(np.float64) / 255,
        IMAGES.astype(np.float32),
        IMAGES[0],
        np.float32(IMAGES / 255) - 1,
        np.full((1, 4, 4), np.nan, np.float32),
    ],
)
def test_other_images_are_refused(rule: Policy, images: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError, match="images must be"):
        rule.augment(images, seed=0)


def test_broken_policy_files_are_refused(tmp_path: Path, rule: Policy) -> None:
    file = tmp_path / "policy.json"
    with pytest.raises(NotFoundError, match="no policy"):
        policy.load(file)
    for text in ("", "[]", "{}", '{"format": 1, "library": "x", "transforms": 3}'):
        file.write_text(text)
        with pytest.raises(DataIntegrityError, match="no policy of augmentation"):
            policy.load(file)
    rule.save(file)
    file.write_text(file.read_text().replace("albumentations 2.0.8", "albumentations 1.4.0"))
    with pytest.raises(DataIntegrityError, match=r"made with albumentations 1\.4\.0"):
        policy.load(file)
