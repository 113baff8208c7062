"""Has Google's own message classes read our messages, and its SDK make the same of our package."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format


def parsed(message: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Read a message strictly: an unknown field is an error."""
    read = json_format.ParseDict(message, kind.pb(kind()))
    return json_format.MessageToDict(read)


def refused(message: dict[str, Any], kind: Any) -> bool:
    """Say whether it's refused."""
    try:
        parsed(message, kind)
    except json_format.ParseError:
        return True
    return False


def main(folder: Path, package: str) -> None:
    """Read `messages.json`, and write whether the SDK's own job is the same."""
    ours = json.loads((folder / "messages.json").read_text())
    parsed(ours["upload"]["model"], types.Model)
    job = parsed(ours["job"], types.PipelineJob)
    parsed(ours["schedule"], types.Schedule)
    wrong = {
        "an unknown field": refused({**ours["job"], "pipelinespec": {}}, types.PipelineJob),
        "a number as a name": refused({**ours["job"], "displayName": 5}, types.PipelineJob),
        "a port that is none": refused(
            {"containerSpec": {"ports": [{"containerPort": "http"}]}}, types.Model
        ),
    }
    aiplatform.init(
        project="mlops-mini-1", location="europe-west4", credentials=AnonymousCredentials()
    )
    made = aiplatform.PipelineJob(
        display_name=ours["job"]["displayName"],
        template_path=package,
        parameter_values=ours["job"]["runtimeConfig"]["parameterValues"],
        pipeline_root=ours["job"]["runtimeConfig"]["gcsOutputDirectory"],
    )
    resource = made._gca_resource  # noqa: SLF001 - what it would send; the public name wants it sent
    theirs = json_format.MessageToDict(types.PipelineJob.pb(resource))
    same = {part: theirs[part] == job[part] for part in ("displayName", "pipelineSpec")}
    for part in ("gcsOutputDirectory", "parameterValues"):
        same[part] = theirs["runtimeConfig"][part] == job["runtimeConfig"][part]
    answer = {"version": version("google-cloud-aiplatform"), "refused": wrong, "same": same}
    (folder / "found.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
