"""Does more data hurt? For a large and a small model, by what's added and how much of it.

    nice .venv/bin/python -m benchmarks.more_data [DATE [SEEDS [FOLDER]]]

writes `benchmarks/more_data.md`; with three seeds it takes about four minutes on two quiet cores.
What each seed brings is kept in the folder, so that a run that was ended goes on where it was. A
sentence that doesn't hold any more is not printed: the script stops at it.
"""

import os

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}

import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.kept import kept
from mlops_mini.data_centric import more_data, networks
from mlops_mini.photos import camera, datasets

N_BASE, SHARES = 3_000, (0.5, 0.8)
DIFFICULT = [name for name in camera.CONDITIONS if name != "studio"]
UPPER_BODY = [datasets.CLASSES.index(name) for name in ("T-shirt/top", "Pullover", "Coat", "Shirt")]
LARGE, SMALL = "convolutional, 105,866 weights", "logistic regression, 7,850 weights"
SIZES, TARGET = (0, 150, 300, 600, 1_200), 4_800
MADE_BY = (more_data, networks, camera)


def experiment(seed: int) -> pd.DataFrame:
    """Add realistic, unreadable and mixed images to 3,000 clean ones."""
    clothes = datasets.fashion_mnist()
    images, labels = clothes.train_images[:N_BASE], clothes.train_labels[:N_BASE].astype(int)
    n_copies = round(max(SHARES) / (1 - max(SHARES)))
    many, same = np.tile(images, (n_copies, 1, 1)), np.tile(labels, n_copies)
    ids = np.arange(len(many))
    drawn = np.random.default_rng(0).choice(DIFFICULT, len(many))
    mixed = [more_data.mixes(images, labels, among=UPPER_BODY, seed=n) for n in range(11)]
    additions: dict[str, Any] = {
        "realistic photos": (camera.photograph(many, ids, seed=5, conditions=drawn), same),
        "unreadable images": (more_data.unreadable(many, seed=0), same),
        "mixes, labeled at random": tuple(map(np.concatenate, zip(*mixed, strict=True))),
    }
    judged_ids = np.arange(len(clothes.test_images))
    judged = {
        "clean": clothes.test_images,
        "photos": camera.photograph(clothes.test_images, judged_ids, seed=1),
    }

    def accuracy(model: Any) -> dict[str, float]:
        answers = {name: networks.probabilities(model, x).argmax(1) for name, x in judged.items()}
        said = {name: float((x == clothes.test_labels).mean()) for name, x in answers.items()}
        print(seed, {name: round(x, 3) for name, x in said.items()}, flush=True)
        return said

    fits = {
        LARGE: lambda x, y, seed: networks.fit(x, y, seed=seed, epochs=12),
        SMALL: lambda x, y, seed: networks.fit(x, y, seed=seed, epochs=20, is_linear=True),
    }
    return more_data.try_additions(
        fits, (images, labels), additions, accuracy, shares=SHARES, seeds=(seed,)
    )


def curve() -> pd.DataFrame:
    """Add more and more tilted photos to 5,000 clean images, up to the target."""
    clothes = datasets.fashion_mnist()
    base = clothes.train_images[:5_000], clothes.train_labels[:5_000].astype(int)
    ids = np.arange(10_000, 10_000 + TARGET)
    shoot = partial(camera.photograph, conditions="tilted")
    extra = shoot(clothes.train_images[ids], ids, seed=2), clothes.train_labels[ids].astype(int)
    judged = shoot(clothes.test_images, np.arange(len(clothes.test_images)), seed=1)

    def accuracy(model: Any) -> float:
        answers = networks.probabilities(model, judged).argmax(1)
        return float((answers == clothes.test_labels).mean())

    def fit(x: Any, y: Any, seed: int) -> Any:
        return networks.fit(x, y, seed=seed, epochs=6)

    sizes = (*SIZES, TARGET)
    return more_data.learning_curve(fit, base, extra, accuracy, sizes=sizes, seeds=(0, 1))


def table(results: pd.DataFrame, model: str) -> str:
    """Lay the changes of a model out as markdown, in points: the mean, then seed by seed."""
    shown = results[results["model"] == model]
    before = 100 * shown.groupby("test")["before"].mean()
    lines = [
        f"Before: {before['clean']:.1f}% clean, {before['photos']:.1f}% on photos.",
        "",
        "| added | share | clean | seed by seed | photos | seed by seed |",
        "|---|---:|---:|---|---:|---|",
    ]
    for (addition, share), rows in shown.groupby(["addition", "share"], sort=False):
        cells = [str(addition), f"{share:.0%}"]
        for test in ("clean", "photos"):
            change = 100 * rows.loc[rows["test"] == test, "change"]
            cells += [f"{change.mean():+.1f}", " ".join(f"{x:+.1f}" for x in change)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def say(results: pd.DataFrame) -> str:
    """Say what holds in every seed; stop at what doesn't."""
    change = 100 * results.set_index(["model", "addition", "share", "test"])["change"].sort_index()
    real, ruined = (name for name in results["addition"].unique()[:2])
    clean_large, photos_large = (
        change[LARGE, real, 0.8, "clean"],
        change[LARGE, real, 0.8, "photos"],
    )
    clean_small, ruined_large = (
        change[SMALL, real, 0.8, "clean"],
        change[LARGE, ruined, 0.8, "clean"],
    )
    held = {
        "realistic photos don't hurt the large model": bool((clean_large > -0.5).all()),
        "they help it on photos": bool((photos_large > 5).all()),
        "they cost the small model clean accuracy": bool((clean_small < 0).all()),
        "unreadable images hurt the large model": bool((ruined_large < -1).all()),
    }
    if not all(held.values()):
        raise SystemExit(f"doesn't hold: {held}")
    return (
        f"With 80% realistic photos, the large model gains {photos_large.mean():.1f} points on"
        f" photos and changes by {clean_large.mean():+.1f} on clean images. The small one changes"
        f" by {clean_small.mean():+.1f} on clean images: it trades one for the other. Unreadable"
        f" images cost the large model {-ruined_large.mean():.1f} points. Each holds in every seed."
    )


def say_forecast(grown: pd.DataFrame) -> str:
    """Say what was forecast from the smaller sizes, and what came."""
    tried, came = grown[grown["n"] != TARGET], grown[grown["n"] == TARGET]
    said = more_data.forecast(tried, n=TARGET)
    mean = tried.groupby("n")["accuracy"].mean()
    steps = ", ".join(f"{100 * accuracy:.1f}% with {n:,}" for n, accuracy in mean.items())
    was = " and ".join(f"{100 * accuracy:.1f}%" for accuracy in came["accuracy"])
    return (
        f"5,000 clean images and more and more tilted photos; accuracy on tilted photos: {steps}."
        f" From that, {TARGET:,} were forecast to give {100 * said.accuracy:.1f}%"
        f" ({100 * said.low:.1f} to {100 * said.high:.1f}, 90% for one training). They gave {was}."
    )


def measured(folder: Path, seed: int | None) -> pd.DataFrame:
    """The experiment with a seed, or the learning curve, from an earlier run if it's there."""
    if seed is None:
        return kept(folder, "curve", curve, made_by=MADE_BY)
    return kept(folder, f"seed-{seed}", partial(experiment, seed), made_by=MADE_BY)


def main(date: str, n_seeds: str = "3", folder: str = "runs/more_data") -> None:
    """Measure in one process per seed, and write down."""
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        *results, grown = pool.map(partial(measured, Path(folder)), [*range(int(n_seeds)), None])
    write(date, pd.concat(results), grown)


def write(date: str, results: pd.DataFrame, grown: pd.DataFrame) -> None:
    """Check, print and write down."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    text = f"""# Does more data hurt?

Written by `benchmarks/more_data.py` on {date}; Python {platform.python_version()}, {libraries};
{platform.system()} {platform.machine()}.

3,000 clean images, and others that make up 50% or 80% of the training data. Realistic ones are
photos under the four difficult conditions of `photos.camera`, unreadable ones are 4 x 4 blocks
with noise, and mixes are averages of two upper-body clothes with the label of either. Changes are
in points on the 10,000 test images, clean and as photos. Each model keeps its number of epochs, so
more data also means more steps. {results["seed"].nunique()} seeds.

{say(results)}

## {LARGE[0].upper()}{LARGE[1:]}

{table(results, LARGE)}

## {SMALL[0].upper()}{SMALL[1:]}

{table(results, SMALL)}

## A forecast

{say_forecast(grown)}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
