"""Kubeflow: our components by digest in its own runner of containers, and a recurring run."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from mlops_mini.errors import UnavailableError
from mlops_mini.pipeline import challenger, components, definition, kubeflow
from mlops_mini.runner import spec
from mlops_mini.runner.digests import content_digest
from mlops_mini.runner.runner import Runner
from tools import docker_engine, image
from tools.platforms import environments, kubeflow_stand_in, registry
from tools.platforms.piece import Piece

USE_CASE = "mlops_mini.flights.use_case:FLIGHTS"
MONDAYS = "0 30 6 * * 1"
# What both runners make, by task and name.
MADE = (("ingest", "raw"), ("validate", "clean"), ("features", "train_examples"))
_WHAT: dict[str, Any] = {
    "name": "Kubeflow",
    "notes_tool": "Kubeflow Pipelines",
    "our_object": "`pipeline.components` and `pipeline.definition`, compiled, images by digest",
    "command": "make platforms ONLY=kubeflow",
}


@dsl.pipeline(name="from-files-to-examples")
def from_files_to_examples(
    use_case: str,
    use_case_digest: str,
    train_periods: list[str],
    test_period: str,
    data_folder: str,
    data_digest: str,
) -> None:
    """The first four components: three of Python, and one that is a shell script."""
    case = {"use_case": use_case, "use_case_digest": use_case_digest}
    periods = {"train_periods": train_periods, "test_period": test_period}
    raw = components.ingest(data_folder=data_folder, data_digest=data_digest, **case, **periods)
    verified = components.verify(raw=raw.outputs["raw"], expected=data_digest)
    data = {"data_digest": verified.outputs["data_digest"]}
    validated = components.validate(raw=raw.outputs["raw"], **case, **periods, **data)
    components.features(clean=validated.outputs["clean"], holdout_days=7, **case, **periods, **data)


def run(folder: Path) -> Piece:
    """Push the images, pin them, run the pipeline in containers and as processes, and compare."""
    with ExitStack() as stack:
        try:
            stack.enter_context(docker_engine.running())
            address = stack.enter_context(registry.running(folder))
        except UnavailableError as exc:
            return Piece(state="skipped", reason=str(exc), **_WHAT)
        image.build("components", image.COMPONENTS, base_image=image.base())
        began = time.monotonic()
        # The base is Debian with Python, so the shell script and the challenger can stand on it.
        base = registry.pushed(image.base(), address)
        digests = {
            components.IMAGE: registry.pushed(image.COMPONENTS, address),
            image.DEBIAN: base,
            challenger.IMAGE: base,
        }
        push_s = time.monotonic() - began
        whole = definition.write_package(folder / "continuous-training.yaml")
        whole.write_text(kubeflow.pinned(whole, digests))
        package = folder / "pipeline.yaml"
        compiler.Compiler().compile(from_files_to_examples, str(package))
        package.write_text(kubeflow.pinned(package, digests))
        arguments = _arguments(folder)
        (folder / "arguments.json").write_text(json.dumps(arguments))
        found = environments.ask(
            environments.made("kubeflow"), "kfp_docker", folder, arguments["data_folder"]
        )
    with Runner(folder / "runs", volumes=definition.VOLUMES) as runner:
        ours = runner.run(from_files_to_examples, arguments)
    differ = [
        name
        for task, name in MADE
        if content_digest(next((folder / "outputs").glob(f"*/{task}/{name}")))
        != ours.tasks[task].outputs["artifacts"][name]["digest"]
    ]
    environments.require(not differ, f"{differ} aren't what our runner makes")
    recurring = _recurring(whole, arguments)
    return Piece(
        state="ran",
        facts={
            "kfp": found["version"],
            "images in the whole pipeline by digest": _counted(whole),
            "the pipeline by digest, as Kubeflow's API server checks it": (
                f"taken: {kubeflow.check(whole).name}"
            ),
            "kfp's DockerRunner": f"{len(ours.tasks)} tasks in containers without a network, in"
            f" {found['seconds']:.0f} s",
            "artifacts that differ from those of our runner": f"{len(differ)} of {len(MADE)}",
            "recurring run": f"{recurring['trigger']['cron_schedule']['cron']},"
            f" at most {recurring['max_concurrency']} at once, missed ones"
            f" {'not ' if recurring['no_catchup'] else ''}made up for",
            "images pushed in": f"{push_s:.0f} s",
        },
        **_WHAT,
    )


def _arguments(folder: Path) -> dict[str, Any]:
    given = definition.arguments(
        USE_CASE,
        "2013-W06",
        models_folder=folder / "models",
        verdicts_folder=folder / "verdicts",
        n_train_periods=2,
        holdout_days=7,
    )
    names = ("data_folder", "data_digest", "train_periods", "test_period", "use_case_digest")
    return {"use_case": USE_CASE, **{name: given[name] for name in names}}


def _counted(package: Path) -> str:
    names = [container["image"] for container in spec.load(package).containers]
    return f"{sum('@sha256:' in name for name in names)} of {len(names)}"


def _recurring(package: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Submit a recurring run to a stand-in of Kubeflow's API server, and return what was sent."""
    declared = spec.load(package).root["inputDefinitions"]["parameters"]
    placeholders = {
        name: "/mnt/" + name
        for name, parameter in declared.items()
        if name not in arguments and not parameter.get("isOptional")
    }
    with kubeflow_stand_in.running() as (host, posted):
        kubeflow.submit(package, host=host, arguments=arguments | placeholders, cron=MONDAYS)
    recurring: dict[str, Any] = posted[-1][1]
    return recurring
