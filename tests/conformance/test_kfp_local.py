"""What Kubeflow's own local runner, kfp.local 2.17.0, makes of the cases.

Its faults are strict xfails: when one is repaired upstream, the test here says so.
"""

import contextlib
import json
import traceback
from pathlib import Path

import pytest
from kfp import local
from kfp.dsl.executor import Executor
from kfp.local import logging_utils, subprocess_task_handler
from kfp.local.status import Status

from tests.conformance.pipelines import CASES, Case

FAULTS = {
    "if_named_bool": "a named output in a condition reads as false",
    "if_named_num": "a named output in a condition reads as false",
    "if_quote": "a value that holds a quote makes the condition false",
    "oneof_art": "OneOf of artifacts is not implemented",
    "for_empty": "what is collected from no item at all is not found",
    "if_missing": "a condition on a missing output reads as false",
    "literal_quote": "a literal that holds a quote makes the condition false",
    "fields_to_text": "a field is not made text for a text input",
    "for_field": "a loop over a field of a constant's item is not found",
    "whole_defaults": "whole numbers in defaults become floats",
    "whole_constants": "whole numbers in constants become floats",
    "whole_in_lists": "whole numbers in constants become floats",
    "fstring_of_types": "numbers, lists and structs are written as Python writes them",
    "importer_metadata": "whole numbers in metadata become floats",
}

# What its hash seed decides.
CHANCE = {"for_unused_item": "kfp leaves the dependency out: the loop may come before its list"}


class InProcess(subprocess_task_handler.SubprocessTaskHandler):
    """Calls the component here: its process would only import kfp again, a second each time."""

    def run(self) -> Status:
        source, *flags = self.full_command[3:]  # after sh, -ec and the script
        options = dict(zip(flags[::2], flags[1::2], strict=True))
        scope: dict[str, object] = {}
        try:
            exec(compile(source, "<component>", "exec", dont_inherit=True), scope)
            function = scope[options["--function_to_execute"]]
            Executor(json.loads(options["--executor_input"]), function).execute()
        except Exception:  # noqa: BLE001 - as a process that ends with a traceback
            traceback.print_exc()
            return Status.FAILURE
        return Status.SUCCESS


@pytest.fixture
def kfp_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets kfp.local up, for this test alone; returns the file of its lines."""
    # Both swap globals of the process in two threads at once, and leave one of them behind.
    monkeypatch.setattr(logging_utils, "local_logger_context", contextlib.nullcontext)
    monkeypatch.setattr(logging_utils, "indented_print", contextlib.nullcontext)
    monkeypatch.setattr(local.config.LocalExecutionConfig, "instance", None)
    monkeypatch.setattr(subprocess_task_handler, "SubprocessTaskHandler", InProcess)
    monkeypatch.setenv("MLOPS_MINI_TEST_LINES", str(tmp_path / "lines"))
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(tmp_path / "root"),
        workspace_root=str(tmp_path / "workspace"),
    )
    return tmp_path / "lines"


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_kfp_local_does_as_it_must(
    case: Case, kfp_local: Path, request: pytest.FixtureRequest
) -> None:
    for reasons, strict in ((FAULTS, True), (CHANCE, False)):
        if reason := reasons.get(case.name):
            mark = pytest.mark.xfail(strict=strict, raises=AssertionError, reason=reason)
            request.applymarker(mark)
    error = None
    try:
        case.pipeline(**case.arguments_in(kfp_local.parent))
    except (RuntimeError, ValueError) as exc:  # a failed task; what kfp.local cannot do
        error = exc

    assert case.difference(kfp_local, error) == ""
