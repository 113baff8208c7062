"""Makes the strict schemas of the kinds that we render, out of packages on PyPI.

Example: python -m tests.rollout.schemas.extract kubernetes_validate-1.37.0-py3-none-any.whl

It needs cloudcoil-models-istio, as the README beside it says.
"""

import importlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
KUBERNETES = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
CORE_KINDS = {
    "ConfigMap": "core.v1",
    "Deployment": "apps.v1",
    "HorizontalPodAutoscaler": "autoscaling.v2",
    "NetworkPolicy": "networking.v1",
    "PodDisruptionBudget": "policy.v1",
    "Service": "core.v1",
    "ServiceAccount": "core.v1",
}
ISTIO_KINDS = ("DestinationRule", "Gateway", "VirtualService")


def without_words(schema: Any) -> Any:
    """Leave out descriptions, titles, defaults, and Kubernetes' extensions."""
    if isinstance(schema, list):
        return [without_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: without_words(value)
        for name, value in schema.items()
        if not (name in ("description", "title") and isinstance(value, str))
        and not name.startswith("x-")
        and not (name == "default" and not isinstance(value, dict))
    }


def core(wheel: Path) -> dict[str, Any]:
    """Collect the definitions that the core kinds refer to."""
    with zipfile.ZipFile(wheel) as file:
        text = file.read(KUBERNETES).decode().replace("/api/_definitions.json#", "#")
    definitions = json.loads(text)["$defs"]
    roots = {kind: f"io.k8s.api.{group}.{kind}" for kind, group in CORE_KINDS.items()}
    kept: dict[str, Any] = {}
    waiting = list(roots.values())
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = without_words(definitions[name])
            refs = json.dumps(kept[name]).split("#/$defs/")[1:]
            waiting += [part.partition('"')[0] for part in refs]
    refs_by_kind = {kind: {"$ref": f"#/$defs/{name}"} for kind, name in roots.items()}
    return {"kinds": refs_by_kind, "$defs": kept}


def strict(schema: Any) -> Any:
    """Forbid fields that a schema doesn't name, and null."""
    if isinstance(schema, list):
        return [strict(one) for one in schema if one != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def istio() -> dict[str, Any]:
    """Take version v1 of the kinds of Istio."""
    models = importlib.import_module("cloudcoil.models.istio.networking.v1")
    kinds: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for kind in ISTIO_KINDS:
        schema = strict(without_words(getattr(models, kind).model_json_schema(by_alias=True)))
        schema["properties"]["metadata"] = {"type": "object"}
        schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
        # Each kind has definitions of its own under the same names.
        text = json.dumps(schema).replace("#/$defs/", f"#/$defs/{kind}.")
        schema = json.loads(text)
        definitions |= {f"{kind}.{name}": one for name, one in schema.pop("$defs").items()}
        kinds[kind] = schema
    return {"kinds": kinds, "$defs": definitions}


def main() -> None:
    """Write both files."""
    for name, schemas in {"kubernetes": core(Path(sys.argv[1])), "istio": istio()}.items():
        text = json.dumps(schemas, separators=(",", ":"), sort_keys=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
