"""The gRPC server that one writes first: `grpc.aio`, generated classes, the signature per request.

A yardstick, not a server to use; `grpc_speed` measures ours beside it.

Example: python -m benchmarks.naive_grpc_server ADDRESS_FILE NAME=VERSION_FOLDER ...
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_service_pb2_grpc,
)


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers Predict."""

    def __init__(self, folders: list[str]) -> None:
        """Load `NAME=FOLDER` each."""
        pairs = [argument.split("=", 1) for argument in folders]
        self.loaded = {name: tf.saved_model.load(folder) for name, folder in pairs}

    async def Predict(self, request: Any, _context: Any) -> Any:  # noqa: N802 - grpc's name
        """Answer one request."""
        signature = self.loaded[request.model_spec.name].signatures["serving_default"]
        inputs = {
            name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()
        }
        response = predict_pb2.PredictResponse()
        for name, tensor in signature(**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
        return response


async def serve(address_file: str, folders: list[str]) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    servicer = Servicer(folders)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    file = Path(address_file)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"grpc": f"127.0.0.1:{port}"}))
    unfinished.rename(file)
    await server.wait_for_termination()


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    asyncio.run(serve(sys.argv[1], sys.argv[2:]))
