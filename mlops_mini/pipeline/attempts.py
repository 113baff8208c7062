"""Run one attempt at a task, in whatever process this is: its component, then its outputs' digests.

An attempt is a folder with `job.json`; what comes of it is written beside it as `result.json`. This
module knows neither the pipeline nor other tasks.
"""

from __future__ import annotations

import json
import linecache
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Collection, Mapping
from concurrent.futures import thread as pools
from pathlib import Path
from typing import Any

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, MlopsMiniError
from mlops_mini.pipeline import digests, placeholders, values
from mlops_mini.pipeline.values import Source

JsonObject = dict[str, Any]

JOB, RESULT, OUTPUT = "job.json", "result.json", "executor_output.json"


def prepare(
    folder: Path,
    *,
    task: str,
    container: JsonObject,
    component: JsonObject,
    parameters: JsonObject,
    artifacts: Mapping[str, list[JsonObject]],
    unfilled: Collection[str],
    present: Collection[str],
    job: Mapping[str, str],
    python: str,
) -> None:
    """Write `job.json`: all that an attempt needs to know.

    Args:
        folder: Of the attempt, empty.
        task: What messages call it.
        container: Of the task's executor.
        component: The definition of its inputs and outputs.
        parameters: Input parameters by name.
        artifacts: Lists of input artifacts by name, as `describe` returns them.
        unfilled: Names of parameters whose placeholders are still to be filled.
        present: Names of the inputs that do not only have their default.
        job: Values of placeholders such as `{{$.pipeline_job_uuid}}`, by name.
        python: Interpreter of another environment; "" for a component that runs in this one.
    """
    declared = component.get("outputDefinitions", {})

    def listed(name: str, *made: JsonObject) -> JsonObject:
        known = ({k: one[k] for k in ("type", "uri", "metadata")} for one in made)
        return {"artifacts": [{"name": name, **values.plain(one)} for one in known]}

    (folder / "parameters").mkdir()
    outputs = {
        name: listed(name, {"type": of["artifactType"], "uri": str(folder / name), "metadata": {}})
        for name, of in declared.get("artifacts", {}).items()
    }
    files = {
        name: {"outputFile": str(folder / "parameters" / name)}
        for name in declared.get("parameters", {})
    }
    executor_input: dict[str, JsonObject] = {
        "inputs": {
            "parameterValues": parameters,
            "artifacts": {name: listed(name, *many) for name, many in artifacts.items()},
        },
        "outputs": {
            "parameters": files,
            "artifacts": outputs,
            "outputFile": str(folder / OUTPUT),
        },
    }
    known = placeholders.of_attempt(executor_input, job)
    filled = {
        name: placeholders.fill_all(parameters[name], known, what=f"input {name!r} of {task}")
        for name in unfilled
    }
    inputs = {**executor_input["inputs"], "parameterValues": {**parameters, **filled}}
    (folder / JOB).write_text(
        json.dumps(
            {
                "task": task,
                "container": container,
                "component": component,
                "python": python,
                "present": sorted(present),
                "placeholders": dict(job),
                "executor_input": {**executor_input, "inputs": inputs},
            }
        )
    )


def run(folder: Path) -> None:
    """Run an attempt that is prepared; never raises for what the component does."""
    job = json.loads((folder / JOB).read_text())
    result: JsonObject
    try:
        _execute(job, folder)
        result = _collect(job, folder)
    except MlopsMiniError as exc:
        result = {"error": str(exc)}
    except SystemExit as exc:
        result = {"error": f"the component called sys.exit({exc.code!r})"}
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever a component raises is its result
        traceback.print_exc()
        line = traceback.extract_tb(exc.__traceback__)[-1]
        where = f" (line {line.lineno} of {Path(line.filename).name}: {line.line})"
        result = {"error": f"{type(exc).__name__}: {exc}{where}"}
    # The name of a file may be no Unicode, and what is recorded must be.
    result["error"] = result["error"].encode(errors="backslashreplace").decode()
    unfinished = folder / f"{RESULT}.unfinished"
    unfinished.write_text(json.dumps(result))
    unfinished.rename(folder / RESULT)


def is_python(container: Mapping[str, Any]) -> bool:
    """Tell whether an executor is a Python function, as opposed to any command."""
    return "--function_to_execute" in container.get("args", [])


def source_of(container: Mapping[str, Any]) -> str:
    """Return the source of a component that is a Python function, else its command as JSON."""
    if is_python(container):
        return str(container["command"][-1])
    return json.dumps([container.get("command", []), container.get("args", [])])


def _execute(job: JsonObject, folder: Path) -> None:
    container, given = job["container"], job["executor_input"]
    variables = {one["name"]: one["value"] for one in container.get("env", [])}
    if is_python(container) and not job["python"]:
        _call(container, given, folder, variables)
        return
    if is_python(container):
        source = folder / "component.py"
        source.write_text(source_of(container))
        command = [
            job["python"], "-m", "kfp.dsl.executor_main",
            "--component_module_path", str(source),
            "--function_to_execute", _function_of(container),
            "--executor_input", json.dumps(given),
        ]  # fmt: skip
        variables["_KFP_RUNTIME"] = "true"
    else:
        known = placeholders.of_attempt(given, job.get("placeholders", {}))
        both = [*container.get("command", []), *container.get("args", [])]
        command = placeholders.fill_command(
            both, known, present=job.get("present", ()), what=f"the command of {job['task']}"
        )
        if not command:
            raise FailedPreconditionError(
                "the component has no command, and the image's own cannot be known here: state "
                "`command` in its ContainerSpec"
            )
    # Another interpreter must not find our packages.
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, env={**ours, **variables}, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as exc:
        raise FailedPreconditionError(
            f"{command[0]!r} does not start on this machine ({exc.strerror}); containers run as "
            "processes of this machine here, with what is installed on it"
        ) from exc
    if done.returncode:
        how = f"exit status {done.returncode}"
        raise FailedPreconditionError(f"{command[0]!r} ended with {how}{_last_line(folder)}")


def _call(
    container: JsonObject, given: JsonObject, folder: Path, variables: Mapping[str, str]
) -> None:
    from kfp.dsl import executor

    source, name = source_of(container), _function_of(container)
    # Tracebacks show the lines of a source that is in no file.
    file_name = str(folder / "component.py")
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    namespace: JsonObject = {"__name__": f"component_{name}"}
    # Without dont_inherit this module's own future flags would turn annotations into strings.
    exec(compile(source, file_name, "exec", dont_inherit=True), namespace)  # noqa: S102
    threads = set(threading.enumerate())
    before = {variable: os.environ.get(variable) for variable in variables}
    os.environ.update(variables)
    try:
        executor.Executor(executor_input=given, function_to_execute=namespace[name]).execute()
        # Python waits for threads when a process ends, and so does a container. Those of a pool
        # that nobody has shut down would wait for work for ever.
        of_pools = set(getattr(pools, "_threads_queues", ()))
        for thread in set(threading.enumerate()) - threads - of_pools:
            if not thread.daemon:
                thread.join()
    finally:
        for variable, value in before.items():
            os.environ.pop(variable)
            os.environ.update({} if value is None else {variable: value})


def _function_of(container: JsonObject) -> str:
    args = container["args"]
    return str(args[args.index("--function_to_execute") + 1])


def _collect(job: JsonObject, folder: Path) -> JsonObject:
    """Read what the component has made, check it against its definition, and digest it."""
    declared = job["component"].get("outputDefinitions", {})
    outputs = job["executor_input"]["outputs"]
    file = folder / OUTPUT
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
            text = output_file.read_text()
            parameters[name] = values.convert(
                text, definition["parameterType"], Source.FILE, what=what
            )
        elif not definition.get("isOptional"):
            raise InvalidArgumentError(
                f"{what} was not made: the component must return it or write {output_file.name}"
            )
    artifacts = {}
    for name in declared.get("artifacts", {}):
        made = outputs["artifacts"][name]["artifacts"][0]
        said = written.get("artifacts", {}).get(name, {"artifacts": [{}]})["artifacts"][0]
        metadata = said.get("metadata") or {}
        values.finite(metadata, what=f"the metadata of output {name!r} of {job['task']}")
        uri = said.get("custom_path") or said.get("uri") or made["uri"]
        artifacts[name] = describe(uri, type_=made["type"], metadata=metadata)
    return {"parameters": parameters, "artifacts": artifacts, "error": ""}


def describe(
    uri: str, *, type_: JsonObject, metadata: JsonObject, is_read: bool = True
) -> JsonObject:
    """Digest an artifact: what its files hold, and what it means.

    Args:
        uri: A path, or an address that can only be named.
        type_: `schemaTitle` and `schemaVersion`.
        metadata: Stands for the content where there is no file.
        is_read: Whether to read models, which needs TensorFlow; else only their files count.
    """
    path = Path(uri)
    digest = of_files = files_digest(uri, metadata)
    if is_read and (path / "saved_model.pb").is_file():
        from mlops_mini.pipeline import model_digest

        # Exports of the same weights differ in their files, and are the same model.
        digest = model_digest.model_digest(path)
    return {
        "uri": uri,
        "type": type_,
        "metadata": metadata,
        "digest": digest,
        "files_digest": of_files,
    }


def files_digest(uri: str, metadata: JsonObject) -> str:
    """Digest what an artifact's files hold; its address or metadata where there is no file."""
    return digests.content_digest(Path(uri), {"uri": uri} if "://" in uri else metadata)


def _last_line(folder: Path) -> str:
    sys.stdout.flush()
    log = folder / "log.txt"
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 10_000))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:500]}" if lines else ""
