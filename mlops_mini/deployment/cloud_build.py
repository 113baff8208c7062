"""What's wrong with a build of Cloud Build although its message is well-formed, and its steps.

Google's message classes refuse unknown fields and wrong types. The service itself finds the rest,
minutes after a build was submitted; `findings` finds it at once. `steps` has what each step runs,
in an order in which they may run one after the other.

Source: https://cloud.google.com/build/docs/build-config-file-schema and
https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_mini.errors import InvalidArgumentError

Build = Mapping[str, Any]

# The service knows these of any build, and the others of builds by trigger alone.
BUILT_IN = ("PROJECT_ID", "BUILD_ID", "PROJECT_NUMBER", "LOCATION")
BY_TRIGGER = (
    "TRIGGER_NAME", "COMMIT_SHA", "REVISION_ID", "SHORT_SHA", "REPO_NAME", "REPO_FULL_NAME",
    "BRANCH_NAME", "TAG_NAME", "REF_NAME", "TRIGGER_BUILD_CONFIG_PATH", "SERVICE_ACCOUNT_EMAIL",
    "SERVICE_ACCOUNT",
)  # fmt: skip
_OWN = re.compile(r"_[A-Z0-9_]+")
# A literal dollar, or a name with or without braces.
_REFERENCE = re.compile(r"\$\$|\$\{(\w+)\}|\$([A-Za-z_]\w*)")
_DURATION = re.compile(r"\d+(\.\d{1,9})?s")
_LISTS = ("args", "env", "waitFor", "secretEnv")
_AT_ONCE = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one step runs, with everything filled in.

    Attributes:
        id: Its name in the file.
        image: The image in which it runs.
        command: Program and arguments; without a program where the image's own is meant.
        has_program: Whether the command begins with a program.
        environment: Variables, as `NAME=value`.
        folder: Where it starts, as seen in the container.
    """

    id: str
    image: str
    command: tuple[str, ...]
    has_program: bool
    environment: tuple[str, ...]
    folder: str


def findings(build: Build, *, is_by_trigger: bool = False) -> list[str]:
    """List what's wrong, in sentences.

    Args:
        build: As read from YAML.
        is_by_trigger: Whether a trigger starts it, which knows the commit.

    Returns:
        One sentence per finding, none if all is well.

    >>> findings({"steps": [{"id": "test", "name": "python", "args": ["-m", "$_TESTS"]}]})
    ['step test: $_TESTS is not declared in substitutions']
    """
    problems = list(_step_problems(build.get("steps") or []))
    problems += _declaration_problems(build, is_by_trigger=is_by_trigger)
    problems += _use_problems(build, is_by_trigger=is_by_trigger)
    built = " ".join(_texts([step.get("args") for _, step in _numbered(build)]))
    problems += [
        f"images: no step builds {image}" for image in build.get("images", []) if image not in built
    ]
    times = [("the build", build), *((_name(s, n), s) for n, s in _numbered(build))]
    problems += [
        f"{where}: timeout {part['timeout']!r} isn't seconds, such as '3600s'"
        for where, part in times
        if "timeout" in part and not _DURATION.fullmatch(str(part["timeout"]))
    ]
    return problems


def steps(build: Build, values: Mapping[str, str]) -> list[Step]:
    """List what each step runs, in the file's order, which keeps to `waitFor`: see `findings`.

    Args:
        build: As read from YAML.
        values: Substitutions: those of the service, and whatever is given in place of defaults.

    Raises:
        InvalidArgumentError: Something is wrong with the build, or a value isn't known.
    """
    if problems := findings(build, is_by_trigger=bool(values.keys() & set(BY_TRIGGER))):
        raise InvalidArgumentError("; ".join(problems))
    known = {**build.get("substitutions", {}), **values}
    for name, text in known.items():
        known[name] = _filled(text, known)
    return [_step(step, known) for step in build["steps"]]


def _step(step: Mapping[str, Any], known: Mapping[str, str]) -> Step:
    if "script" in step:  # which takes no substitutions, but variables
        command: tuple[str, ...] = ("sh", "-c", str(step["script"]))
    else:
        program = (step["entrypoint"],) if "entrypoint" in step else ()
        command = tuple(_filled(text, known) for text in (*program, *step.get("args", [])))
    return Step(
        id=step["id"],
        image=_filled(step["name"], known),
        command=command,
        has_program="script" in step or "entrypoint" in step,
        environment=tuple(_filled(text, known) for text in step.get("env", [])),
        folder=f"/workspace/{_filled(step.get('dir', ''), known)}".rstrip("/"),
    )


def _filled(text: str, known: Mapping[str, str]) -> str:
    """Fill in substitutions; two dollars are one.

    >>> _filled("$_NAME-${BUILD_ID} costs $$5", {"_NAME": "m", "BUILD_ID": "b"})
    'm-b costs $5'
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if name not in known:
            raise InvalidArgumentError(f"there's no value for ${name}: give one")
        return known[name]

    return _REFERENCE.sub(value, text)


def _step_problems(listed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not listed:
        yield "there are no steps"
    earlier: set[str] = set()
    for number, step in enumerate(listed, 1):
        name = _name(step, number)
        for key in ("name", "id"):
            if not step.get(key):
                yield f"{name}: it has no {key}"
        for key in _LISTS:
            values = step.get(key, [])
            if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
                yield f"{name}: {key} must be a list of texts"
        waits = step.get("waitFor", [])
        for other in waits if isinstance(waits, list) else []:
            if other not in earlier and other != _AT_ONCE:
                yield f"{name}: it waits for {other!r}, which is no earlier step"
        if len(waits) != len(set(waits)):
            yield f"{name}: it waits for the same step twice"
        if "script" in step and ("args" in step or "entrypoint" in step):
            yield f"{name}: a script excludes args and entrypoint"
        if (step_id := step.get("id")) in earlier:
            yield f"{name}: an earlier step has the same id"
        earlier.add(str(step_id))


def _declaration_problems(build: Build, *, is_by_trigger: bool) -> Iterator[str]:
    may_nest = is_by_trigger or build.get("options", {}).get("dynamicSubstitutions")
    for name, value in build.get("substitutions", {}).items():
        if not _OWN.fullmatch(name):
            yield f"substitution {name}: names of one's own are like _NAME"
        if not isinstance(value, str):
            yield f"substitution {name}: {value!r} must be a text: put it into quotes"
        elif _references(value) and not may_nest:
            yield f"substitution {name}: to refer to others, it needs dynamicSubstitutions"


def _use_problems(build: Build, *, is_by_trigger: bool) -> Iterator[str]:
    declared, options = build.get("substitutions", {}), build.get("options", {})
    known = {*declared, *BUILT_IN, *(BY_TRIGGER if is_by_trigger else ())}
    used = {name for value in declared.values() for name in _references(str(value))}
    rest = {key: part for key, part in build.items() if key not in ("steps", "substitutions")}
    places = [(_name(step, number), step) for number, step in _numbered(build)]
    for where, part in [*places, ("the build", rest)]:
        names = set(_references(" ".join(_texts(part))))
        used |= names
        is_mapped = part.get("automapSubstitutions") or options.get("automapSubstitutions")
        if "script" in part:
            if names & {*declared} and not is_mapped:
                yield f"{where}: a script sees substitutions only with automapSubstitutions"
            continue
        for name in sorted(names - known):
            is_empty = name in BY_TRIGGER
            why = "empty unless a trigger starts the build" if is_empty else "not declared"
            yield f"{where}: ${name} is {why}{'' if is_empty else ' in substitutions'}"
    if not is_by_trigger and options.get("substitutionOption") != "ALLOW_LOOSE":
        for name in sorted(declared.keys() - used):
            yield f"substitution {name}: nothing uses it, and the service refuses that"


def _references(text: str) -> list[str]:
    return [name for pair in _REFERENCE.findall(text) for name in pair if name]


def _texts(part: Any) -> Iterator[str]:
    """List all texts in a part of a build."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value)


def _numbered(build: Build) -> list[tuple[int, Mapping[str, Any]]]:
    return list(enumerate(build.get("steps") or [], 1))


def _name(step: Mapping[str, Any], number: int) -> str:
    return f"step {step.get('id') or number}"
