"""What goes into the images is what pyproject.toml and the lock say."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCKER = REPOSITORY / "deploy" / "docker"
# Has another name in images, or comes without its dependencies.
APART = {"tensorflow", "tensorflow-serving-api"}


def names(lines: list[str]) -> set[str]:
    found = {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in lines}
    return {name for name in found if name and not name.startswith(("#", "-"))}


def test_components_have_all_that_the_package_needs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = names((DOCKER / "components.txt").read_text().splitlines())
    assert listed == names(project["dependencies"]) - APART


def test_the_lock_has_the_version_of_each() -> None:
    locked = names((REPOSITORY / "requirements.txt").read_text().splitlines())
    service = DOCKER.parent / "fastapi" / "service.txt"
    for file in (DOCKER / "components.txt", DOCKER / "server.txt", service):
        assert names(file.read_text().splitlines()) | APART <= locked
