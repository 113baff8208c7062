"""The least that a model server in Python can do: a yardstick for ours, not a server to use.

It reads HTTP with httptools, numbers with simdjson (checked by the skeleton of a body that was read
once before) and named inputs with orjson, runs whatever came in one turn of the event loop as one
batch by one raw call, and writes the answer with orjson. There is nothing else: one signature for
each model, no versions, no limits, no errors, no headers. `server_speed` measures ours beside it.

Example: python -m benchmarks.bare_server ADDRESS_FILE NAME=VERSION_FOLDER ...
"""

import asyncio
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import orjson
import simdjson
import uvloop

_MAX_ROWS = 64
_NOT_IN_SKELETON = b"0123456789+-.eE \t\r\n"


class Model:
    """One signature that runs what came together as one batch."""

    def __init__(self, folder: str, loop: asyncio.AbstractEventLoop) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf import config_pb2

        v1 = tf.compat.v1
        config = v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=os.cpu_count()
        )
        session = v1.Session(graph=tf.Graph(), config=config)
        with session.graph.as_default():
            meta = v1.saved_model.loader.load(session, ["serve"], folder)
        signature = meta.signature_def["serving_default"]
        self.inputs = sorted(signature.inputs)
        self.dtypes = [tf.as_dtype(signature.inputs[a].dtype) for a in self.inputs]
        self.outputs = sorted(signature.outputs)
        options = config_pb2.CallableOptions(
            feed=[signature.inputs[alias].name for alias in self.inputs],
            fetch=[signature.outputs[alias].name for alias in self.outputs],
        )
        options.run_options.inter_op_thread_pool = -1
        self.call = session._make_callable_from_options(options)  # noqa: SLF001 - as our server
        self.loop = loop
        self.parser = simdjson.Parser()
        self.skeletons: dict[bytes, tuple[int, ...]] = {}
        self.waiting: list[tuple[Callable[[bytes], None], Any, int, str]] = []

    def ask(self, body: bytes, answer: Callable[[bytes], None]) -> None:
        """Join the batch of this turn."""
        item = self._numbers(body) if len(self.inputs) == 1 else self._columns(body)
        if not self.waiting:
            self.loop.call_soon(self.flush)
        self.waiting.append((answer, *item))

    def _numbers(self, body: bytes) -> tuple[Any, int, str]:
        skeleton = body.translate(None, _NOT_IN_SKELETON)
        shape = self.skeletons.get(skeleton)
        if shape is None:
            shape = self.skeletons[skeleton] = np.array(orjson.loads(body)["instances"]).shape
        buffer = self.parser.parse(body)["instances"].as_buffer(of_type="d")
        return np.frombuffer(buffer).astype(np.float32).reshape(shape), shape[0], "predictions"

    def _columns(self, body: bytes) -> tuple[Any, int, str]:
        document = orjson.loads(body.replace(b"NaN", b"null"))
        columns = document.get("inputs")
        if columns is not None:
            return columns, len(columns[self.inputs[0]]), "outputs"
        rows = document["instances"]
        columns = {alias: [row[alias] for row in rows] for alias in self.inputs}
        return columns, len(rows), "predictions"

    def flush(self) -> None:
        """Run what waits."""
        waiting, self.waiting = self.waiting, []
        while waiting:
            batch, n_rows = [], 0
            while waiting and (not batch or n_rows + waiting[-1][2] <= _MAX_ROWS):
                batch.append(waiting.pop())
                n_rows += batch[-1][2]
            n_padded = max(1 << (n_rows - 1).bit_length(), 1)
            results = self.call(*self._feeds([item for _, item, _, _ in batch], n_padded - n_rows))
            start = 0
            for answer, _, size, key in batch:
                parts = [np.ascontiguousarray(r[start : start + size]) for r in results]
                start += size
                value: Any = parts[0]
                if len(parts) > 1:
                    value = dict(zip(self.outputs, parts, strict=True))
                text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
                answer(b'{"%b": %b}' % (key.encode(), text))

    def _feeds(self, items: list[Any], n_padding: int) -> list[Any]:
        if len(self.inputs) == 1:
            return [np.concatenate([*items, *[items[-1][:1]] * n_padding])]
        feeds = []
        for alias, dtype in zip(self.inputs, self.dtypes, strict=True):
            values = [value for columns in items for value in columns[alias]]
            values += values[-1:] * n_padding
            feeds.append(np.array(values, dtype.as_numpy_dtype))
        return feeds


class Connection(asyncio.Protocol):  # its methods are called by asyncio and the parser
    """One connection: a request at a time."""

    transport: asyncio.Transport

    def __init__(self, models: dict[bytes, Model]) -> None:
        self.models = models
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []

    def connection_made(self, transport: Any) -> None:  # noqa: D102
        self.transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self.url = url

    def on_body(self, body: bytes) -> None:  # noqa: D102
        self.body.append(body)

    def on_message_complete(self) -> None:  # noqa: D102
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.body = []
        self.models[self.url].ask(body, self.answer)

    def answer(self, body: bytes) -> None:
        """Write an answer."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)


async def serve(address_file: str, folders: list[str]) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    models = {}
    for argument in folders:
        name, _, folder = argument.partition("=")
        models[f"/v1/models/{name}:predict".encode()] = Model(folder, loop)
    server = await loop.create_server(functools.partial(Connection, models), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _write_address(Path(address_file), f"127.0.0.1:{port}")
    await asyncio.Event().wait()


def _write_address(file: Path, address: str) -> None:
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_bytes(orjson.dumps({"rest": address}))
    unfinished.rename(file)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2:]))
