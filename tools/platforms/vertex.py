"""Vertex AI: messages read by Google's classes, our image at a local endpoint of its SDK."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlops_mini import containers
from mlops_mini.deployment import vertex
from mlops_mini.errors import DataIntegrityError, UnavailableError
from mlops_mini.pipeline import definition
from tests.deployment import messages
from tools import docker_engine, image
from tools.platforms import environments, toy
from tools.platforms.piece import Piece

MODEL = "half_plus_two"
_WHAT: dict[str, Any] = {
    "name": "Vertex AI",
    "notes_tool": "Vertex AI: endpoints, Pipelines, schedules",
    "our_object": "the image of the model server, and `deployment.vertex`, from the compiled"
    " pipeline and a `Schedule`",
    "command": "make platforms ONLY=vertex",
}
# What the endpoint is asked, and the status of its answer.
ASKED = {
    "rows": ({"instances": [1, 2, 5], "parameters": {"n": 1}}, 200),
    "NaN": ({"instances": [float("nan")]}, 200),
    "an empty list": ({"instances": []}, 400),
    "a text": ({"instances": ["a"]}, 400),
}


def run(folder: Path) -> Piece:
    """Have the messages read, and deploy to a local endpoint."""
    environment = environments.made("google-cloud")
    package = definition.write_package(folder / "pipeline.yaml")
    (folder / "messages.json").write_text(json.dumps(messages.of_vertex(package)))
    found = environments.ask(environment, "vertex_messages", folder, str(package))
    different = [part for part, is_same in found["same"].items() if not is_same]
    accepted = [name for name, is_refused in found["refused"].items() if not is_refused]
    if different or accepted:
        raise DataIntegrityError(f"the SDK's job differs in {different}; not refused: {accepted}")
    facts = {
        "google-cloud-aiplatform": found["version"],
        "messages that Google's classes read": "a model, a pipeline job, a schedule",
        "the SDK's own job of our package": f"equal in {', '.join(found['same'])}",
    }
    with ExitStack() as stack:
        try:
            stack.enter_context(docker_engine.running())
        except UnavailableError as exc:
            return Piece(
                state="skipped", reason=f"the messages were read, but {exc}", facts=facts, **_WHAT
            )
        image.build_all(["components", "server"])
        facts |= _endpoint(environment, folder)
    return Piece(state="ran", facts=facts, **_WHAT)


def _endpoint(environment: Path, folder: Path) -> dict[str, str]:
    folder.chmod(0o755)
    toy.write_half_plus_two(folder / "models" / MODEL / "1")
    bodies = {name: body for name, (body, _) in ASKED.items()}
    (folder / "bodies.json").write_text(json.dumps(bodies))
    server = containers.image(image.SERVER).name
    given = (server, MODEL, *vertex.routes(MODEL))
    found = environments.ask(environment, "vertex_endpoint", folder, *given)
    statuses = {name: status for name, (status, _) in found["answers"].items()}
    if statuses != {name: status for name, (_, status) in ASKED.items()}:
        raise DataIntegrityError(f"the endpoint has answered {found['answers']}")
    if found["answers"]["rows"][1] != {"predictions": [2.5, 3.0, 4.5]}:
        raise DataIntegrityError(f"the endpoint has answered {found['answers']['rows']}")
    return {
        "local endpoint": f"ready in {found['ready_s']:.1f} s, health {found['health']}",
        "requests": f"{len(ASKED)} of {len(ASKED)} answered as the contract says",
    }
