"""The photos as a use case: what do they show?"""

from pathlib import Path

from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.sources import as_stored
from mlops_mini.photos import network
from mlops_mini.photos.datasets import CLASSES
from mlops_mini.photos.tables import CALENDAR, RELABELED
from mlops_mini.photos.tables import PHOTOS as PHOTOS_TABLE
from mlops_mini.use_case import Label, UseCase

PHOTOS = UseCase(
    "photos",
    tables=[PHOTOS_TABLE, RELABELED],
    calendar=CALENDAR,
    label=Label("clothing", classes=CLASSES, corrected_in="relabeled"),
    features=FeatureSet(
        of="photos",
        key="photo",
        time="taken_at",
        inputs=["image", "taken_at"],
        features=[as_stored("image", dtype="tensor")],
    ),
    slices=["condition", "clothing"],
    train=network.train,
    settings="augmentation.json",
    thresholds=Path(__file__).with_name("gate.yaml"),
)
