"""Requests to SageMaker: train, serve with two variants, watch the data.

Each function makes the parameters of one call of its API, as boto3 takes them. They were checked
against the service's own model, patterns and enums included; no account has seen them.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference, and botocore's service model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout.policy import TrafficPolicy
from mlops_mini.triggers.schedules import Schedule

Request = dict[str, Any]

CHANNEL = "train"
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_BY_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_LOCAL = "/opt/ml/processing"  # where a processing job finds and leaves its files
# What the trainer writes to its log, in one line.
_METRICS = {f"candidate:{name}": f"candidate .*{name}=([0-9.]+)" for name in ("auc", "log_loss")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What SageMaker needs to know besides.

    Attributes:
        role: ARN of the role that jobs and endpoints take on.
        image: Our image in ECR, by digest: it trains and serves.
        folder: Where everything is kept, such as `s3://bucket/churn`.
        instance_type: Of all machines, such as `ml.m5.large`.

    Raises:
        InvalidArgumentError: The image isn't named by digest, or the folder isn't in S3.
    """

    role: str
    image: str
    folder: str
    instance_type: str = "ml.m5.large"

    def __post_init__(self) -> None:
        if not _BY_DIGEST.fullmatch(self.image):
            raise InvalidArgumentError(
                f"image {self.image!r} may be another one tomorrow: name it by its digest, as in"
                " ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME@sha256:..."
            )
        if not self.folder.startswith("s3://"):
            raise InvalidArgumentError(f"folder {self.folder!r} isn't in S3: say s3://BUCKET/PATH")

    @property
    def instances(self) -> Request:
        """One machine with a disk."""
        return {"InstanceType": self.instance_type, "InstanceCount": 1, "VolumeSizeInGB": 10}


def training_job(
    name: str,
    account: Account,
    hyperparameters: Mapping[str, str | int],
    *,
    max_run_s: int = 3600,
) -> Request:
    """Make the parameters of CreateTrainingJob.

    Args:
        name: Of the job.
        account: The tables are in its folder under `data`, and its models go to `models`.
        hyperparameters: What `sagemaker_training` takes; SageMaker hands all of them on as texts.
        max_run_s: When it's stopped, seconds.

    Raises:
        InvalidArgumentError: The name is none.
    """
    return {
        "TrainingJobName": _checked(name),
        "AlgorithmSpecification": {
            "TrainingImage": account.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": metric, "Regex": pattern} for metric, pattern in _METRICS.items()
            ],
        },
        "RoleArn": account.role,
        "HyperParameters": {key: str(value) for key, value in hyperparameters.items()},
        "InputDataConfig": [
            {
                "ChannelName": CHANNEL,
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"{account.folder}/data",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"{account.folder}/models"},
        "ResourceConfig": account.instances,
        "StoppingCondition": {"MaxRuntimeInSeconds": max_run_s},
        "EnableNetworkIsolation": True,
    }


def model(name: str, account: Account, *, archive: str, served_as: str) -> Request:
    """Make the parameters of CreateModel.

    Args:
        name: Of the model, one for each version.
        account: Whose image serves it.
        archive: The `model.tar.gz` that a training job has left.
        served_as: What our server calls it.

    Raises:
        InvalidArgumentError: The name is none.
    """
    return {
        "ModelName": _checked(name),
        "PrimaryContainer": {
            "Image": account.image,
            "ModelDataUrl": archive,
            "Environment": {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": served_as},
        },
        "ExecutionRoleArn": account.role,
        "EnableNetworkIsolation": True,
    }


def endpoint_config(
    name: str, account: Account, policy: TrafficPolicy, *, captured_pct: int = 100
) -> Request:
    """Make the parameters of CreateEndpointConfig: a variant for the stable, one for the canary.

    A canary that's mirrored to becomes a shadow variant. What SageMaker can't express is left out:
    rules by header (a caller names a `TargetVariant`), users who stay with one version, and
    attempts after a failed one.

    Args:
        name: Of the configuration.
        account: Its image serves, and its folder receives what's captured.
        policy: Who gets which share. Its backends' names are those of models and variants.
        captured_pct: Share of requests whose inputs and outputs are kept, percent.

    Raises:
        InvalidArgumentError: A name is none.
    """
    variants = [_variant(policy.stable.name, account, 100 - policy.weight_pct)]
    request: Request = {"EndpointConfigName": _checked(name), "ProductionVariants": variants}
    if policy.canary is not None and policy.mirror_pct:
        shadow = _variant(policy.canary.name, account, policy.mirror_pct)
        request["ShadowProductionVariants"] = [shadow]
    elif policy.canary is not None:
        variants.append(_variant(policy.canary.name, account, policy.weight_pct))
    request["DataCaptureConfig"] = {
        "EnableCapture": True,
        "InitialSamplingPercentage": captured_pct,
        "DestinationS3Uri": f"{account.folder}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {
            "CsvContentTypes": ["text/csv"],
            "JsonContentTypes": ["application/json", "application/jsonlines"],
        },
    }
    return request


def endpoint(name: str, config: str) -> Request:
    """Make the parameters of CreateEndpoint, of an endpoint with a configuration."""
    return {"EndpointName": _checked(name), "EndpointConfigName": _checked(config)}


def weights(name: str, policy: TrafficPolicy) -> Request:
    """Make the parameters of UpdateEndpointWeightsAndCapacities: a step of a release.

    Raises:
        InvalidArgumentError: There's no canary to share with.
    """
    if policy.canary is None:
        raise InvalidArgumentError(f"{policy.model} has no canary, so there are no weights to set")
    shares = {
        policy.stable.name: 100 - policy.weight_pct,
        policy.canary.name: policy.weight_pct,
    }
    return {
        "EndpointName": _checked(name),
        "DesiredWeightsAndCapacities": [
            {"VariantName": variant, "DesiredWeight": float(share)}
            for variant, share in shares.items()
        ],
    }


def data_quality_job(name: str, account: Account, *, endpoint_name: str, analyzer: str) -> Request:
    """Make the parameters of CreateDataQualityJobDefinition.

    Args:
        name: Of the definition.
        account: Its folder has `baseline/statistics.json` and `baseline/constraints.json`.
        endpoint_name: Whose captured data is looked at.
        analyzer: AWS's own image for it in the account's region.

    Raises:
        InvalidArgumentError: A name is none.
    """
    return {
        "JobDefinitionName": _checked(name),
        "DataQualityBaselineConfig": {
            "StatisticsResource": {"S3Uri": f"{account.folder}/baseline/statistics.json"},
            "ConstraintsResource": {"S3Uri": f"{account.folder}/baseline/constraints.json"},
        },
        "DataQualityAppSpecification": {"ImageUri": analyzer},
        "DataQualityJobInput": {
            "EndpointInput": {"EndpointName": _checked(endpoint_name), "LocalPath": f"{_LOCAL}/in"}
        },
        "DataQualityJobOutputConfig": {
            "MonitoringOutputs": [
                {
                    "S3Output": {
                        "S3Uri": f"{account.folder}/monitoring",
                        "LocalPath": f"{_LOCAL}/out",
                        "S3UploadMode": "EndOfJob",
                    }
                }
            ]
        },
        "JobResources": {"ClusterConfig": account.instances},
        "RoleArn": account.role,
        "StoppingCondition": {"MaxRuntimeInSeconds": 1800},
    }


def monitoring_schedule(name: str, schedule: Schedule, *, definition: str) -> Request:
    """Make the parameters of CreateMonitoringSchedule.

    Args:
        name: Of the schedule.
        schedule: Every hour, or every day at a full hour, in UTC: nothing else is allowed there.
        definition: Name of the data quality job.

    Raises:
        InvalidArgumentError: A name is none, or SageMaker has no such schedule.
    """
    minutes, hours = schedule.numbers[:2]
    is_every_day = schedule.texts[2:] == ("*", "*", "*") and schedule.zone == "UTC"
    if minutes != (0,) or len(hours) not in (1, 24) or not is_every_day:
        raise InvalidArgumentError(
            f"cron {schedule.cron!r} in {schedule.zone}: SageMaker monitors every hour or once a"
            " day, at a full hour of UTC, as in '0 * * * *' or '0 6 * * *'"
        )
    hour = "*" if len(hours) == 24 else str(hours[0])
    return {
        "MonitoringScheduleName": _checked(name),
        "MonitoringScheduleConfig": {
            "ScheduleConfig": {"ScheduleExpression": f"cron(0 {hour} ? * * *)"},
            "MonitoringJobDefinitionName": _checked(definition),
            "MonitoringType": "DataQuality",
        },
    }


def _variant(name: str, account: Account, weight: float) -> Request:
    return {
        "VariantName": _checked(name),
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": account.instance_type,
        "InitialVariantWeight": float(weight),
    }


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is no name for SageMaker: up to 63 letters, digits and hyphens, with a"
            " letter or digit at either end"
        )
    return name
