"""Runs a compiled pipeline by kfp's own runner of containers."""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from docker.types import Mount
from kfp import components, local


def main(folder: Path, data_folder: str) -> None:
    """Run it with its arguments, without a network, and write how long it took."""
    mount = Mount(target=data_folder, source=data_folder, type="bind", read_only=True)
    local.init(
        runner=local.DockerRunner(
            network_mode="none", user=f"{os.getuid()}:{os.getgid()}", mounts=[mount]
        ),
        pipeline_root=str(folder / "outputs"),
    )
    pipeline = components.load_component_from_file(str(folder / "pipeline.yaml"))
    began = time.monotonic()
    pipeline(**json.loads((folder / "arguments.json").read_text()))
    found = {"version": version("kfp"), "seconds": time.monotonic() - began}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
