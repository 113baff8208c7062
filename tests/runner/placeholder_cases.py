"""Containers and tasks that are given placeholders, and pass on what became of them."""
# ruff: noqa: UP045 - KFP reads annotations, and does not know `str | None`

from typing import Optional

from kfp import dsl
from kfp.dsl import ConcatPlaceholder as Concat
from kfp.dsl import Dataset, IfPresentPlaceholder, Input, Model, Output, OutputPath

from tests.runner.value_cases import component, pair_of, rows, text

# Writes all its arguments but the first, as JSON, into the file that the first one names.
_ECHO = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps(sys.argv[2:]))"
ECHO = ["python3", "-c", _ECHO]


@component
def makes(made: Output[Dataset]):
    from pathlib import Path

    Path(made.path).write_text("some data")
    made.metadata["n"] = 3.0
    made.metadata["who"] = 'say "hi"'


@dsl.container_component
def artifacts_of(d: Input[Dataset], m: Output[Model], said: OutputPath(list)):
    return dsl.ContainerSpec(
        image="debian:12",
        command=ECHO,
        args=[
            said,
            d.uri,
            d.path,
            d.metadata["n"],
            d.metadata["who"],
            d.metadata,
            "{{$.inputs.artifacts['d'].metadata['who'].json_escape[1]}}",
            '{{$.inputs.artifacts["d"].name}}',
            m.uri,
            m.path,
            m.metadata,
            "{{$.outputs.output_file}}",
            "{{$.outputMetadataUri}}",
        ],
    )


@dsl.pipeline
def with_artifacts():
    artifacts_of(d=makes().outputs["made"])


@dsl.container_component
def parameters_of(
    said: OutputPath(list), s: str, x: float, n: int, b: bool, many: list, d: dict, y: str = "why"
):
    return dsl.ContainerSpec(
        image="debian:12",
        command=ECHO,
        args=[
            said,
            s,
            x,
            n,
            b,
            many,
            d,
            y,
            f"{n}+{x}={s}",
            "{{$.inputs.parameters['s'].json_escape[0]}}",
            "{{$.inputs.parameters['s'].json_escape[1]}}",
            "{{$.inputs.parameters['s'].json_escape[2]}}",
            "{{$.inputs.parameters['many'].json_escape[1]}}",
        ],
    )


@dsl.pipeline
def with_parameters(s: str):
    parameters_of(s=s, x=1e-7, n=3, b=True, many=["ü", 1.0], d={"b": 2.0, "a": []})


@dsl.container_component
def choices_of(
    said: OutputPath(list),
    given: str,
    absent: Optional[str] = None,
    default: str = "default",
    number: Optional[int] = None,
    d: Optional[Input[Dataset]] = None,
):
    return dsl.ContainerSpec(
        image="debian:12",
        command=ECHO,
        args=[
            said,
            IfPresentPlaceholder(input_name="given", then=["--given", given], else_=["--no-given"]),
            IfPresentPlaceholder(input_name="absent", then=["--absent", absent]),
            IfPresentPlaceholder(input_name="default", then=default, else_="no default given"),
            IfPresentPlaceholder(input_name="d", then=d.path, else_="no artifact"),
            Concat(
                ["a-", given, IfPresentPlaceholder(input_name="number", then=Concat(["#", number]))]
            ),
            Concat(
                [IfPresentPlaceholder(input_name="absent", then="x", else_=Concat(["-", given]))]
            ),
        ],
    )


@dsl.pipeline
def with_choices(given: str, number: Optional[int] = None):
    choices_of(given=given)
    choices_of(given=given, number=number)
    choices_of(given="it", default="default", absent="there")


JOB = [
    dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
    dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
    dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
    dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
    dsl.PIPELINE_ROOT_PLACEHOLDER,
    dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
    dsl.PIPELINE_TASK_ID_PLACEHOLDER,
]


@dsl.container_component
def job_of(said: OutputPath(list)):
    return dsl.ContainerSpec(
        image="debian:12",
        command=ECHO,
        args=[said, *JOB, f"run {JOB[1]} of {JOB[0]}", Concat(["--root=", JOB[5]])],
    )


@component
def given_list(v: list) -> list:
    return v


@dsl.pipeline
def with_job():
    job_of()
    given_list(v=[*JOB, f"run {JOB[1]} of {JOB[0]}", f"--root={JOB[5]}"])


@dsl.container_component
def other_languages(said: OutputPath(list)):
    return dsl.ContainerSpec(
        image="debian:12",
        command=ECHO,
        args=[said, "{{$x := 1}}{{$x}}", "{{$.Values.name}}", "{{ .Name }}", "${HOME}", "{{$"],
    )


@dsl.pipeline
def with_other_languages():
    other_languages()


@dsl.container_component
def executor_input_of(said: OutputPath(list), s: str):
    return dsl.ContainerSpec(
        image="debian:12",
        command=ECHO,
        args=[said, "{{$}}", '{"input": "{{$.json_escape[1]}}"}', s],
    )


@component
def reads_executor_input(v: str, file: str) -> list:
    return [v, file]


@dsl.pipeline
def in_between(v: str):
    reads_executor_input(v=v, file="{{$.outputs.output_file}}")


@dsl.pipeline
def with_executor_input():
    executor_input_of(s="the {{$}} of others")
    reads_executor_input(
        v=dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        file=dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER,
    )
    in_between(v="{{$}}")


@dsl.pipeline
def text_that_looks_like_one(s: str):
    pair_of(a=s, b=f"<{s}>")
    executor_input_of(s=s)


@dsl.container_component
def list_of_artifacts(ds: Input[list[Dataset]], said: OutputPath(list)):
    return dsl.ContainerSpec(image="debian:12", command=ECHO, args=[said, ds])


@dsl.pipeline
def with_a_list_of_artifacts():
    with dsl.ParallelFor(["a", "b"]):
        made = makes()
    list_of_artifacts(ds=dsl.Collected(made.outputs["made"]))


@dsl.container_component
def asks_for_unknown_metadata(d: Input[Dataset], said: OutputPath(list)):
    return dsl.ContainerSpec(image="debian:12", command=ECHO, args=[said, d.metadata["accuracy"]])


@dsl.pipeline
def with_unknown_metadata():
    asks_for_unknown_metadata(d=makes().outputs["made"])


@dsl.pipeline(
    pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")),
)
def with_workspace():
    text(v=f"{dsl.WORKSPACE_PATH_PLACEHOLDER}/repo")


@component
def metadata_of(d: Input[Dataset]) -> dict:
    return d.metadata


@dsl.pipeline
def imported(folder: str, who: str, n: int):
    made = dsl.importer(
        artifact_uri=folder,
        artifact_class=dsl.Dataset,
        metadata={
            "who": who,
            "nested": {"to": [f"{who}-{n}", 1, 2.5], who: True},
            "size": 3,
            "job": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        },
    )
    metadata_of(d=made.output)


@dsl.pipeline
def names_of_tasks():
    with dsl.ParallelFor(rows().output):
        pair_of(a=dsl.PIPELINE_TASK_NAME_PLACEHOLDER, b=dsl.PIPELINE_TASK_ID_PLACEHOLDER)
        pair_of(a=dsl.PIPELINE_TASK_NAME_PLACEHOLDER, b=dsl.PIPELINE_TASK_ID_PLACEHOLDER)
