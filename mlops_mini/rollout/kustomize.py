"""The objects of a policy as files: a Kustomize base with the stable, and what a canary adds.

::

    base/              the stable alone, a file per step
    overlays/stable/   the base as it is: what to go back to
    overlays/canary/   adds the canary's objects, and replaces who gets what

`kubectl kustomize DIR/overlays/canary` prints all objects of the policy. To apply them, one step at
a time, is `kubernetes.Kubectl`'s business.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlops_mini.files import whole_file
from mlops_mini.rollout import istio
from mlops_mini.rollout.istio import Rendering
from mlops_mini.rollout.policy import TrafficPolicy
from mlops_mini.rollout.workload import Object, Workload

_STEPS = {
    "1-configuration.yaml": "configuration",
    "2-deployment.yaml": "deployment",
    "3-interface.yaml": "interface",
}


def files(policy: TrafficPolicy, workload: Workload) -> dict[str, str]:
    """Render a policy to files.

    Args:
        policy: Who gets which version; the overlay `canary` is it, and is left out if there's no
            canary.
        workload: What the cluster needs to know besides.

    Returns:
        Texts by path, such as `base/kustomization.yaml`.
    """
    of_stable = [rule for rule in policy.header_rules if rule.side == "stable"]
    alone = replace(policy, canary=None, weight_pct=0, mirror_pct=0, header_rules=tuple(of_stable))
    base = istio.render(alone, workload)
    texts = {
        "base/kustomization.yaml": yaml_of(_kustomization(resources=list(_STEPS))),
        **{f"base/{name}": yaml_of(*getattr(base, step)) for name, step in _STEPS.items()},
        "overlays/stable/kustomization.yaml": yaml_of(_kustomization(resources=["../../base"])),
    }
    if policy.canary is not None:
        texts |= _canary(base, istio.render(policy, workload))
    return texts


def write(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write the files.

    Args:
        folder: Made if needed; other files in it stay.
        texts: What `files` returned.

    Returns:
        The files.
    """
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_text(text)
    return [folder / name for name in texts]


def _canary(base: Rendering, whole: Rendering) -> dict[str, str]:
    known = [_key(one) for one in base.objects]
    texts = {}
    for name, step in list(_STEPS.items())[:2]:
        added = [one for one in getattr(whole, step) if _key(one) not in known]
        texts[f"overlays/canary/{name}"] = yaml_of(*added)
    changed = [one for one in whole.interface if one not in base.interface]
    texts["overlays/canary/3-interface.yaml"] = yaml_of(*changed)
    texts["overlays/canary/kustomization.yaml"] = yaml_of(
        _kustomization(
            resources=["../../base", *list(_STEPS)[:2]], patches=[{"path": "3-interface.yaml"}]
        )
    )
    return texts


def _key(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


def _kustomization(**fields: Any) -> Object:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}


def yaml_of(*objects: Object) -> str:
    """Write objects as YAML, in their order."""
    import yaml

    text: str = yaml.safe_dump_all(objects, sort_keys=False, width=100)
    return text
