"""FastAPI around a model, in the two forms that one finds: Keras' `predict`, and a raw call.

Example: python -m benchmarks.peer_fastapi PORT predict VERSION_FOLDER KERAS_FILE
"""

import sys
from typing import Any

import fastapi
import keras
import pydantic
import uvicorn

from benchmarks import peer_models


class Body(pydantic.BaseModel):
    """What is sent."""

    signature_name: str = ""
    instances: list[Any] | None = None
    inputs: dict[str, list[Any]] | None = None


def with_predict(folder: str, keras_file: str) -> fastapi.FastAPI:
    """Make the first form: a plain function, which FastAPI calls on a thread."""
    app, model = fastapi.FastAPI(), peer_models.Model(folder)
    loaded = keras.models.load_model(keras_file, compile=False)

    @app.post("/predict")
    def predict(body: Body) -> dict[str, Any]:
        document = body.model_dump()
        inputs = model.inputs(document)
        fed = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        outputs = loaded.predict(fed, verbose=0)
        return peer_models.answer(
            document, outputs if isinstance(outputs, dict) else {"y": outputs}
        )

    return app


def with_call(folder: str) -> fastapi.FastAPI:
    """Make the second form: a coroutine, which calls the model itself."""
    app, model = fastapi.FastAPI(), peer_models.Model(folder)

    @app.post("/predict")
    async def predict(body: Body) -> dict[str, Any]:
        document = body.model_dump()
        return peer_models.answer(document, model.run(model.inputs(document)))

    return app


if __name__ == "__main__":
    port, form, *paths = sys.argv[1:]
    chosen = with_predict(*paths) if form == "predict" else with_call(paths[0])
    uvicorn.run(chosen, host="127.0.0.1", port=int(port), access_log=False, log_level="warning")
