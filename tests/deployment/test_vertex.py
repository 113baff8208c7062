"""Messages to Vertex AI; `make platforms ONLY=vertex` has Google's own classes read them."""

import dataclasses
from typing import Any

import pytest

from mlops_mini.deployment import vertex
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.pipeline import definition
from tests.deployment import messages
from tests.deployment.messages import ARGUMENTS, LABELS, PROJECT

MADE = messages.of_vertex()


def job(**changed: Any) -> dict[str, Any]:
    given = {**ARGUMENTS, **changed}
    return vertex.pipeline_job(definition.continuous_training, given, PROJECT, labels=LABELS)


def test_the_messages_are_those_of_the_golden_file() -> None:
    expected = (messages.GOLDEN / "vertex.json").read_text()

    assert messages.as_text(messages.without_the_pipeline(MADE)) == expected


def test_the_pipeline_is_the_compiled_one_and_the_schedule_runs_the_same_job() -> None:
    spec = MADE["job"]["pipelineSpec"]

    assert spec["schemaVersion"] == "2.1.0"
    assert spec["pipelineInfo"]["name"] == definition.NAME
    assert MADE["schedule"]["createPipelineJobRequest"]["pipelineJob"] == MADE["job"]
    assert MADE["schedule"]["cron"] == "TZ=America/New_York 30 6 * * 1"


@pytest.mark.parametrize("name", ["data_folder", "models_folder", "baseline", "registry"])
def test_a_folder_of_this_machine_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{name}='/home/me' isn't there.*say /gcs/"):
        job(**{name: "/home/me"})


def test_an_argument_that_the_pipeline_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="learning_rate"):
        job(learning_rate=1)


def test_what_vertex_sets_itself_cannot_be_set() -> None:
    with pytest.raises(InvalidArgumentError, match=r"sets \['AIP_HTTP_PORT'\]"):
        vertex.uploaded_model("m", "image", variables={"AIP_HTTP_PORT": "1"})


def test_a_bucket_is_one() -> None:
    with pytest.raises(InvalidArgumentError, match="isn't gs://BUCKET/PATH"):
        dataclasses.replace(PROJECT, bucket="/home/me")
