"""A scikit-learn model behind FastAPI, with what production asks for: a template to copy.

Clients talk to it as to a model server: the same paths, bodies and errors, so that
`mlops_mini.client.RestClient` asks it, and its flags are those of `mini-model-server`. Change
`Flight` and `EXAMPLE`, and it serves your model. A process serves one version, the highest or the
one named; to replace it, start another process and move the traffic there.

Example: python deploy/fastapi/service.py --model_name=flights --model_base_path=models/flights

A model's file is a pickle, and whoever wrote it decides what loading it does: load your own only.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import joblib
import pandas as pd
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from sklearn.exceptions import InconsistentVersionWarning
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from threadpoolctl import threadpool_limits

logger = logging.getLogger("service")

# The event loop runs the model, so this also limits for how long one request holds up all others.
MOST_ROWS = 1_000
MOST_BYTES = 1_000_000
MODEL_FILE = "model.joblib"
_RETRY_S = 1.0
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_MOST_PROBLEMS, _LONGEST_PROBLEM = 3, 200
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_OPTIONAL = Field(default=None, ge=-1_000, le=10_000)


class Flight(BaseModel):
    """What the model may know of a flight an hour before its departure."""

    model_config = _STRICT

    carrier: Literal[
        "9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN",
        "YV",
    ]  # fmt: skip
    origin: Literal["EWR", "JFK", "LGA"]
    dest: str = Field(pattern="^[A-Z]{3}$")
    mins: int = Field(ge=0, lt=1_440, description="scheduled departure, since midnight")
    dow: int = Field(ge=0, le=6, description="day of the week, Monday 0")
    distance: float = Field(gt=0, le=6_000, description="miles")
    block: float = Field(gt=0, le=1_200, description="scheduled minutes from gate to gate")
    org_dep_mean_3h: Annotated[float | None, _OPTIONAL]  # minutes; None if nothing has departed
    car_dep_mean_24h: Annotated[float | None, _OPTIONAL]
    org_overdue: float = Field(ge=-1_000, le=1_000, description="departures that should have been")


# Each version predicts it once before it's ready.
EXAMPLE = Flight(
    carrier="UA", origin="EWR", dest="IAH", mins=315, dow=1, distance=1400.0, block=227.0,
    org_dep_mean_3h=None, car_dep_mean_24h=4.2, org_overdue=0.0,
)  # fmt: skip


def as_rows(columns: Any) -> list[dict[str, Any]]:
    """Turn columns, one list per input, into rows."""
    if not isinstance(columns, dict) or not all(isinstance(c, list) for c in columns.values()):
        raise ValueError("inputs are one list per input, such as {'mins': [315], ...}")
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("the lists of inputs have different lengths")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


Rows = Annotated[list[Flight], Field(min_length=1, max_length=MOST_ROWS)]
Columns = Annotated[
    Rows,
    BeforeValidator(as_rows),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "array"}}),
]


class Body(BaseModel):
    """A request, as rows (`instances`) or as columns (`inputs`)."""

    model_config = _STRICT

    signature_name: Literal["", "serving_default"] = ""
    instances: Rows | None = None
    inputs: Columns | None = None

    @model_validator(mode="after")
    def check_form(self) -> Self:
        """Refuse both forms at once, and neither."""
        if (self.instances is None) == (self.inputs is None):
            raise ValueError("give either instances or inputs")
        return self


class Predictions(BaseModel):
    """An answer: how likely each flight is to be late, in the form of the request."""

    predictions: list[float] | None = None
    outputs: list[float] | None = None


class Model:
    """A loaded version.

    Attributes:
        version: Its number, the name of its folder.
    """

    def __init__(self, base_path: Path, version: int | None = None) -> None:
        """Load a version and make it predict once.

        Args:
            base_path: The folder of versions.
            version: Which one; the highest if it's left out.
        """
        names = [path.name for path in base_path.iterdir() if path.name.isdecimal()]
        if version is not None:
            names = [name for name in names if int(name) == version]
        if not names:
            wanted = "version" if version is None else f"version {version}"
            raise FileNotFoundError(f"there is no {wanted} in {base_path}")
        name = max(names, key=int)
        with warnings.catch_warnings():
            # Another scikit-learn's pickle may load and predict something else.
            warnings.simplefilter("error", InconsistentVersionWarning)
            self._pipeline = joblib.load(base_path / name / MODEL_FILE)
        self.version = int(name)
        learned = list(self._pipeline.feature_names_in_)
        if learned != list(Flight.model_fields):
            raise ValueError(f"version {name} has learned from {learned}, which no Flight is")
        self.predict([EXAMPLE])

    def predict(self, flights: list[Flight]) -> list[float]:
        """Predict how likely each flight is to be late, 0 to 1."""
        table = pd.DataFrame([vars(flight) for flight in flights], columns=[*Flight.model_fields])
        optional = {"org_dep_mean_3h": "float64", "car_dep_mean_24h": "float64"}
        return [float(p) for p in self._pipeline.predict_proba(table.astype(optional))[:, 1]]


class Serving:
    """What is served: a version, or why there is none yet."""

    def __init__(self, base_path: Path, version: int | None) -> None:
        """Point to the folder of versions."""
        self._base_path, self._version = base_path, version
        self.model: Model | None = None
        self.problem = ""

    async def load(self) -> None:
        """Load the version, if it can be."""
        try:
            self.model = await asyncio.to_thread(Model, self._base_path, self._version)
        except Exception as exc:  # noqa: BLE001 - a pickle may raise anything
            self.problem = f"{type(exc).__name__}: {exc}"
            logger.warning("not ready: %s", self.problem)
        # For this thread, which makes all predictions: several would mostly wait for each other.
        threadpool_limits(1)

    async def keep_trying(self) -> None:
        """Load it once it's there."""
        while self.model is None:
            await asyncio.sleep(_RETRY_S)
            await self.load()

    def loaded(self, version: int | None = None) -> Model:
        """Return the model that answers, or say why none does."""
        if self.model is None:
            raise HTTPException(503, f"not ready: {self.problem}")
        if version not in (None, self.model.version):
            raise HTTPException(
                404, f"version {version} isn't served; this process has {self.model.version}"
            )
        return self.model


class Edge:
    """What happens to a request for a prediction before FastAPI sees it, and after it's answered.

    It's counted and timed, its body is limited, and that is JSON whatever its type says, as it is
    to model servers: `curl -d` calls what it sends a form.
    """

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        """Wrap the application."""
        self._app = app
        self._requests = Counter(
            "model_requests", "requests for predictions", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "model_seconds", "from a request to its answer", buckets=_BUCKETS_S, registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not scope["path"].endswith(":predict"):
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MOST_BYTES:
                raise HTTPException(413, f"a request has at most {MOST_BYTES:,} bytes")
            return message

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.labels(message["status"]).inc()
                self._seconds.observe(time.perf_counter() - began)
            await send(message)

        began = time.perf_counter()
        await self._app({**scope, "headers": headers}, limited, counting)


def create_app(name: str, base_path: Path, *, version: int | None = None) -> FastAPI:
    """Make the application.

    Args:
        name: The model's name, in every path.
        base_path: Its folder of versions.
        version: The version to serve; the highest if it's left out.
    """
    serving, registry = Serving(base_path, version), CollectorRegistry()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await serving.load()
        trying = asyncio.create_task(serving.keep_trying())
        yield
        trying.cancel()

    app = FastAPI(title=name, lifespan=lifespan, strict_content_type=False)
    app.add_middleware(Edge, registry=registry)
    app.add_exception_handler(RequestValidationError, refuse)
    app.add_exception_handler(HTTPException, explain)
    app.add_exception_handler(Exception, apologize)
    routes = model_routes(name, serving, registry)
    app.include_router(routes, prefix=f"/v1/models/{name}")
    app.include_router(routes, prefix=f"/v1/models/{name}/versions/{{version}}")

    @app.get("/healthz")
    async def is_alive() -> dict[str, bool]:
        return {"alive": True}

    @app.get("/readyz")
    async def is_ready() -> dict[str, int]:
        return {"version": serving.loaded().version}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return app


def model_routes(name: str, serving: Serving, registry: CollectorRegistry) -> APIRouter:
    """Make the routes of a model server."""
    routes = APIRouter()
    n_rows = Counter("model_rows", "flights predicted", registry=registry)
    served = Gauge("model_version", "the version that answers, 0 while none", registry=registry)
    served.set_function(lambda: serving.model.version if serving.model else 0)

    async def asked_for(version: int | None = None) -> Model:
        return serving.loaded(version)

    Asked = Annotated[Model, Depends(asked_for)]  # noqa: N806 - a type

    @routes.post(":predict", response_model_exclude_none=True)
    async def predict(body: Body, model: Asked, response: Response) -> Predictions:
        flights = body.instances or body.inputs or []
        answers = model.predict(flights)
        n_rows.inc(len(flights))
        response.headers["x-model-version"] = str(model.version)
        return Predictions(**{"outputs" if body.inputs else "predictions": answers})

    @routes.get("")
    async def status(version: int | None = None) -> dict[str, Any]:
        if serving.model is None:
            raise HTTPException(404, f"no version is there yet: {serving.problem}")
        model = serving.loaded(version)
        known = {"version": str(model.version), "state": "AVAILABLE"}
        return {"model_version_status": [known | {"status": {"error_code": "OK"}}]}

    @routes.get("/metadata")
    async def metadata(model: Asked) -> dict[str, Any]:
        return described(name, model.version)

    return routes


async def refuse(_request: Request, exc: RequestValidationError) -> Response:
    """Say what is wrong with a request, without its inputs: they may be NaN, which is no JSON."""
    lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in exc.errors()]
    shown = [line[:_LONGEST_PROBLEM] for line in lines[:_MOST_PROBLEMS]]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return error(400, "; ".join(shown))


async def explain(_request: Request, exc: HTTPException) -> Response:
    """Say why there's no answer."""
    return error(exc.status_code, exc.detail)


async def apologize(_request: Request, _exc: Exception) -> Response:
    """Answer where the service itself has failed."""
    return error(500, "the service has failed; its log says why")


def error(status: int, text: str) -> Response:
    """Write an error as model servers do, in ASCII: UTF-8 can't encode every name in it."""
    return Response(json.dumps({"error": text}), status, media_type="application/json")


def described(name: str, version: int) -> dict[str, Any]:
    """Describe inputs and output as TensorFlow Serving describes a model's."""
    kinds: dict[Any, str] = {int: "DT_INT64", float: "DT_DOUBLE"}

    def tensor(dtype: str) -> dict[str, Any]:
        shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
        return {"dtype": dtype, "tensor_shape": shape, "name": ""}

    inputs = {
        field: tensor(
            "DT_DOUBLE" if not info.is_required() else kinds.get(info.annotation, "DT_STRING")
        )
        for field, info in Flight.model_fields.items()
    }
    signature = {
        "inputs": inputs,
        "outputs": {"probability": tensor("DT_DOUBLE")},
        "method_name": "predict",
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


def main() -> int:
    """Serve until SIGTERM, then end what is under way."""
    name = os.environ.get("MODEL_NAME", "flights")
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model_name", default=name)
    parser.add_argument("--model_base_path", type=Path, help="its folder of versions")
    parser.add_argument("--version", type=int, help="else the highest there is")
    parser.add_argument("--bind_address", default="127.0.0.1")
    parser.add_argument("--rest_api_port", type=int, default=8501, help="0 for any free one")
    parser.add_argument("--address_file", type=Path, help="to write the address into, as JSON")
    flags = parser.parse_args()
    models = Path(os.environ.get("MODEL_BASE_PATH", "models"))
    base_path = flags.model_base_path or models / flags.model_name
    app = create_app(flags.model_name, base_path, version=flags.version)
    with socket.create_server((flags.bind_address, flags.rest_api_port), backlog=1_024) as bound:
        if flags.address_file:
            unfinished = flags.address_file.with_suffix(".unfinished")
            host, port = bound.getsockname()
            unfinished.write_text(json.dumps({"rest": f"{host}:{port}"}))
            unfinished.rename(flags.address_file)
        # uvicorn finishes what it's doing at SIGTERM, and then leaves the signal to this.
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="none",
            # Longer than proxies leave a connection idle, or they'd use one that is just closing.
            timeout_keep_alive=75,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[bound])
    return 0


if __name__ == "__main__":
    sys.exit(main())
