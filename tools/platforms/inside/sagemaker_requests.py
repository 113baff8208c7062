"""Validates requests by the service's own model, which botocore carries.

Botocore's validator finds unknown and missing names, wrong types and what is too short. Patterns,
enumerations and upper limits are in the model as well, and are looked at here.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore
import botocore.session
from botocore.validate import ParamValidator


def findings(value: Any, shape: Any, path: str) -> Iterator[str]:
    """List what no pattern, enumeration or limit allows."""
    if shape.type_name == "structure":
        for name in value.keys() & shape.members.keys():
            yield from findings(value[name], shape.members[name], f"{path}.{name}")
        return
    if shape.type_name == "map":
        for key, part in value.items():
            yield from findings(key, shape.key, f"{path}.{key}")
            yield from findings(part, shape.value, f"{path}.{key}")
    if shape.type_name == "list":
        for number, part in enumerate(value):
            yield from findings(part, shape.member, f"{path}[{number}]")
    if shape.type_name == "string":
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value, re.DOTALL):
            yield f"{path}: {value!r} doesn't fit {pattern}"
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is none of the {len(shape.enum)} that are allowed"
    most = shape.metadata.get("max")
    size = value if isinstance(value, int | float) else len(value)
    if most is not None and size > most:
        yield f"{path}: {size} is more than {most}"


def main(folder: Path) -> None:
    """Read `requests.json`, and write what's wrong with each."""
    model = botocore.session.Session().get_service_model("sagemaker")
    found: list[list[str]] = []
    for call in json.loads((folder / "requests.json").read_text()):
        shape = model.operation_model(call["operation"]).input_shape
        report = ParamValidator().validate(call["request"], shape)
        problems = report.generate_report().splitlines()
        found.append(problems or list(findings(call["request"], shape, call["operation"])))
    answer = {"botocore": botocore.__version__, "findings": found}
    (folder / "found.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
