"""Prints what is installed into an image: `requirements.py server`, `components`, or `constraints`.

The versions are those of requirements.txt, but for TensorFlow, which images have without the part
for GPUs. What needs TensorFlow under its own name is told by `without_dependencies`.
"""

import re
import sys
import tomllib
from pathlib import Path

SERVER = (
    "ai-edge-litert", "backports-strenum", "google-crc32c", "grpcio", "grpcio-health-checking",
    "grpcio-reflection", "httptools", "ml-dtypes", "numpy", "orjson", "protobuf", "pysimdjson",
    "python-rapidjson", "tensorflow", "uvloop",
)  # fmt: skip
WITHOUT_DEPENDENCIES = ("tensorflow-serving-api",)


def name_of(requirement: str) -> str:
    """Return the name that a line of requirements begins with."""
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]


def lines(what: str) -> list[str]:
    """List the lines of a file of requirements or constraints."""
    lock = [line for line in Path("requirements.txt").read_text().splitlines() if line[0].isalpha()]
    lock = [re.sub(r"^tensorflow==", "tensorflow-cpu==", line) for line in lock]
    if what == "constraints":
        return lock
    if what == "without_dependencies":
        return [line for line in lock if name_of(line) in WITHOUT_DEPENDENCIES]
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    needed = [name_of(each) for each in project["dependencies"]] if what == "components" else SERVER
    needed = ["tensorflow-cpu" if name == "tensorflow" else name for name in needed]
    return [line for line in lock if name_of(line) in needed and name_of(line) not in
            WITHOUT_DEPENDENCIES]


if __name__ == "__main__":
    print("\n".join(lines(sys.argv[1])))
