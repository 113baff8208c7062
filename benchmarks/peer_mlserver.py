"""MLServer's runtime for a model of ours: its V2 protocol, arrays in and out.

Example: mlserver start FOLDER, where FOLDER has the settings that `server_peers` writes
"""

import asyncio

import mlserver
import numpy as np
from mlserver import types
from mlserver.codecs import NumpyCodec, StringCodec

from benchmarks import peer_models


class Runtime(mlserver.MLModel):
    """Answers V2 inference requests."""

    async def load(self) -> bool:
        """Load the model."""
        folder = self.settings.parameters.uri
        self.model = await asyncio.to_thread(peer_models.Model, folder)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Make one run."""
        inputs = {}
        for given in payload.inputs:
            if given.datatype == "BYTES":
                inputs[given.name] = np.array(StringCodec.decode_input(given), object)
            else:
                dtype = self.model.dtypes[given.name]
                inputs[given.name] = NumpyCodec.decode_input(given).astype(dtype)
        outputs = self.model.run(inputs)
        return types.InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, array) for name, array in outputs.items()],
        )
