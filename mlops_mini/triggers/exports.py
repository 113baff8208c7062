"""The same triggers in the words of Kubeflow, Vertex AI and Argo Events.

None of them has a ledger: no cool-down, no key that's fired once, no breaker. What they start
should ask ours. None has run on a cluster here. Where clocks change, they follow their own library:
a job in the hour that's skipped doesn't run there at all.

Source: kubeflow/pipelines backend/api/v2beta1/recurring_run.proto; google.cloud.aiplatform.v1
Schedule; argoproj/argo-events api/event-source.md and api/sensor.md; github.com/robfig/cron
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.triggers.reasons import Kind
from mlops_mini.triggers.schedules import Schedule

_BY_WEBHOOK: tuple[Kind, ...] = ("on_demand", "new_data", "degradation", "drift")
_ARGO = {"apiVersion": "argoproj.io/v1alpha1"}


def kubeflow_recurring_run(
    schedule: Schedule,
    pipeline_spec: Mapping[str, Any],
    *,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    cluster_zone: str = "UTC",
) -> dict[str, Any]:
    """Make the body of `POST /apis/v2beta1/recurringruns`.

    Args:
        schedule: When; Kubeflow's has no zone of its own, so it must be the cluster's.
        pipeline_spec: The compiled pipeline.
        name: How it's listed.
        arguments: Of each run.
        cluster_zone: What the cluster's CRON_SCHEDULE_TIMEZONE says.

    Raises:
        InvalidArgumentError: The zones differ, or the expression means something else there.
    """
    if schedule.zone != cluster_zone:
        raise InvalidArgumentError(
            f"the schedule is in {schedule.zone}, and Kubeflow would read it in {cluster_zone}: set"
            " the cluster's CRON_SCHEDULE_TIMEZONE, and say so by cluster_zone"
        )
    return {
        "display_name": name,
        "pipeline_spec": dict(pipeline_spec),
        "runtime_config": {"parameters": dict(arguments or {})},
        "trigger": {"cron_schedule": {"cron": f"0 {_plain(schedule)}"}},  # seconds come first
        "mode": "ENABLE",
        "max_concurrency": "1",
        "no_catchup": not schedule.catches_up,
    }


def vertex_schedule(
    schedule: Schedule,
    pipeline_spec: Mapping[str, Any],
    *,
    name: str,
    parent: str,
    root: str,
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the body of `POST .../v1/PARENT/schedules`.

    Args:
        schedule: When. Catching up is no part of it there, but of resuming a paused one.
        pipeline_spec: The compiled pipeline.
        name: How it's listed.
        parent: Such as `projects/p/locations/europe-west4`.
        root: Folder for the runs' outputs, such as `gs://bucket/runs`.
        arguments: Of each run.

    Raises:
        InvalidArgumentError: The expression means something else there.
    """
    return {
        "displayName": name,
        "cron": f"TZ={schedule.zone} {_plain(schedule)}",
        "maxConcurrentRunCount": "1",
        "allowQueueing": schedule.catches_up,
        "createPipelineJobRequest": {
            "parent": parent,
            "pipelineJob": {
                "displayName": name,
                "pipelineSpec": dict(pipeline_spec),
                "runtimeConfig": {
                    "gcsOutputDirectory": root,
                    "parameterValues": dict(arguments or {}),
                },
            },
        },
    }


def argo_events(
    schedule: Schedule | None, *, name: str, image: str, port: int = 12_000
) -> list[dict[str, Any]]:
    """Make an EventSource and a Sensor, whose workflow fires into our ledger.

    Args:
        schedule: When; None for no calendar.
        name: Of both.
        image: Has `mlops-mini`, and the ledger's volume under `/runs`.
        port: Where Alertmanager, storage notifications and people POST to `/KIND`.

    Returns:
        Manifests. An event that's delivered twice has one id, so it's fired once.

    Raises:
        InvalidArgumentError: The expression means something else there.
    """
    sources: dict[str, Any] = {
        "service": {"ports": [{"port": port, "targetPort": port}]},
        "webhook": {
            kind.replace("_", "-"): {
                "port": str(port), "endpoint": f"/{kind}", "method": "POST"
            }
            for kind in _BY_WEBHOOK
        },
    }  # fmt: skip
    events = list(sources["webhook"])
    if schedule:
        sources["calendar"] = {
            "schedule": {"schedule": _plain(schedule), "timezone": schedule.zone}
        }
        events.append("schedule")
    return [
        {**_ARGO, "kind": "EventSource", "metadata": {"name": name}, "spec": sources},
        {
            **_ARGO,
            "kind": "Sensor",
            "metadata": {"name": name},
            "spec": {
                "template": {"serviceAccountName": "operate-workflow-sa"},
                "dependencies": [
                    {"name": event, "eventSourceName": name, "eventName": event} for event in events
                ],
                "triggers": [_argo_trigger(event, name, image) for event in events],
            },
        },
    ]


def _argo_trigger(event: str, name: str, image: str) -> dict[str, Any]:
    fire = ["mlops-mini", "trigger", "fire", "--workspace", "/runs", "--reason", event]
    workflow = {
        **_ARGO,
        "kind": "Workflow",
        "metadata": {"generateName": f"{name}-{event}-"},
        "spec": {
            "entrypoint": "fire",
            "arguments": {"parameters": [{"name": "id", "value": "replaced"}]},
            "templates": [
                {
                    "name": "fire",
                    "inputs": {"parameters": [{"name": "id"}]},
                    "container": {
                        "image": image,
                        "command": [*fire, "--request-id", "{{inputs.parameters.id}}"],
                    },
                }
            ],
        },
    }
    from_event = {"dependencyName": event, "contextKey": "id"}
    return {
        "template": {
            "name": event,
            "conditions": event,  # each event by itself, not all of them together
            "argoWorkflow": {
                "operation": "submit",
                "source": {"resource": workflow},
                "parameters": [{"src": from_event, "dest": "spec.arguments.parameters.0.value"}],
            },
        }
    }


def _plain(schedule: Schedule) -> str:
    """Write a cron expression as every library reads it: numbers, lists and stars alone."""
    days = [schedule.texts[i] for i in (2, 4)]
    if "*" not in days and any(text.startswith("*") for text in days):
        raise InvalidArgumentError(
            f"cron {schedule.cron!r} means both days at once here and either of them there: write"
            " it without a star that has a step"
        )
    return " ".join(
        "*" if text == "*" else ",".join(map(str, numbers))
        for text, numbers in zip(schedule.texts, schedule.numbers, strict=True)
    )
