"""Tells a cluster: everything in a safe order by kubectl, then who gets what, step by step.

`Kubectl` brings versions in and takes them out. `VirtualServiceRouter` is what a release needs in
between: it writes one object, and no route to what isn't there.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlops_mini.errors import (
    FailedPreconditionError,
    NotFoundError,
    UnavailableError,
)
from mlops_mini.rollout import istio
from mlops_mini.rollout.http_api import HttpApi
from mlops_mini.rollout.istio import Rendering
from mlops_mini.rollout.kustomize import yaml_of
from mlops_mini.rollout.policy import Backend, TrafficPolicy
from mlops_mini.rollout.workload import Object, Workload

# Both write under the same name: to Kubernetes they're one owner of the fields.
FIELD_MANAGER = "mlops-mini"
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ISTIO_API = "/apis/networking.istio.io/v1/namespaces"


def api_in_cluster() -> HttpApi:
    """Find the API server from inside of a pod.

    Raises:
        NotFoundError: This isn't a pod, or it has no service account.
    """
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    if not host or not (_IN_POD / "token").exists():
        raise NotFoundError(
            "this isn't a pod with a service account: run `kubectl proxy` and use "
            "HttpApi('http://127.0.0.1:8001')"
        )
    return HttpApi(
        f"https://{host}:{port}", token_file=_IN_POD / "token", ca_file=_IN_POD / "ca.crt"
    )


class VirtualServiceRouter:
    """Tells Istio who gets what, by writing the virtual service alone.

    Whether a version has pods is asked by the looks of a release: it gives a canary nothing before
    it's ready, and takes everything back when it no longer is.
    """

    def __init__(self, api: HttpApi, workload: Workload) -> None:
        """Write nothing yet.

        Args:
            api: Kubernetes' API. It takes `get` on deployments and destination rules, and `patch`
                on virtual services.
            workload: As the objects were rendered with.
        """
        self._api, self._workload = api, workload

    def apply(self, policy: TrafficPolicy) -> None:
        """Make a policy hold.

        Args:
            policy: Who gets what from now on.

        Raises:
            UnavailableError: The API doesn't answer.
            FailedPreconditionError: A subset isn't there or somebody else owns the routes, and the
                old policy still holds; or the cluster didn't keep what was written.
        """
        wanted = istio.virtual_service(policy, self._workload)
        self._check_subsets(policy, wanted)
        path = f"{_ISTIO_API}/{self._workload.namespace}/virtualservices/{policy.model}"
        held = self._api.ask(
            "PATCH",
            f"{path}?fieldManager={FIELD_MANAGER}",
            content_type="application/apply-patch+yaml",
            body=wanted,
        )
        if held.get("spec") != wanted["spec"]:  # an old Istio drops fields that it doesn't know
            raise FailedPreconditionError(
                f"the cluster keeps another VirtualService {policy.model} than was written: is its "
                "Istio older, or does something change objects as they come in?"
            )

    def is_ready(self, model: str, version: str) -> bool:
        """Tell whether a version has pods that are ready.

        Args:
            model: Name of the model.
            version: Name of the version.
        """
        path = f"/apis/apps/v1/namespaces/{self._workload.namespace}/deployments/{model}-{version}"
        try:
            deployment = self._api.ask("GET", path)
        except NotFoundError:
            return False
        return bool(deployment.get("status", {}).get("availableReplicas"))

    def _check_subsets(self, policy: TrafficPolicy, wanted: Object) -> None:
        path = f"{_ISTIO_API}/{self._workload.namespace}/destinationrules/{policy.model}"
        rule = self._api.ask("GET", path)
        there = {subset["name"] for subset in rule["spec"].get("subsets", [])}
        named = {
            part["destination"]["subset"]
            for route in wanted["spec"]["http"]
            for part in (*route["route"], *route.get("mirrors", []))
        }
        if named - there:
            raise FailedPreconditionError(
                f"the DestinationRule {policy.model} has no subsets {sorted(named - there)}: apply "
                "the objects of the canary first"
            )


class Kubectl:
    """Brings the objects of a policy to a cluster, and takes those of a version away."""

    def __init__(
        self,
        *options: str,
        command: str = "kubectl",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Run nothing yet.

        Args:
            options: Given with each call, such as `--context=production`.
            command: Which kubectl.
            sleep: Waits until all proxies know of a change.
        """
        self._command, self._sleep = (command, *options), sleep

    def apply(self, rendering: Rendering, *, timeout_s: float = 600) -> None:
        """Write all objects, and each step only when the one before it is there.

        Args:
            rendering: What `istio.render` returned.
            timeout_s: Seconds for the pods of each version to become ready.

        Raises:
            UnavailableError: kubectl failed; the message has its words. The steps before hold.
            NotFoundError: There is no kubectl.
        """
        self._write(rendering.configuration)
        self._write(rendering.deployment)
        for one in rendering.deployment:
            if one["kind"] == "Deployment":
                namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
                self._run(
                    "rollout", "status", f"deployment/{name}", f"--namespace={namespace}",
                    f"--timeout={timeout_s:g}s",
                )  # fmt: skip
        self._write(rendering.interface)

    def retire(
        self, version: str, policy: TrafficPolicy, workload: Workload, *, settle_s: float = 30
    ) -> None:
        """Take a version away that gets no requests any more: routes, subset, then pods.

        Args:
            version: Whose objects are deleted.
            policy: What holds without it.
            workload: As the objects were rendered with.
            settle_s: Seconds after which all proxies know that nothing goes there.

        Raises:
            FailedPreconditionError: The policy names the version.
            UnavailableError: kubectl failed; the message has its words.
        """
        if version in (backend.name for backend in (policy.stable, policy.canary) if backend):
            raise FailedPreconditionError(
                f"{version} is still in the policy: release another first"
            )
        interface = {one["kind"]: one for one in istio.render(policy, workload).interface}
        self._write([interface["VirtualService"]])
        self._sleep(settle_s)
        self._write([interface["DestinationRule"]])
        alone = TrafficPolicy(model=policy.model, stable=Backend(name=version))
        gone = istio.render(alone, workload)
        name = f"{policy.model}-{version}"
        objects = [
            one
            for one in (*reversed(gone.deployment), *gone.configuration)
            if one["metadata"]["name"] == name
        ]
        self._run("delete", "--ignore-not-found", "-f", "-", objects=objects)

    def _write(self, objects: Sequence[Object]) -> None:
        self._run(
            "apply", "--server-side", f"--field-manager={FIELD_MANAGER}", "-f", "-", objects=objects
        )

    def _run(self, *arguments: str, objects: Sequence[Object] = ()) -> None:
        text = yaml_of(*objects)
        command = [*self._command, *arguments]
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        except FileNotFoundError as exc:
            raise NotFoundError(f"{command[0]} isn't installed, or isn't on the PATH") from exc
        if done.returncode:
            raise UnavailableError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
