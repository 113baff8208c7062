"""How many images augmentation makes per CPU second, beside tf.image and Keras layers.

    .venv/bin/python -m benchmarks.augmentation_speed [DATE]

writes `benchmarks/augmentation_speed.md`; it takes a minute or two. Compare within the table: all
ways run one after the other, round by round, and the median of the rounds counts.
"""

import os

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}

import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mlops_mini.data_centric import policy, transforms
from mlops_mini.data_centric.augmented import AugmentedDataset
from mlops_mini.photos import datasets

N_IMAGES, BATCH_SIZE, N_ROUNDS = 2_048, 256, 5


def ways() -> dict[str, Callable[[], int]]:
    """Name functions that each augment all images and return how many."""
    images = datasets.fashion_mnist().train_images[:N_IMAGES]
    labels = np.zeros(N_IMAGES, int)
    pool = transforms.candidates()
    made_from = {"training": policy.training_digest(images, labels)}

    def of(*names: str) -> policy.Policy:
        return policy.uniform({name: pool[name] for name in names}, made_from=made_from)

    turn_and_darken, flip = of("rotate middle", "darken middle"), of("flip")
    twelve = of(*list(pool)[:12])
    dataset = AugmentedDataset(
        images, labels, turn_and_darken, seed=0, batch_size=BATCH_SIZE, keep_originals=False
    )
    layers = keras.Sequential(
        [
            keras.layers.RandomRotation(0.07, seed=1),
            keras.layers.RandomBrightness((-0.5, 0), value_range=(0, 255), seed=2),
        ]
    )
    gray = tf.constant(images[..., None], tf.float32)

    @tf.function  # type: ignore[untyped-decorator]
    def by_layers(batch: tf.Tensor) -> tf.Tensor:
        return layers(batch, training=True)

    def one(image: tf.Tensor) -> tf.Tensor:
        return tf.image.random_brightness(tf.image.random_flip_left_right(image), 0.5)

    stream = tf.data.Dataset.from_tensor_slices(gray).map(one).batch(BATCH_SIZE)
    batches = tf.data.Dataset.from_tensor_slices(gray).batch(BATCH_SIZE)
    in_layers = batches.map(lambda batch: layers(batch, training=True))

    return {
        "policy: rotate or darken": lambda: len(turn_and_darken.augment(images, seed=0)),
        "policy: flip alone": lambda: len(flip.augment(images, seed=0)),
        "policy: twelve transforms of geometry": lambda: len(twelve.augment(images, seed=0)),
        "AugmentedDataset, rotate or darken": lambda: sum(
            len(dataset[n][0]) for n in range(len(dataset))
        ),
        "tf.image: flip and brightness, tf.data": lambda: sum(len(batch) for batch in stream),
        "Keras layers: rotation and brightness, tf.data": lambda: sum(
            len(batch) for batch in in_layers
        ),
        "Keras layers: the same, one tf.function": lambda: sum(
            len(by_layers(gray[n : n + BATCH_SIZE])) for n in range(0, N_IMAGES, BATCH_SIZE)
        ),
    }


def main(date: str) -> None:
    """Measure, print and write down."""
    everything = ways()
    seconds: dict[str, list[float]] = {name: [] for name in everything}
    for n in range(N_ROUNDS + 1):
        for name, augment in everything.items():
            start = time.process_time()
            n_images = augment()
            if n:  # the first round traces functions and warms caches
                seconds[name].append((time.process_time() - start) / n_images)
    rows = "\n".join(
        f"| {name} | {1 / float(np.median(each)):,.0f} |" for name, each in seconds.items()
    )
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("albumentations", "tensorflow", "keras", "numpy")
    )
    load = f"{os.getloadavg()[0]:.0f}"
    text = f"""# Speed of augmentation

Written by `benchmarks/augmentation_speed.py` on {date}; Python {platform.python_version()},
{libraries}; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load}.

Images of 28 x 28 pixels, one process, batches of {BATCH_SIZE}; CPU seconds, which don't count what
other processes do. At this size, the call from Python is what costs, and seeding each image. Where
that matters, make the copies once, before training: 8,000 of them take a few seconds.

| way | images per CPU second |
| --- | ---: |
{rows}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
