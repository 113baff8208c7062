"""Messages to Vertex AI: our server as a model's container, our pipeline as a job or on a schedule.

They are JSON bodies of its REST API. They were read by Google's own message classes, strictly, and
compared with what its SDK makes of the same package; no project has seen them.

Source: https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements and
https://cloud.google.com/vertex-ai/docs/reference/rest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.pipeline.definition import VOLUMES
from mlops_mini.runner import arguments as given_arguments
from mlops_mini.runner import spec
from mlops_mini.triggers import exports
from mlops_mini.triggers.schedules import Schedule

Message = dict[str, Any]

PORT = 8080
_MOUNTED = "/gcs/"  # where Vertex AI mounts buckets for the tasks of a pipeline
_RESERVED = "AIP_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """Where in Vertex AI, and as whom.

    Attributes:
        name: Of the project.
        region: Such as `europe-west4`.
        bucket: Receives the outputs of runs, such as `gs://bucket/runs`.
        service_account: Whose rights the tasks have.

    Raises:
        InvalidArgumentError: The bucket isn't in Cloud Storage.
    """

    name: str
    region: str
    bucket: str
    service_account: str

    def __post_init__(self) -> None:
        if not self.bucket.startswith("gs://"):
            raise InvalidArgumentError(f"bucket {self.bucket!r} isn't gs://BUCKET/PATH")

    @property
    def parent(self) -> str:
        """Where new resources belong."""
        return f"projects/{self.name}/locations/{self.region}"


def routes(model: str) -> tuple[str, str]:
    """Return the routes of our server for predictions and for health.

    >>> routes("churn")
    ('/v1/models/churn:predict', '/readyz')
    """
    return f"/v1/models/{quote(model, safe='')}:predict", "/readyz"


def uploaded_model(
    model: str, image: str, *, variables: Mapping[str, str] | None = None
) -> Message:
    """Make the body of `POST .../v1/PARENT/models:upload`.

    There's no `artifactUri`: our server doesn't read buckets, so the model must be in the image, in
    `/models/MODEL`, as the image's own folder of versions.

    Args:
        model: Name of the model.
        image: Of our server with the model, by digest.
        variables: Further ones of the container.

    Raises:
        InvalidArgumentError: A variable is one that Vertex AI sets itself.
    """
    reserved = sorted(name for name in variables or {} if name.startswith(_RESERVED))
    if reserved:
        raise InvalidArgumentError(f"Vertex AI itself sets {reserved}: leave them out")
    predict_route, health_route = routes(model)
    given = {"MODEL_NAME": model, **(variables or {})}
    probe = {"httpGet": {"path": health_route, "port": PORT}}
    return {
        "model": {
            "displayName": model,
            "containerSpec": {
                "imageUri": image,
                "env": [{"name": name, "value": value} for name, value in given.items()],
                "ports": [{"containerPort": PORT}],
                "predictRoute": predict_route,
                "healthRoute": health_route,
                "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 60},
                "healthProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5},
            },
        }
    }


def pipeline_job(
    package: Any, arguments: Mapping[str, Any], project: Project, *, labels: Mapping[str, str]
) -> Message:
    """Make the body of `POST .../v1/PARENT/pipelineJobs`.

    Args:
        package: The compiled pipeline, or the pipeline itself.
        arguments: Values of its parameters, as a run on a machine takes them. Folders must be those
            that the tasks see there.
        project: Where it runs.
        labels: To find it by.

    Raises:
        InvalidArgumentError: An argument isn't one of the pipeline's, or is a folder that tasks on
            Vertex AI can't see.
    """
    loaded = spec.load(package)
    declared = loaded.root.get("inputDefinitions", {}).get("parameters", {})
    bound = given_arguments.bind(declared, arguments, what=f"pipeline {loaded.name!r}")
    for name in VOLUMES.keys() & bound.keys():
        if bound[name] and not str(bound[name]).startswith(_MOUNTED):
            raise InvalidArgumentError(
                f"{name}={bound[name]!r} isn't there for a task on Vertex AI, which sees buckets"
                f" under /gcs: say {_MOUNTED}BUCKET/PATH, or leave it empty"
            )
    return {
        "displayName": loaded.name,
        "pipelineSpec": loaded.spec,
        "labels": dict(labels),
        "serviceAccount": project.service_account,
        "runtimeConfig": {
            "gcsOutputDirectory": project.bucket,
            "parameterValues": {name: bound[name] for name in arguments if name in bound},
        },
    }


def pipeline_schedule(
    schedule: Schedule,
    package: Any,
    arguments: Mapping[str, Any],
    project: Project,
    *,
    labels: Mapping[str, str],
) -> Message:
    """Make the body of `POST .../v1/PARENT/schedules`: the same job again and again.

    Args:
        schedule: When.
        package: As for `pipeline_job`, like the rest.
        arguments: Of each run.
        project: Where it runs.
        labels: To find the runs by.

    Raises:
        InvalidArgumentError: As `pipeline_job` does; or the expression means something else there.
    """
    job = pipeline_job(package, arguments, project, labels=labels)
    message = exports.vertex_schedule(
        schedule,
        job["pipelineSpec"],
        name=job["displayName"],
        parent=project.parent,
        root=project.bucket,
        arguments=job["runtimeConfig"]["parameterValues"],
    )
    message["createPipelineJobRequest"]["pipelineJob"] = job
    return message
