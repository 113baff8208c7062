"""Each placeholder that kfp documents, in commands, arguments and importers' metadata."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.errors import AbortedError
from mlops_mini.runner import placeholders
from mlops_mini.runner.records import RunRecord
from mlops_mini.runner.runner import Runner
from tests.runner import placeholder_cases as cases

TRICKY = [
    'say "hi"',
    "C:\\new",
    'a", "who": "b',
    "ü\n{{$}}",
    "{{$.pipeline_job_uuid}}",
    "$HOME `x`",
]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("placeholders"), mode="inline") as runner:
        yield runner


def said(run: RunRecord, path: str, name: str = "said") -> Any:
    return run.tasks[path].outputs["parameters"][name]


def test_artifacts_have_uri_path_name_and_metadata(runner: Runner) -> None:
    run = runner.run(cases.with_artifacts)

    made = run.tasks["makes"].outputs["artifacts"]["made"]["uri"]
    folder = run.tasks["artifacts-of"].folder
    words = [word.replace(".unfinished", "") for word in said(run, "artifacts-of")]
    assert words == [
        made,
        made,
        "3",
        'say "hi"',
        '{"n":3,"who":"say \\"hi\\""}',
        'say \\"hi\\"',
        "d",
        f"{folder}/artifacts/m",
        f"{folder}/artifacts/m",
        "{}",
        f"{folder}/artifacts/executor_output.json",
        f"{folder}/artifacts/executor_output.json",
    ]


@pytest.mark.parametrize("s", TRICKY)
def test_parameters_are_written_as_kubeflow_writes_them(s: str, runner: Runner) -> None:
    run = runner.run(cases.with_parameters, {"s": s})

    once = json.dumps(s, ensure_ascii=False)[1:-1]
    assert said(run, "parameters-of") == [
        s,
        "0.0000001",
        "3",
        "true",
        '["ü",1]',
        '{"a":[],"b":2}',
        "why",
        f"3+0.0000001={s}",
        s,
        once,
        json.dumps(once, ensure_ascii=False)[1:-1],
        '[\\"ü\\",1]',
    ]


def test_if_present_asks_what_was_given_and_a_default_is_not(runner: Runner) -> None:
    run = runner.run(cases.with_choices, {"given": "it"})

    nothing_else = ["--given", "it", "no default given", "no artifact", "a-it", "-it"]
    assert said(run, "choices-of") == nothing_else
    assert said(run, "choices-of-2") == nothing_else
    assert said(run, "choices-of-3") == [
        "--given", "it", "--absent", "there", "default", "no artifact", "a-it", "x",
    ]  # fmt: skip

    other = runner.run(cases.with_choices, {"given": "it", "number": 7})
    assert said(other, "choices-of-2")[-2:] == ["a-it#7", "-it"]


def test_the_run_and_the_task_are_named_in_commands_and_arguments(runner: Runner) -> None:
    run = runner.run(cases.with_job)
    again = runner.run(cases.with_job)

    for one in (run, again):
        for task, name in (("job-of", "said"), ("given-list", "Output")):
            *words, task_name, task_id, text, root = said(one, task, name)
            folder = str(Path(one.tasks[task].folder).parents[1])
            assert words == [one.id, one.id, one.id, one.started_at, one.started_at, folder]
            assert (task_name, text, root) == (
                task, f"run {one.id} of {one.id}", f"--root={folder}",
            )  # fmt: skip
            assert task_id
    # What names a run is never taken from another run's cache.
    assert {task.state for task in again.tasks.values()} == {"SUCCEEDED"}


def test_tasks_have_names_of_their_own_and_ids_of_their_own_in_each_turn(runner: Runner) -> None:
    run = runner.run(cases.names_of_tasks)

    words = [
        said(run, path, "Output").split("|") for path in run.tasks if path.startswith("for-loop")
    ]
    assert sorted(name for name, _ in words if name.startswith("pair")) == ["pair-of", "pair-of-2"]
    assert len({task_id for _, task_id in words}) == len(words)


def test_the_executor_input_is_json_wherever_it_is_asked_for(runner: Runner) -> None:
    run = runner.run(cases.with_executor_input)

    whole, embedded, in_text = said(run, "executor-input-of")
    assert json.loads(whole)["outputs"]["parameters"]["said"]["outputFile"].endswith("said")
    assert json.loads(json.loads(embedded)["input"]) == json.loads(whole)
    assert in_text.startswith('the {"inputs":{')
    assert in_text.endswith("} of others")
    for path in ("reads-executor-input", "in-between/reads-executor-input"):
        found, file = said(run, path, "Output")
        assert json.loads(found)["inputs"]["parameterValues"]["v"] == "{{$}}"
        assert json.loads(found)["outputs"]["outputFile"] == file
        assert file.endswith("executor_output.json")


@pytest.mark.parametrize("s", ["{{$}}", "{{$.outputs.output_file}}", "{{$.pipeline_job_uuid}}"])
def test_a_text_that_only_looks_like_a_placeholder_is_not_filled(s: str, runner: Runner) -> None:
    run = runner.run(cases.text_that_looks_like_one, {"s": s})

    assert said(run, "pair-of", "Output") == f"{s}|<{s}>"
    assert said(run, "executor-input-of")[2] == s


def test_what_is_no_placeholder_of_kubeflow_stays_as_it_is(runner: Runner) -> None:
    run = runner.run(cases.with_other_languages)

    assert said(run, "other-languages") == [
        "{{$x := 1}}{{$x}}", "{{$.Values.name}}", "{{ .Name }}", "${HOME}", "{{$",
    ]  # fmt: skip


def test_a_list_of_artifacts_is_given_as_the_executor_input_has_it(runner: Runner) -> None:
    run = runner.run(cases.with_a_list_of_artifacts)

    [text] = said(run, "list-of-artifacts")
    listed = json.loads(text)["artifacts"]
    assert [Path(one["uri"]).read_text() for one in listed] == ["some data", "some data"]


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (
            cases.with_unknown_metadata,
            r"metadata\['accuracy'\]\}\}, and there is no 'accuracy'; there are \['n', 'who'\]",
        ),
        (cases.with_workspace, "'v' of task 'text'.*share no workspace.*pass artifacts on"),
    ],
)
def test_what_has_no_value_fails_its_task(pipeline: Any, message: str, runner: Runner) -> None:
    with pytest.raises(AbortedError, match=message):
        runner.run(pipeline)


@pytest.mark.parametrize("who", TRICKY)
def test_metadata_of_an_importer_is_filled_in_its_texts(
    who: str, runner: Runner, tmp_path: Path
) -> None:
    run = runner.run(cases.imported, {"folder": str(tmp_path), "who": who, "n": 4})

    assert said(run, "metadata-of", "Output") == {
        "who": who,
        "nested": {"to": [f"{who}-4", 1, 2.5], who: True},
        "size": 3,
        "job": run.id,
    }


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/d", "/gcs/bucket/d"),
        ("s3://bucket/d/", "/s3/bucket/d/"),
        ("oci://registry/model:1", "/oci/registry_model:1/models"),
    ],
)
def test_what_lies_elsewhere_has_its_path_under_a_mount(uri: str, path: str) -> None:
    bucket = {"artifacts": [{"name": "d", "uri": uri, "metadata": {}}]}
    known = placeholders.of_attempt(
        {
            "inputs": {"artifacts": {"d": bucket, "none": {"artifacts": []}}},
            "outputs": {"outputFile": "o.json"},
        },
        {},
    )

    text = "{{$.inputs.artifacts['d'].path}} {{$.inputs.artifacts['none']}}"
    assert placeholders.fill(text, known, what="it") == f'{path} {{"artifacts":[]}}'
