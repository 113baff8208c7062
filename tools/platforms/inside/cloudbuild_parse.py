"""Has Google's own message class read a build, and copies of it with something wrong."""

import copy
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.cloud.devtools import cloudbuild_v1
from google.protobuf import json_format

WRONG: dict[str, dict[str, Any]] = {
    "an unknown field": {"step": {"steps": []}},
    "args as one text": {"steps": [{"name": "n", "args": "make test"}]},
    "a number in args": {"steps": [{"name": "n", "args": [3]}]},
    "a number as a substitution": {"substitutions": {"_N": 3}},
    "a timeout in hours": {"timeout": "1h"},
    "a timeout without its unit": {"timeout": "3600"},
    "an unknown machine": {"options": {"machineType": "HUGE"}},
}


def is_read(build: dict[str, Any]) -> bool:
    """Say whether a build is read, and nothing of it is lost."""
    try:
        json_format.ParseDict(build, cloudbuild_v1.Build.pb(cloudbuild_v1.Build()))
    except json_format.ParseError:
        return False
    return True


def main(folder: Path) -> None:
    """Read `build.json`, and write what was read and what was refused."""
    build = json.loads((folder / "build.json").read_text())
    answer = {
        "version": version("google-cloud-build"),
        "is_read": is_read(build),
        "refused": {
            name: not is_read({**copy.deepcopy(build), **wrong}) for name, wrong in WRONG.items()
        },
    }
    (folder / "found.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
