"""The tables of the photos: what arrives from the stores, and what people say of it later."""

import numpy as np
import pandas as pd

from mlops_mini.data import tensors
from mlops_mini.data.periods import Calendar
from mlops_mini.data.rules import in_range, is_in
from mlops_mini.data.table import Table, WholeRule
from mlops_mini.photos.camera import CONDITIONS
from mlops_mini.photos.datasets import CLASSES

CALENDAR = Calendar("week", zone="Europe/Berlin")


def prepare(photos: pd.DataFrame) -> pd.DataFrame:
    """Add what a photo's pixels tell about its light.

    Args:
        photos: Rows of `PHOTOS`, or of what's known of a photo when it's to be told what it shows.

    Returns:
        The rows with `brightness`, the mean of the pixels, 0 (black) to 1 (white), and `contrast`,
        the brightest pixel less the darkest, 0 to 255. Brightness is what drifts when evenings get
        darker or lamps are changed, so it's the statistic to watch.
    """
    if "image" not in photos or not tensors.is_tensor(photos["image"].dtype):
        return photos
    pixels = tensors.to_numpy(photos["image"]).reshape(len(photos), -1)
    return photos.assign(
        brightness=pixels.mean(axis=1) / 255,
        contrast=np.ptp(pixels, axis=1).astype(np.int16) if len(photos) else 0,
    )


PHOTOS = Table(
    name="photos",
    key=["photo"],
    time="taken_at",
    columns={
        "photo": "integer",
        "taken_at": "instant",
        "condition": "text",
        "image": "uint8[28,28]",
        "clothing": "text?",
    },
    rules=[
        is_in("condition", tuple(CONDITIONS)),
        is_in("clothing", CLASSES),
        # Pixels from 0 to 1 that were cut to whole numbers, and photos with the lens cap on.
        in_range("contrast", 8, 255),
        WholeRule(
            columns=("image",),
            quantity="brightness",
            values=lambda photos: photos["brightness"],
            low=0.08,
            high=0.5,
            unit="of white",
        ),
    ],
    prepare=prepare,
)

RELABELED = Table(
    name="relabeled",
    key=["photo", "relabeled_at"],
    time="relabeled_at",
    columns={
        "photo": "integer",
        "relabeled_at": "instant",
        "clothing": "text",
        "annotator": "text",
        "kind": "text",
    },
    rules=[is_in("clothing", CLASSES), is_in("kind", ("recorded", "stand-in"))],
)
