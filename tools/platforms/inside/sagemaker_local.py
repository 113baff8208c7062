"""Trains, deploys and predicts by SageMaker's SDK in its Local Mode, with our image."""

import json
import sys
import time
from pathlib import Path

import boto3
import sagemaker
from sagemaker.base_deserializers import JSONDeserializer
from sagemaker.base_serializers import JSONLinesSerializer, JSONSerializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession

# As if there were an account; nothing of it is asked.
ROLE = "arn:aws:iam::123456789012:role/mlops-mini"
KEYS = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}


def main(folder: Path, image: str, data: str) -> None:
    """Do it, and write how long each part took and what was answered."""
    session = LocalSession(boto3.Session(region_name="eu-central-1", **KEYS))
    root = folder / "containers"
    root.mkdir()
    session.config = {"local": {"local_code": True, "container_root": str(root)}}
    rows = json.loads((folder / "rows.json").read_text())
    estimator = Estimator(
        image_uri=image, role=ROLE, instance_count=1, instance_type="local",
        output_path=f"file://{folder}/trained", sagemaker_session=session,
        hyperparameters=json.loads((folder / "hyperparameters.json").read_text()),
    )  # fmt: skip
    began = time.monotonic()
    estimator.fit({"train": f"file://{data}"})
    trained = time.monotonic()
    predictor = estimator.deploy(1, "local", deserializer=JSONDeserializer())
    deployed = time.monotonic()
    try:
        predictor.serializer = JSONLinesSerializer()
        by_lines = predictor.predict(rows)
        predictor.serializer = JSONSerializer()
        by_json = predictor.predict({"instances": rows})
    finally:
        predictor.delete_endpoint()
    answer = {
        "version": sagemaker.__version__,
        "train_s": trained - began,
        "deploy_s": deployed - trained,
        "archive_bytes": (folder / "trained" / "model.tar.gz").stat().st_size,
        "by_lines": by_lines["predictions"],
        "by_json": by_json["predictions"],
    }
    (folder / "found.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
