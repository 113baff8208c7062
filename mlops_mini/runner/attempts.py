"""Run one attempt at a task, in whatever process this is: its component, then its outputs' digests.

An attempt is a folder with `job.json`; what comes of it is written beside it as `result.json`. This
module knows neither the pipeline nor other tasks.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mlops_mini import containers, files
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, MlopsMiniError
from mlops_mini.runner import artifacts, layout, placeholders, python_functions, values
from mlops_mini.runner.values import Source

JsonObject = dict[str, Any]

_HAS_RUN = "has_run"


def prepare(
    folder: Path,
    *,
    task: str,
    container: JsonObject,
    component: JsonObject,
    parameters: JsonObject,
    inputs: Mapping[str, list[JsonObject]],
    unfilled: Collection[str],
    present: Collection[str],
    job: Mapping[str, str],
    python: str,
    image: str = "",
    mounts: Mapping[str, containers.Access] | None = None,
) -> None:
    """Write `job.json`: all that an attempt needs to know.

    Args:
        folder: Of the attempt, empty.
        task: What messages call it.
        container: Of the task's executor.
        component: The definition of its inputs and outputs.
        parameters: Input parameters by name.
        inputs: Lists of input artifacts by name, as `artifacts.describe` returns them.
        unfilled: Names of parameters whose placeholders are still to be filled.
        present: Names of the inputs that do not only have their default.
        job: Values of placeholders such as `{{$.pipeline_job_uuid}}`, by name.
        python: Interpreter of another environment; "" for a component that runs in this one.
        image: Digest of the image to run it in; "" for a process of this machine.
        mounts: What it may read or write there, beside its folder.
    """
    declared = component.get("outputDefinitions", {})

    def listed(name: str, *made: JsonObject) -> JsonObject:
        known = ({k: artifact[k] for k in ("type", "uri", "metadata")} for artifact in made)
        return {"artifacts": [{"name": name, **values.plain(artifact)} for artifact in known]}

    outputs = {}
    for name, definition in declared.get("artifacts", {}).items():
        uri = str(layout.artifact(folder, name))
        made = {"type": definition["artifactType"], "uri": uri, "metadata": {}}
        outputs[name] = listed(name, made)
    parameter_files = {
        name: {"outputFile": str(layout.parameter(folder, name))}
        for name in declared.get("parameters", {})
    }
    output_file = layout.executor_output(folder)
    # As Kubeflow's launcher does, for a command makes no folders.
    for made_below in (output_file.parent, folder / "parameters"):
        made_below.mkdir()
    executor_input: dict[str, JsonObject] = {
        "inputs": {
            "parameterValues": parameters,
            "artifacts": {name: listed(name, *many) for name, many in inputs.items()},
        },
        "outputs": {
            "parameters": parameter_files,
            "artifacts": outputs,
            "outputFile": str(output_file),
        },
    }
    known = placeholders.of_attempt(executor_input, job)
    filled = {
        name: placeholders.fill_all(parameters[name], known, what=f"input {name!r} of {task}")
        for name in unfilled
    }
    all_filled = {**executor_input["inputs"], "parameterValues": {**parameters, **filled}}
    (folder / layout.JOB).write_text(
        json.dumps(
            {
                "task": task,
                "container": container,
                "component": component,
                "python": python,
                "image": image,
                "mounts": {**(mounts or {}), str(folder): "write"},
                "present": sorted(present),
                "placeholders": dict(job),
                "executor_input": {**executor_input, "inputs": all_filled},
            }
        )
    )


def run(folder: Path, *, is_own_process: bool = False) -> None:
    """Run an attempt that is prepared; never raises for what the component does.

    A component may end its process with exit status 0 at any time. Called again for the same folder
    then, this only gathers what the component has made.

    Args:
        folder: Of the attempt.
        is_own_process: Whether this process ends with the attempt.
    """
    job = json.loads((folder / layout.JOB).read_text())
    result: JsonObject
    try:
        if not (folder / _HAS_RUN).exists():
            (folder / _HAS_RUN).touch()
            _execute(job, folder, is_own_process=is_own_process)
        result = _collect(job, folder)
    except MlopsMiniError as exc:
        result = {"error": str(exc)}
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever a component raises is its result
        traceback.print_exc()
        line = traceback.extract_tb(exc.__traceback__)[-1]
        where = f" (line {line.lineno} of {Path(line.filename).name}: {line.line})"
        result = {"error": f"{type(exc).__name__}: {exc}{where}"}
        result["error"] += _advice(exc, job["executor_input"], folder)
    # The name of a file may be no Unicode, and what is recorded must be.
    result["error"] = result["error"].encode(errors="backslashreplace").decode()
    with files.whole_file(folder / layout.RESULT) as unfinished:
        unfinished.write_text(json.dumps(result))


def _execute(job: JsonObject, folder: Path, *, is_own_process: bool) -> None:
    container, given = job["container"], job["executor_input"]
    variables = {variable["name"]: variable["value"] for variable in container.get("env", [])}
    if python_functions.is_python(container) and not job["python"]:
        python_functions.call(
            container, given, folder=folder, variables=variables, is_own_process=is_own_process
        )
        return
    if python_functions.is_python(container):
        command = python_functions.command(container, given, python=job["python"], folder=folder)
        variables["_KFP_RUNTIME"] = "true"
    else:
        known = placeholders.of_attempt(given, job["placeholders"])
        both = [*container.get("command", []), *container.get("args", [])]
        command = placeholders.fill_command(
            both, known, present=job["present"], what=f"the command of {job['task']}"
        )
        if not command:
            raise FailedPreconditionError(
                "the component has no command, and the image's own cannot be known here: state "
                "`command` in its ContainerSpec"
            )
    program, is_in_container = command[0], bool(job["image"])
    if is_in_container:
        command = containers.run_command(
            job["image"],
            command,
            label=layout.container_label(folder),
            mounts={Path(path): access for path, access in job["mounts"].items()},
            folder=folder / layout.WORK,
            variables=variables,
        )
        variables = {}
        (folder / layout.CONTAINER).touch()
    # Another interpreter must not find our packages.
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, env={**ours, **variables}, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as exc:
        if exc.errno == errno.E2BIG:
            longest = max(map(len, command))
            raise FailedPreconditionError(
                f"{program!r} cannot be given {len(command) - 1} arguments, the longest of "
                f"{longest:,} characters: the system takes 131,071 in one, and so does "
                "Kubeflow; hand on large values as artifacts"
            ) from exc
        raise FailedPreconditionError(
            f"{command[0]!r} does not start on this machine ({exc.strerror}); containers run as "
            "processes of this machine here, with what is installed on it"
        ) from exc
    if is_in_container:
        (folder / layout.CONTAINER).unlink()
    if is_in_container and done.returncode == containers.NOT_STARTED:
        raise containers.explained(_last_line(folder))
    if done.returncode:
        how = f"exit status {done.returncode}"
        raise FailedPreconditionError(f"{program!r} ended with {how}{_last_line(folder)}")


def _collect(job: JsonObject, folder: Path) -> JsonObject:
    """Read what the component has made, check it against its definition, and digest it."""
    declared = job["component"].get("outputDefinitions", {})
    outputs = job["executor_input"]["outputs"]
    file = Path(outputs["outputFile"])
    written = json.loads(file.read_text()) if file.exists() else {}
    parameters = {}
    for name, definition in declared.get("parameters", {}).items():
        what = f"output {name!r} of {job['task']}"
        returned = written.get("parameterValues", {}).get(name)
        output_file = Path(outputs["parameters"][name]["outputFile"])
        if returned is not None:
            parameters[name] = values.convert(
                returned, definition["parameterType"], Source.RETURNED, what=what
            )
        elif output_file.exists():
            try:
                # As it is: `read_text` would turn \r\n into \n.
                text = output_file.read_bytes().decode()
            except UnicodeDecodeError as exc:
                raise InvalidArgumentError(
                    f"{what} is in a file that is no UTF-8 text: {exc}; hand on other data as an "
                    "artifact"
                ) from exc
            parameters[name] = values.convert(
                text, definition["parameterType"], Source.FILE, what=what
            )
        elif not definition.get("isOptional"):
            raise InvalidArgumentError(
                f"{what} was not made: the component must return it or write {output_file.name}"
            )
    made_there = {}
    for name in declared.get("artifacts", {}):
        made = outputs["artifacts"][name]["artifacts"][0]
        described = written.get("artifacts", {}).get(name, {"artifacts": [{}]})["artifacts"][0]
        metadata = described.get("metadata") or {}
        values.require_json(metadata, what=f"the metadata of output {name!r} of {job['task']}")
        uri = described.get("custom_path") or described.get("uri") or made["uri"]
        made_there[name] = artifacts.describe(uri, type_=made["type"], metadata=metadata)
        artifacts.protect(uri, within=folder)
    return {"parameters": parameters, "artifacts": made_there, "error": ""}


def _advice(exc: BaseException, executor_input: JsonObject, folder: Path) -> str:
    """Explain to a component that edits its inputs why it may not write them; empty for others."""
    if not isinstance(exc, PermissionError) or not isinstance(exc.filename, str):
        return ""
    inputs = executor_input["inputs"].get("artifacts", {}).values()
    read = [artifacts.path_of(artifact["uri"]) for many in inputs for artifact in many["artifacts"]]
    if not any(map(Path(exc.filename).is_relative_to, [folder, *read])):
        return ""
    return (
        "; inputs are read-only, and so are copies that keep their mode, as shutil.copy and "
        "copytree make them: copy with shutil.copyfile"
    )


def _last_line(folder: Path) -> str:
    sys.stdout.flush()
    log = folder / layout.LOG
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 10_000))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:500]}" if lines else ""
