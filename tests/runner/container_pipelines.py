"""Pipelines of commands, which run in Debian's image and by process alike."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

IMAGE = "debian:12"
_COPY = 'mkdir -p "$(dirname "$2")" && tr a-z A-Z < "$1" > "$2" && printf %s "$0" > "$3"'


@dsl.container_component
def write(text: str, folder: str, out: Output[Dataset]) -> dsl.ContainerSpec:
    script = 'mkdir -p "$(dirname "$1")"; printf %s "$0" > "$1"; cp "$1" "$2/written"'
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-ec", script], args=[text, out.path, folder]
    )


@dsl.container_component
def upper(
    rows: Input[Dataset], out: Output[Dataset], said: dsl.OutputPath(str)
) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-ec", _COPY], args=["hello", rows.path, out.path, said]
    )


@dsl.container_component
def command(script: str, rows: Input[Dataset], folder: str) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", script], args=[rows.path, folder])


@dsl.pipeline(name="letters")
def letters(folder: str, text: str = "abc") -> None:
    written = write(text=text, folder=folder)
    upper(rows=written.output)


@dsl.pipeline(name="scripted")
def scripted(folder: str, script: str) -> None:
    written = write(text="abc", folder=folder)
    command(script=script, rows=written.output, folder=folder)


@dsl.container_component
def missing_image() -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="nobody/has-this:1", command=["true"])


@dsl.pipeline(name="elsewhere")
def elsewhere(folder: str) -> None:
    write(text="abc", folder=folder)
    missing_image()
