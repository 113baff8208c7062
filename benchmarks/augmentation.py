"""What votes of unlabeled photos gain over no augmentation and over all candidates alike.

    nice .venv/bin/python -m benchmarks.augmentation [DATE]

writes `benchmarks/augmentation.md`; it takes about three minutes on two quiet cores. A sentence
that doesn't hold any more is not printed: the script stops at it.
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
import numpy.typing as npt
import pandas as pd

from mlops_mini.data_centric import networks, policy, transforms, votes
from mlops_mini.photos import camera, datasets

SEEDS = (0, 1, 2)
N_TRAIN = 8_000
EPOCHS, FULL_EPOCHS = 6, 14
COPIES, ONCE = "8,000 images and 8,000 copies, 6 epochs", "14 epochs"

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]


def twice(images: npt.NDArray[np.uint8], copies: npt.NDArray[np.uint8], labels: Any) -> Arrays:
    """Put copies behind the images."""
    return np.concatenate([images, copies]), np.concatenate([labels, labels])


def measure(seed: int) -> pd.DataFrame:
    """Train and judge every arm: accuracy in percent."""
    clothes = datasets.fashion_mnist()
    images, labels = clothes.train_images[:N_TRAIN], clothes.train_labels[:N_TRAIN].astype(int)
    voters = np.arange(20_000, 21_000)
    photos = camera.photograph(clothes.train_images[voters], voters, seed=2)
    ids = np.arange(len(clothes.test_images))
    condition = camera.draw_conditions(ids, seed=1)
    judged = camera.photograph(clothes.test_images, ids, seed=1)
    own = camera.photograph(images, np.arange(N_TRAIN), seed=3)
    pool = transforms.candidates()
    made_from = {"training": policy.training_digest(images, labels)}
    everything = policy.uniform(pool, made_from=made_from)
    rows = []

    def judge(arm: str, budget: str, model: Any) -> None:
        is_right = networks.probabilities(model, judged).argmax(axis=1) == clothes.test_labels
        clean = networks.probabilities(model, clothes.test_images).argmax(axis=1)
        row = {"arm": arm, "budget": budget, "seed": seed, "photos": is_right.mean() * 100}
        row["clean"] = (clean == clothes.test_labels).mean() * 100
        row |= {name: is_right[condition == name].mean() * 100 for name in camera.CONDITIONS}
        rows.append(row)
        print(
            {name: round(x, 1) if isinstance(x, float) else x for name, x in row.items()},
            flush=True,
        )

    fit = partial(networks.fit, seed=seed)
    copies = everything.augment(images, seed=seed)
    plain = fit(*twice(images, images, labels), epochs=EPOCHS)
    reader = fit(*twice(images, copies, labels), epochs=EPOCHS)
    measured = votes.measure(
        pool,
        clothes.train_images[N_TRAIN : N_TRAIN + 300],
        clothes.train_labels[N_TRAIN : N_TRAIN + 300],
        photos,
        model=partial(networks.probabilities, plain),
        reader=partial(networks.probabilities, reader),
        features=votes.last_hidden(reader),
        seed=seed,
    )
    elected = votes.elect(measured, pool, made_from=made_from)
    copies = elected.augment(images, seed=seed)
    voted = fit(*twice(images, copies, labels), epochs=EPOCHS)
    labeled = fit(*twice(images, own, labels), epochs=EPOCHS)
    judge("none", COPIES, plain)
    judge("all 68 alike", COPIES, reader)
    judge("votes", COPIES, voted)
    judge("labeled photos of the same images", COPIES, labeled)
    judge("none", ONCE, fit(images, labels, epochs=FULL_EPOCHS))
    judge("votes", ONCE, fit(*twice(images, copies, labels), epochs=FULL_EPOCHS))
    return pd.DataFrame(rows)


def table(results: pd.DataFrame, budget: str) -> str:
    """Lay the arms of a budget out as markdown: means, and photos seed by seed."""
    shown = results[results["budget"] == budget]
    lines = ["| arm | clean % | photos % | seed by seed | tilted | dim | shaky | covered |"]
    lines.append("|---|---:|---:|---|---:|---:|---:|---:|")
    for arm in shown["arm"].unique():
        of_arm = shown[shown["arm"] == arm]
        seeds = " ".join(f"{x:.1f}" for x in of_arm["photos"])
        mean = of_arm.drop(columns=["arm", "budget", "seed"]).mean()
        conditions = " | ".join(f"{mean[name]:.0f}" for name in list(camera.CONDITIONS)[1:])
        lines.append(
            f"| {arm} | {mean['clean']:.1f} | {mean['photos']:.1f} | {seeds} | {conditions} |"
        )
    return "\n".join(lines)


def say(results: pd.DataFrame) -> str:
    """Say what holds; stop at what doesn't."""
    mean = results.groupby(["budget", "arm"])[["clean", "photos"]].mean()
    over_none = mean.loc[(COPIES, "votes"), "photos"] - mean.loc[(COPIES, "none"), "photos"]
    over_all = mean.loc[(COPIES, "votes"), "photos"] - mean.loc[(COPIES, "all 68 alike"), "photos"]
    clean = mean.loc[(ONCE, "votes"), "clean"] - mean.loc[(ONCE, "none"), "clean"]
    if not (over_none >= 4 and over_all >= 1.5 and clean >= -0.5):
        raise SystemExit(f"doesn't hold: {over_none:.2f}, {over_all:.2f}, {clean:.2f}")
    return (
        f"On photos, votes are {over_none:.1f} points above no augmentation (at least 4 are"
        f" demanded) and {over_all:.1f} above all candidates alike (1.5), with as many steps of"
        f" training. On clean images they change {clean:+.1f} points with 14 epochs (at most 0.5"
        " may be lost)."
    )


def main(date: str) -> None:
    """Measure in one process per seed, and write down."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        write(date, pd.concat(pool.map(measure, SEEDS)))


def write(date: str, results: pd.DataFrame) -> None:
    """Check, print and write down."""
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("tensorflow", "keras", "albumentations", "numpy")
    )
    text = f"""# Augmentation by votes

Written by `benchmarks/augmentation.py` on {date}; Python {platform.python_version()}, {libraries};
{platform.system()} {platform.machine()}.

Accuracy of the convolutional network on the 10,000 test images of Fashion-MNIST, clean and as
`photos.camera` photographs them, mean of {len(SEEDS)} seeds. 1,000 unlabeled photos vote. In place
of people, the model of "all 68 alike" reads: a stand-in, not people. Which candidates there are was
decided once, with photos of this same simulator in view, though with other seeds: photos of another
kind may gain less.

{say(results)}

## {COPIES}

{table(results, COPIES)}

## {ONCE}: 8,000 images without copies, or with

{table(results, ONCE)}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
