"""Requests to SageMaker; `make platforms ONLY=sagemaker` checks them by its service model."""

import dataclasses

import pytest

from mlops_mini.deployment import sagemaker
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout.policy import Backend, TrafficPolicy
from mlops_mini.triggers.schedules import Schedule
from tests.deployment import messages
from tests.deployment.messages import ACCOUNT, POLICY


def test_the_requests_are_those_of_the_golden_file() -> None:
    expected = (messages.GOLDEN / "sagemaker.json").read_text()

    assert messages.as_text(messages.of_sagemaker()) == expected


def test_all_hyperparameters_are_texts() -> None:
    request = sagemaker.training_job("t", ACCOUNT, {"period": "2013-03", "seed": 3})

    assert request["HyperParameters"] == {"period": "2013-03", "seed": "3"}


def test_two_variants_share_as_the_policy_says() -> None:
    request = sagemaker.endpoint_config("e", ACCOUNT, POLICY)

    weights = {v["VariantName"]: v["InitialVariantWeight"] for v in request["ProductionVariants"]}
    assert weights == {"v1": 95.0, "v2": 5.0}
    assert "ShadowProductionVariants" not in request


def test_a_mirrored_canary_is_a_shadow_variant() -> None:
    policy = dataclasses.replace(POLICY, weight_pct=0, mirror_pct=20)
    request = sagemaker.endpoint_config("e", ACCOUNT, policy)

    assert [v["VariantName"] for v in request["ProductionVariants"]] == ["v1"]
    (shadow,) = request["ShadowProductionVariants"]
    assert (shadow["VariantName"], shadow["InitialVariantWeight"]) == ("v2", 20.0)


def test_without_a_canary_there_is_one_variant_and_nothing_to_weigh() -> None:
    policy = TrafficPolicy(model="flights", stable=Backend(name="v1"))

    request = sagemaker.endpoint_config("e", ACCOUNT, policy)
    assert [v["InitialVariantWeight"] for v in request["ProductionVariants"]] == [100.0]
    with pytest.raises(InvalidArgumentError, match="flights has no canary"):
        sagemaker.weights("e", policy)


@pytest.mark.parametrize("name", ["bad name!", "", "-a", "a-", "a" * 64, "a_b"])
def test_a_name_that_sagemaker_would_refuse_is_refused_here(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no name for SageMaker"):
        sagemaker.endpoint(name, "config")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("image", "repo/mlops-mini:latest", "name it by its digest"),
        ("folder", "/home/me", "say s3://BUCKET/PATH"),
    ],
)
def test_what_an_account_cannot_be(field: str, value: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        dataclasses.replace(ACCOUNT, **{field: value})


@pytest.mark.parametrize(
    ("cron", "expression"),
    [("@hourly", "cron(0 * ? * * *)"), ("0 6 * * *", "cron(0 6 ? * * *)")],
)
def test_schedules_that_sagemaker_has(cron: str, expression: str) -> None:
    request = sagemaker.monitoring_schedule("s", Schedule(cron), definition="d")

    config = request["MonitoringScheduleConfig"]["ScheduleConfig"]
    assert config["ScheduleExpression"] == expression


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("30 * * * *", "UTC"),
        ("0 6,18 * * *", "UTC"),
        ("0 6 * * mon", "UTC"),
        ("0 6 1 * *", "UTC"),
        ("0 6 * * *", "Europe/Berlin"),
    ],
)
def test_schedules_that_sagemaker_has_not(cron: str, zone: str) -> None:
    with pytest.raises(InvalidArgumentError, match="every hour or once a day"):
        sagemaker.monitoring_schedule("s", Schedule(cron, zone=zone), definition="d")
