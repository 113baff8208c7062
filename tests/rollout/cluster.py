"""A policy and a workload for tests of the rendering to Kubernetes, and the kinds' schemas."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy
from mlops_mini.rollout.workload import Workload

SCHEMAS = Path(__file__).parent / "schemas"
V1 = Backend(name="v1", rest="127.0.0.1:8501", grpc="127.0.0.1:8500")
V2 = Backend(name="v2", rest="127.0.0.1:8601", grpc="127.0.0.1:8600")
WORKLOAD = Workload(
    model_paths={"v1": "gs://shop-models/clothes-v1", "v2": "gs://shop-models/clothes-v2"},
    image="tensorflow/serving:2.8.0",
    host="clothes.example.com",
    namespace="shop",
    google_account="model-reader@shop-project.iam.gserviceaccount.com",
)
CANARY = TrafficPolicy(
    model="clothes",
    stable=V1,
    canary=V2,
    weight_pct=30,
    header_rules=(HeaderRule(header="x-user-group", value="canary", side="canary"),),
)


@cache
def _validators() -> dict[str, Any]:
    validators = {}
    for name in ("kubernetes", "istio"):
        schemas = json.loads((SCHEMAS / f"{name}.json").read_text())
        for kind, schema in schemas["kinds"].items():
            whole = {**schema, "$defs": schemas.get("$defs", {})}
            validators[kind] = jsonschema.Draft202012Validator(whole)
    return validators


def schema_errors(objects: Sequence[Any]) -> list[str]:
    """List where objects don't fit the schemas of their kinds."""
    return [
        f"{one['kind']} {'/'.join(map(str, error.absolute_path))}: {error.message}"
        for one in objects
        for error in _validators()[one["kind"]].iter_errors(one)
    ]
