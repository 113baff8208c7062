"""The same augmented pixels for no workers, threads and processes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: Keras forks its workers, which is only safe where few threads run.
PROGRAM = """
import sys
import numpy as np
import keras
from mlops_mini.data_centric import policy, transforms
from mlops_mini.data_centric.augmented import AugmentedDataset
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError

class Watched(keras.callbacks.Callback):
    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset
        self.seen = []
    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(self.dataset.epoch)

def trained(workers, use_multiprocessing):
    dataset = AugmentedDataset(images, labels, rule, seed=1, batch_size=8,
                               workers=workers, use_multiprocessing=use_multiprocessing)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Rescaling(1 / 255),
                              keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    watched = Watched(dataset)
    model.fit(dataset, epochs=2, shuffle=False, verbose=0, callbacks=[watched])
    assert watched.seen == [1, 2], watched.seen
    return [weights.tobytes() for weights in model.get_weights()]

if __name__ == "__main__":
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.arange(20) % 3
    made_from = {"training": policy.training_digest(images, labels)}
    pool = transforms.candidates()
    some = {name: pool[name] for name in ("rotate strong", "gaussian noise weak")}
    rule = policy.uniform(some, made_from=made_from)
    alone = trained(0, False)
    for workers, processes in ((1, False), (2, False), (2, True)):
        assert trained(workers, processes) == alone, (workers, processes)
        print(workers, "processes" if processes else "threads", "equal")

    dataset = AugmentedDataset(images, labels, rule, seed=1, batch_size=40)
    first, _ = dataset[0]
    originals = {image.tobytes() for image in images}
    assert sum(image.tobytes() in originals for image in first) == 20
    dataset.on_epoch_end()
    second, _ = dataset[0]
    assert {x.tobytes() for x in first} & {x.tobytes() for x in second} == originals
    for wrong in ((images[:10], labels[:10]), (images, labels[::-1])):
        try:
            AugmentedDataset(*wrong, rule, seed=0)
        except FailedPreconditionError as error:
            print("refused" if "was made for" in str(error) else error)
    try:
        AugmentedDataset(images, labels[:3], rule, seed=0)
    except InvalidArgumentError as error:
        print(str(error)[:19])
"""


@pytest.mark.slow
def test_the_same_pixels_whoever_computes_them(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)

    ran = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "1 threads equal",
        "2 threads equal",
        "2 processes equal",
        "refused",
        "refused",
        "20 images, 3 labels",
    ]
