"""mosec around a model, with its batches of up to 64 requests, as its examples have it.

Example: python -m benchmarks.peer_mosec --port 8000 --address 127.0.0.1, with PEER_MODEL=FOLDER
"""

import os
from typing import Any

import mosec
import numpy as np

from benchmarks import peer_models


class Predict(mosec.Worker):
    """Runs what came together as one batch."""

    def __init__(self) -> None:
        """Load the model, in a process of its own."""
        self.model = peer_models.Model(os.environ["PEER_MODEL"])

    def forward(self, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer a batch."""
        inputs = [self.model.inputs(document) for document in documents]
        joined = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        outputs = self.model.run(joined)
        stops = np.cumsum([len(next(iter(one.values()))) for one in inputs])[:-1]
        parts = {name: np.split(array, stops) for name, array in outputs.items()}
        return [
            peer_models.answer(document, {name: part[i] for name, part in parts.items()})
            for i, document in enumerate(documents)
        ]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Predict, num=1, max_batch_size=64, max_wait_time=2, route="/predict")
    server.run()
