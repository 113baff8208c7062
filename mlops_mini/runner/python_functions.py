"""Run a component that is a Python function as kfp's `executor_main` does in a container.

Its source is a module of its own that can be imported, so that what it defines can be pickled and
found again. It logs to stdout from INFO on, it may end by `sys.exit`, and what it leaves to be done
at exit is done before its outputs are read.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.machinery
import importlib.util
import json
import linecache
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import thread as pools
from pathlib import Path
from typing import Any

from mlops_mini.errors import FailedPreconditionError

JsonObject = dict[str, Any]

# Named as on Kubeflow: pickles hold the name, and a task of another place may read them.
_MODULE = "ephemeral_component"
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_EXECUTOR = "kfp.dsl.executor_main"
# An argument may have 128 KB, so what may be longer comes in a file.
_BOOTSTRAP = f"""\
import sys
from pathlib import Path

sys.argv[1:] = [*sys.argv[2:], "--executor_input", Path(sys.argv[1]).read_text()]
from {_EXECUTOR} import executor_main

executor_main()
"""


def is_python(container: Mapping[str, Any]) -> bool:
    """Tell whether an executor is a Python function, as opposed to any command."""
    return "--function_to_execute" in container.get("args", [])


def source_of(container: Mapping[str, Any]) -> str:
    """Return the source of a component that is a Python function, else its command as JSON."""
    if is_python(container):
        return str(container["command"][-1])
    return json.dumps([container.get("command", []), container.get("args", [])])


def command(
    container: JsonObject, executor_input: JsonObject, *, python: str, folder: Path
) -> list[str]:
    """Make the command that calls a function in another interpreter, which has kfp.

    Args:
        container: Of the task's executor.
        executor_input: As Kubeflow's launcher makes it.
        python: The interpreter.
        folder: Receives the files that the command reads.
    """
    source, given = folder / f"{_MODULE}.py", folder / "executor_input.json"
    source.write_text(_source_of_function(container))
    given.write_text(json.dumps(executor_input))
    return [
        python, "-c", _BOOTSTRAP, str(given),
        "--component_module_path", str(source),
        "--function_to_execute", _function_of(container),
    ]  # fmt: skip


def call(
    container: JsonObject,
    executor_input: JsonObject,
    *,
    folder: Path,
    variables: Mapping[str, str],
    is_own_process: bool,
) -> None:
    """Call a function in this process.

    Args:
        container: Of the task's executor.
        executor_input: As Kubeflow's launcher makes it.
        folder: Receives the source.
        variables: Set in the environment meanwhile.
        is_own_process: Whether this process ends with the component; if so, what is registered
            with `atexit` from now on is done.

    Raises:
        FailedPreconditionError: It has called `sys.exit`, with a code that means failure.
    """
    from kfp.dsl import executor

    file = folder / f"{_MODULE}.py"
    file.write_text(_source_of_function(container))
    threads = set(threading.enumerate())
    if is_own_process:
        _forget_exit_handlers()
    with _environment(variables), _logging(), _importable(file) as namespace:
        source = file.read_text()
        try:
            # Without dont_inherit this module's own future flags would turn annotations into text.
            exec(compile(source, str(file), "exec", dont_inherit=True), namespace)  # noqa: S102
            function = namespace[_function_of(container)]
            executor.Executor(executor_input=executor_input, function_to_execute=function).execute()
        except SystemExit as exc:
            if status := _exit_status(exc.code):
                raise FailedPreconditionError(
                    f"the component called sys.exit({exc.code!r}), which is exit status {status}"
                ) from exc
        if is_own_process:
            _end_pools()
        # Python waits for threads when a process ends, and so does a container. Those of a pool
        # that nobody has shut down would wait for work for ever.
        of_pools = set(getattr(pools, "_threads_queues", ()))
        for thread in set(threading.enumerate()) - threads - of_pools:
            if not thread.daemon:
                thread.join()
        if is_own_process:
            atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does


def _source_of_function(container: Mapping[str, Any]) -> str:
    if container["command"][-1] == _EXECUTOR:
        raise FailedPreconditionError(
            f"the code of {_function_of(container)!r} is in its image, {container['image']!r}, and "
            "images do not run here: leave out `target_image`, so that the pipeline holds the code"
        )
    return source_of(container)


def _function_of(container: Mapping[str, Any]) -> str:
    args = container["args"]
    return str(args[args.index("--function_to_execute") + 1])


def _exit_status(code: object) -> int:
    """Return the exit status of a process after `sys.exit(code)`.

    >>> [_exit_status(code) for code in (None, 0, False, 3, -1, 256, "no rows")]
    [0, 0, 0, 3, 255, 0, 1]
    """
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {variable: os.environ.get(variable) for variable in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for variable, value in before.items():
            os.environ.pop(variable, None)
            os.environ.update({} if value is None else {variable: value})


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Log to stdout from INFO on, unless whoever runs us has set up where to log."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    logging.basicConfig(stream=sys.stdout, format=_LOG_FORMAT)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)


@contextlib.contextmanager
def _importable(file: Path) -> Iterator[JsonObject]:
    """Make the namespace of a module that is imported under its name, here and in children."""
    loader = importlib.machinery.SourceFileLoader(file.stem, str(file))
    spec = importlib.machinery.ModuleSpec(file.stem, loader, origin=str(file))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    before, path = sys.modules.get(file.stem), str(file.parent)
    sys.modules[file.stem] = module
    sys.path.insert(0, path)
    linecache.checkcache(str(file))
    try:
        yield module.__dict__
    finally:
        with contextlib.suppress(ValueError):  # The component may have taken it out.
            sys.path.remove(path)
        sys.modules.pop(file.stem, None)
        if before is not None:
            sys.modules[file.stem] = before


def _forget_exit_handlers() -> None:
    """Forget what was registered for the process that this one was forked from."""
    atexit._clear()  # noqa: SLF001 - as multiprocessing does
    if util := sys.modules.get("multiprocessing.util"):
        atexit.register(util._exit_function)  # noqa: SLF001 - was forgotten, too


def _end_pools() -> None:
    """Let pools finish what they were given, and end, as Python does before it waits for threads.

    Not by `threading._shutdown`, after which the outputs could not be read in this process.
    """
    for end in reversed(threading._threading_atexits):  # type: ignore[attr-defined] # noqa: SLF001
        end()
