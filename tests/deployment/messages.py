"""The messages that golden files hold, made of one release, one pipeline, one schedule.

`python -m tests.deployment.messages` writes the files anew; look at what `git diff` says then.
"""

import json
from pathlib import Path
from typing import Any

from mlops_mini.deployment import sagemaker, vertex
from mlops_mini.pipeline import definition
from mlops_mini.rollout.policy import Backend, TrafficPolicy
from mlops_mini.triggers.schedules import Schedule

GOLDEN = Path(__file__).parent / "golden"
_DIGEST = f"sha256:{'0123456789abcdef' * 4}"
ACCOUNT = sagemaker.Account(
    role="arn:aws:iam::123456789012:role/service-role/mlops-mini",
    image=f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/mlops-mini-sagemaker@{_DIGEST}",
    folder="s3://mlops-mini/flights",
)
PROJECT = vertex.Project(
    name="mlops-mini-1",
    region="europe-west4",
    bucket="gs://mlops-mini/runs",
    service_account="pipelines@mlops-mini-1.iam.gserviceaccount.com",
)
HYPERPARAMETERS = {"period": "2013-03", "train_periods": 2, "seed": 0}
POLICY = TrafficPolicy(
    model="flights", stable=Backend(name="v1"), canary=Backend(name="v2"), weight_pct=5
)
ARGUMENTS: dict[str, Any] = {
    "use_case": "mlops_mini.flights.use_case:FLIGHTS",
    "use_case_digest": _DIGEST,
    "train_periods": ["2013-01", "2013-02"],
    "test_period": "2013-03",
    "data_folder": "/gcs/mlops-mini/data",
    "data_digest": _DIGEST,
    "models_folder": "/gcs/mlops-mini/models/flights",
    "verdicts_folder": "/gcs/mlops-mini/verdicts",
    "thresholds_digest": _DIGEST,
    "with_challenger": False,
}
LABELS = {"pipeline": "continuous-training"}
WEEKLY = Schedule("30 6 * * mon", zone="America/New_York", catches_up=True)


def of_sagemaker() -> list[dict[str, Any]]:
    """Calls in the order in which they'd be made: train, serve, ramp, watch."""
    archive = f"{ACCOUNT.folder}/models/train-{{}}/output/model.tar.gz"
    shadow = TrafficPolicy(
        model="flights", stable=Backend(name="v1"), canary=Backend(name="v2"), mirror_pct=20
    )
    analyzer = (
        "048819808253.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-model-monitor-analyzer:latest"
    )
    calls = [
        ("CreateTrainingJob", sagemaker.training_job("train-v2", ACCOUNT, HYPERPARAMETERS)),
        *(
            (
                "CreateModel",
                sagemaker.model(
                    version, ACCOUNT, archive=archive.format(version), served_as="flights"
                ),
            )
            for version in ("v1", "v2")
        ),
        ("CreateEndpointConfig", sagemaker.endpoint_config("flights-shadow", ACCOUNT, shadow)),
        ("CreateEndpointConfig", sagemaker.endpoint_config("flights-5", ACCOUNT, POLICY)),
        ("CreateEndpoint", sagemaker.endpoint("flights", "flights-5")),
        ("UpdateEndpointWeightsAndCapacities", sagemaker.weights("flights", POLICY)),
        (
            "CreateDataQualityJobDefinition",
            sagemaker.data_quality_job(
                "flights-data", ACCOUNT, endpoint_name="flights", analyzer=analyzer
            ),
        ),
        (
            "CreateMonitoringSchedule",
            sagemaker.monitoring_schedule(
                "flights-hourly", Schedule("@hourly"), definition="flights-data"
            ),
        ),
    ]
    return [{"operation": operation, "request": request} for operation, request in calls]


def of_vertex(package: Any = definition.continuous_training) -> dict[str, Any]:
    """An upload, a job and a schedule, whole."""
    image = f"europe-docker.pkg.dev/mlops-mini-1/mlops/flights-server@{_DIGEST}"
    given = (package, ARGUMENTS, PROJECT)
    return {
        "upload": vertex.uploaded_model("flights", image),
        "job": vertex.pipeline_job(*given, labels=LABELS),
        "schedule": vertex.pipeline_schedule(WEEKLY, *given, labels=LABELS),
    }


def without_the_pipeline(message: Any) -> Any:
    """Leave of the pipeline only what callers see: golden files shouldn't change with its code."""
    if isinstance(message, dict) and "pipelineSpec" in message:
        spec = message["pipelineSpec"]
        seen = {key: spec[key] for key in ("pipelineInfo", "schemaVersion")}
        seen["root"] = {"inputDefinitions": sorted(spec["root"]["inputDefinitions"]["parameters"])}
        message = {**message, "pipelineSpec": seen}
    if isinstance(message, dict):
        return {key: without_the_pipeline(part) for key, part in message.items()}
    return message


def golden() -> dict[str, Any]:
    """What each golden file should hold, by its name."""
    return {
        "sagemaker.json": of_sagemaker(),
        "vertex.json": without_the_pipeline(of_vertex()),
    }


def as_text(document: Any) -> str:
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    for name, document in golden().items():
        (GOLDEN / name).write_text(as_text(document))
