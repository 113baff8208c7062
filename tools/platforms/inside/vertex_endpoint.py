"""Deploys our image to a local endpoint by Vertex AI's SDK, and asks it."""

import json
import sys
import time
from pathlib import Path

from google.cloud.aiplatform.prediction import LocalModel


def main(folder: Path, image: str, model: str, predict_route: str, health_route: str) -> None:
    """Deploy the versions in `models/MODEL`, and write what was answered and how long it took."""
    local = LocalModel(
        serving_container_image_uri=image,
        serving_container_predict_route=predict_route,
        serving_container_health_route=health_route,
        serving_container_environment_variables={"MODEL_NAME": model},
        serving_container_ports=[8080],
    )
    began = time.monotonic()
    with local.deploy_to_local_endpoint(artifact_uri=str(folder / "models" / model)) as endpoint:
        ready = time.monotonic()
        health = endpoint.run_health_check()
        answers = {}
        for name, body in json.loads((folder / "bodies.json").read_text()).items():
            answer = endpoint.predict(
                request=json.dumps(body), headers={"Content-Type": "application/json"}
            )
            answers[name] = [answer.status_code, answer.json()]
    endpoint.container.remove()  # the SDK only stops it
    found = {"ready_s": ready - began, "health": health.status_code, "answers": answers}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
