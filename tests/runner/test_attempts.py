"""One attempt at a task, in this very process."""

import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.runner import artifacts, attempts, layout

SAYS = """
def f() -> str:
    import os
    return str(os.environ.get("MLOPS_MINI_TEST_OF_COMPONENT"))
"""


def attempt(
    folder: Path,
    container: dict[str, Any],
    *,
    outputs: dict[str, Any] | None = None,
    python: str = "",
    s: str = "it's",
) -> dict[str, Any]:
    """Run an attempt in a folder; its result."""
    folder.mkdir(exist_ok=True)
    (folder / "parameters").mkdir(exist_ok=True)
    declared = outputs or {}
    files = {name: str(folder / "parameters" / name) for name in declared.get("parameters", {})}
    artifacts = {
        name: {"artifacts": [{"name": name, "uri": str(folder / name), "type": one}]}
        for name, one in declared.get("artifacts", {}).items()
    }
    job = {
        "task": "task 't'",
        "container": container,
        "component": {"outputDefinitions": declared},
        "executor_input": {
            "inputs": {"parameterValues": {"n": 3.0, "s": s}},
            "outputs": {
                "parameters": {name: {"outputFile": file} for name, file in files.items()},
                "artifacts": artifacts,
                "outputFile": str(folder / "executor_output.json"),
            },
        },
        "python": python,
        "image": "",
        "mounts": {},
        "present": [],
        "placeholders": {},
    }
    (folder / layout.JOB).write_text(json.dumps(job))
    attempts.run(folder)
    return dict(json.loads((folder / layout.RESULT).read_text()))


def function(source: str, **env: str) -> dict[str, Any]:
    return {
        "command": ["sh", "-ec", "never run", source],
        "args": ["--executor_input", "{{$}}", "--function_to_execute", "f"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }


def output(kind: str, **more: Any) -> dict[str, Any]:
    return {"parameters": {"Output": {"parameterType": kind, **more}}}


@pytest.mark.parametrize("before", [None, "of ours"])
def test_variables_of_a_component_are_there_for_it_and_gone_after_it(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        monkeypatch.setenv("MLOPS_MINI_TEST_OF_COMPONENT", before)
    container = function(SAYS, MLOPS_MINI_TEST_OF_COMPONENT="its own")

    result = attempt(tmp_path, container, outputs=output("STRING"))

    assert result["parameters"] == {"Output": "its own"}
    assert os.environ.get("MLOPS_MINI_TEST_OF_COMPONENT") == before


def test_variables_are_gone_after_a_component_that_fails(tmp_path: Path) -> None:
    container = function("def f():\n    1 / 0\n", MLOPS_MINI_TEST_OF_COMPONENT="its own")

    assert "ZeroDivisionError" in attempt(tmp_path, container)["error"]
    assert "MLOPS_MINI_TEST_OF_COMPONENT" not in os.environ


@pytest.mark.parametrize("kind", ["interpreter", "command"])
def test_another_program_has_the_components_variables_but_not_our_module_path(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "${{PYTHONPATH-none}} $OF_COMPONENT" > "{said}"\n')
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PYTHONPATH", "/of/ours")
    env = {"OF_COMPONENT": "its own"}
    if kind == "interpreter":
        result = attempt(tmp_path / "a", function(SAYS, **env), python=str(script))
    else:
        variables = [{"name": name, "value": value} for name, value in env.items()]
        result = attempt(tmp_path / "a", {"command": [str(script)], "env": variables})

    assert result["error"] == ""
    assert said.read_text() == "none its own\n"


def test_the_error_of_a_component_names_its_line_although_it_is_in_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "def f():\n    x = {}\n    x['no']\n"

    result = attempt(tmp_path, function(source))

    assert result["error"] == "KeyError: 'no' (line 3 of ephemeral_component.py: x['no'])"
    assert "x['no']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outputs", "source", "message"),
    [
        (output("STRING"), "def f(): pass", "output 'Output' of task 't' was not made"),
        (output("NUMBER_INTEGER"), "def f() -> float: return 1.5", "must be NUMBER_INTEGER"),
        ({}, "def f(:", "SyntaxError"),
        ({}, "def f(): open('/no/\\udcff')", "FileNotFoundError: [Errno 2] No such file"),
        ({}, "def g(): pass", "KeyError: 'f'"),
        ({}, "raise SystemExit(4)\ndef f(): pass", r"sys.exit(4)"),
    ],
)
def test_what_goes_wrong_is_told(
    outputs: dict[str, Any], source: str, message: str, tmp_path: Path
) -> None:
    error = attempt(tmp_path, function(source), outputs=outputs)["error"]

    assert message in error
    error.encode()  # as the file of all runs does


def test_an_optional_output_may_stay_away(tmp_path: Path) -> None:
    outputs = output("STRING", isOptional=True)

    assert attempt(tmp_path, function("def f(): pass"), outputs=outputs)["parameters"] == {}


def test_a_command_is_filled_in_and_its_output_files_are_read(tmp_path: Path) -> None:
    kinds = {"n": "NUMBER_INTEGER", "t": "STRING"}
    outputs = {"parameters": {name: {"parameterType": kind} for name, kind in kinds.items()}}
    outputs["artifacts"] = {"made": {"schemaTitle": "system.Dataset"}}
    script = 'printf %s "$0" > "$2"; printf %s "$1" > "$3"; mkdir "$4"; echo 1 > "$4/rows"'
    parameters = "{{$.outputs.parameters['%s'].output_file}}"
    command = ["sh", "-c", script]
    args = ["{{$.inputs.parameters['n']}}", "{{$.inputs.parameters['s']}}"]
    args += [parameters % "n", parameters % "t", "{{$.outputs.artifacts['made'].path}}"]

    result = attempt(tmp_path, {"command": command, "args": args}, outputs=outputs)

    assert result["error"] == ""
    assert result["parameters"] == {"n": 3, "t": "it's"}
    assert result["artifacts"]["made"]["uri"] == str(tmp_path / "made")


def test_a_text_in_an_output_file_is_taken_byte_for_byte(tmp_path: Path) -> None:
    file = "{{$.outputs.parameters['Output'].output_file}}"

    def made(name: str, octal: str) -> dict[str, Any]:
        command = ["sh", "-c", f"printf '{octal}' > \"$0\"", file]
        return attempt(tmp_path / name, {"command": command}, outputs=output("STRING"))

    assert made("lines", r"a\r\nb\r\303\274\n")["parameters"] == {"Output": "a\r\nb\rü\n"}
    error = made("bytes", r"\377")["error"]
    assert error.startswith("output 'Output' of task 't' is in a file that is no UTF-8 text")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sh", "-c", "exit 3"], "'sh' ended with exit status 3: the last words"),
        (["/no/such/program"], "'/no/such/program' does not start on this machine (No such file"),
        ([], "the component has no command"),
    ],
)
def test_a_command_that_fails_is_told_with_the_last_line_of_a_log_of_any_size(
    command: list[str], message: str, tmp_path: Path
) -> None:
    with (tmp_path / "log.txt").open("wb") as log:
        log.truncate(100_000_000)
        log.seek(0, os.SEEK_END)
        log.write(b"\nthe last words\n\n")
    tracemalloc.start()

    error = attempt(tmp_path, {"command": command})["error"]

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in error
    assert peak_bytes < 5_000_000


def test_an_artifact_elsewhere_is_known_by_its_address_and_metadata_by_themselves(
    tmp_path: Path,
) -> None:
    def digest(uri: str, metadata: dict[str, Any]) -> str:
        return str(artifacts.describe(uri, type_={}, metadata=metadata)["digest"])

    nowhere = str(tmp_path / "nowhere")
    assert digest("gs://a/b", {"x": 1}) == digest("gs://a/b", {"x": 2}) != digest("gs://a/c", {})
    assert digest(nowhere, {"x": 1}) != digest(nowhere, {"x": 2})
