"""Pipelines that hand values on, and what their tasks say that they were given.

Each task returns its input's `repr`, so that text, numbers and their types can be told apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Output, OutputPath

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A pipeline and what its tasks are given.

    Attributes:
        pipeline: What `@dsl.pipeline` has made of it.
        given: By path of the task what it says of its input.
        arguments: Of the run.
        error: Pattern of the failure, "" for none.
    """

    pipeline: Any
    given: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


CASES: dict[str, Case] = {}


def case(
    error: str = "", arguments: Mapping[str, Any] | None = None, **given: str
) -> Callable[[Callable[..., Any]], Any]:
    """List a pipeline; `_` in the names of `given` stands for the `-` of tasks' names."""

    def listed(function: Callable[..., Any]) -> Any:
        CASES[function.__name__] = Case(
            pipeline=dsl.pipeline(function),
            given={name.replace("_", "-"): text for name, text in given.items()},
            arguments=arguments or {},
            error=error,
        )
        return CASES[function.__name__].pipeline

    return listed


def loop(*texts: str, of: str, around: str = "for-loop-1") -> dict[str, str]:
    """What one task says in each turn of a loop."""
    return {f"{around}[{i}]/{of}": text for i, text in enumerate(texts)}


@component
def text(v: str) -> str:
    return repr(v)


@component
def whole(v: int) -> str:
    return repr(v)


@component
def real(v: float) -> str:
    return repr(v)


@component
def flag(v: bool) -> str:
    return repr(v)


@component
def items(v: list) -> str:
    return repr(v)


@component
def struct(v: dict) -> str:
    return repr(v)


@component
def by_default(
    n: int = 4,
    x: float = 0.5,
    large: float = 1e25,
    s: str = "1e-07",
    b: bool = True,
    sizes: list = [64, 32],  # noqa: B006 - it is compiled
    nested: dict = {"n": 1, "in": [2.0, {"k": 3}], "x": 0.25},  # noqa: B006 - it is compiled
) -> str:
    return repr([n, x, large, s, b, sizes, nested])


@component
def rows() -> list[dict]:
    return [
        {
            "n": 1,
            "x": 1e-7,
            "half": 2.5,
            "yes": True,
            "some": ["a", 1],
            "in": {"z": 1.0, "a": "ü<"},
            "s": "as it is",
            "none": None,
        }
    ]


@component
def mixed() -> list:
    return [1, 2.5, 1e-7, True, "ü", ["a", 1], {"b": 1, "a": None}, None, 1e21]


@component
def integers() -> list[int]:
    return [3, 4]


@component
def several() -> NamedTuple("Several", [("n", int), ("x", float), ("many", list), ("d", dict)]):
    return (7, 8.0, [9.0, 0.5], {"k": 10.0})


@component
def pair_of(a: str, b: str) -> str:
    return f"{a}|{b}"


@component
def not_finite() -> float:
    return float("inf")


@component
def not_finite_inside() -> dict:
    return {"loss": [float("nan")]}


@component
def nan_in_a_file(x: OutputPath(float)):
    from pathlib import Path

    Path(x).write_text("nan")


@dsl.container_component
def writes(word: str, n: OutputPath(int), x: OutputPath(float), b: OutputPath(bool)):
    return dsl.ContainerSpec(
        image="debian:12",
        command=["sh", "-ec", 'printf " 3\\n" > "$0"; printf 1e-7 > "$1"; printf "$3\\n" > "$2"'],
        args=[n, x, b, word],
    )


@dsl.container_component
def writes_whole(word: str, n: OutputPath(int)):
    return dsl.ContainerSpec(
        image="debian:12", command=["sh", "-ec", 'printf "$1" > "$0"'], args=[n, word]
    )


@case(
    by_default="[4, 0.5, 1e+25, '1e-07', True, [64, 32], {'in': [2, {'k': 3}], 'n': 1, 'x': 0.25}]"
)
def defaults():
    by_default()


@case(items="[1, 2.5, [3]]", struct="{'a': 1, 'b': [2, 0.5]}", real="3", whole="5", text="'1.0'")
def constants():
    items(v=[1, 2.5, [3.0]])
    struct(v={"a": 1, "b": [2, 0.5]})
    real(v=3.0)
    whole(v=5)
    text(v="1.0")


@case(whole="5", items="[64, 32]", struct="{'n': 2}", real="1", flag="False", text="'ü'")
def defaults_of_the_pipeline(
    n: int = 5,
    sizes: list[int] = [64, 32],  # noqa: B006 - it is compiled
    d: dict = {"n": 2.0},  # noqa: B006 - it is compiled
    x: float = 1.0,
    b: bool = False,
    s: str = "ü",
):
    whole(v=n)
    items(v=sizes)
    struct(v=d)
    real(v=x)
    flag(v=b)
    text(v=s)


@case(whole="7", real="8", items="[9, 0.5]", struct="{'k': 10}", items_2="[7, '7-8', {'x': '8'}]")
def outputs_of_a_task():
    made = several()
    whole(v=made.outputs["n"])
    real(v=made.outputs["x"])
    items(v=made.outputs["many"])
    struct(v=made.outputs["d"])
    n, x = made.outputs["n"], made.outputs["x"]
    items(v=[7, f"{n}-{x}", {"x": f"{x}"}])


@case(
    **loop("'1'", of="text"),
    **loop("'0.0000001'", of="text-2"),
    **loop("'true'", of="text-3"),
    **loop("""'["a",1]'""", of="text-4"),
    **loop("""'{"a":"ü\\\\u003c","z":1}'""", of="text-5"),
    **loop("'as it is'", of="text-6"),
    **loop("1", of="whole"),
    **loop("2.5", of="whole-2"),  # as Kubeflow's driver has it: a number is a number
    **loop("1e-07", of="real"),
    **loop("True", of="flag"),
    **loop("['a', 1]", of="items"),
    **loop("{'a': 'ü<', 'z': 1}", of="struct"),
)
def fields_of_an_item():
    with dsl.ParallelFor(rows().output) as row:
        text(v=row.n)
        text(v=row.x)
        text(v=row.yes)
        text(v=row.some)
        text(v=getattr(row, "in"))
        text(v=row.s)
        whole(v=row.n)
        whole(v=row.half)
        real(v=row.x)
        flag(v=row.yes)
        items(v=row.some)
        struct(v=getattr(row, "in"))


@case(error=r"input 'v' of task 'for-loop-1\[0\]/text' must be STRING, got None")
def a_field_that_is_null():
    with dsl.ParallelFor(rows().output) as row:
        text(v=row.none)


@case(error=r"input 'v' of task 'for-loop-1\[0\]/whole' must be NUMBER_INTEGER, got 'as it is'")
def a_field_of_another_type():
    with dsl.ParallelFor(rows().output) as row:
        whole(v=row.s)


@case(
    arguments={"ds": [{"n": 1.0, "m": {"k": [2.0]}}]},
    **loop("'1'", of="text"),
    **loop("""'{"k":[2]}'""", of="text-2"),
)
def fields_of_an_argument(ds: list[dict]):
    with dsl.ParallelFor(ds) as row:
        text(v=row.n)
        text(v=row.m)


@case(
    **loop(
        "'1'", "'2.5'", "'0.0000001'", "'true'", "'ü'", """'["a",1]'""",
        """'{"a":null,"b":1}'""", "''", "'1000000000000000000000'", of="text",
    )
)  # fmt: skip
def items_of_all_kinds():
    with dsl.ParallelFor(mixed().output) as item:
        text(v=item)


@case(**loop("3", "4", of="whole"))
def items_of_one_kind():
    with dsl.ParallelFor(integers().output) as item:
        whole(v=item)


@case(
    **loop("'1'", "'2'", of="text", around="for-loop-2[0]/for-loop-3"),
    **loop("'x'", of="text", around="for-loop-2[1]/for-loop-3"),
)
def loop_over_a_field():
    with dsl.ParallelFor([{"v": [1, 2]}, {"v": ["x"]}]) as row, dsl.ParallelFor(row.v) as x:
        text(v=x)


@case(**loop("'a'", "'1'", of="text", around="for-loop-1[0]/for-loop-2"))
def loop_over_a_field_of_an_output():
    with dsl.ParallelFor(rows().output) as row, dsl.ParallelFor(row.some) as x:
        text(v=x)


@case(
    **loop("'p'", "'q'", of="text", around="for-loop-2[0]/for-loop-3"),
    **loop("'r'", of="text", around="for-loop-2[1]/for-loop-3"),
    **loop("0.1", "1", of="real", around="for-loop-2"),
)
def loop_over_a_field_whose_type_kfp_guesses_wrong():
    rows_of_two = [{"x": 0.1, "y": ["p", "q"]}, {"x": 1, "y": ["r"]}]
    with dsl.ParallelFor(rows_of_two) as row:
        real(v=row.x)
        with dsl.ParallelFor(row.y) as letter:
            text(v=letter)


@case(error="input .*subvar-x' of task 'for-loop-1'.*kfp loses a field of a loop's item")
def a_field_in_an_f_string():
    with dsl.ParallelFor(rows().output) as row:
        text(v=f"{row.x}")


@case(error="input .*subvar-x' of task 'for-loop-2'.*kfp loses a field of a loop's item")
def a_field_of_a_constant_in_an_f_string():
    with dsl.ParallelFor([1, 2]) as outer, dsl.ParallelFor([{"x": 0.1}]) as row:
        text(v=f"{outer}-{row.x}")


@component
def says(s: str) -> str:
    return s


@case(
    **loop("eq", of="condition-2/says"),
    **loop("gt", of="condition-3/says-2"),
    **loop("text", of="condition-4/says-3"),
    **loop("bool", of="condition-5/says-4"),
)
def conditions_on_fields():
    with dsl.ParallelFor(rows().output) as row:
        with dsl.If(row.n == 1):
            says(s="eq")
        with dsl.If(row.half > 2.0):
            says(s="gt")
        with dsl.If(row.s == "as it is"):
            says(s="text")
        with dsl.If(row.yes == True):  # noqa: E712 - KFP's way to ask
            says(s="bool")


@case(error=r"'10' > '9.0'\), where '10' is less than '9'", arguments={"ds": [{"n": 10}]})
def a_condition_that_would_compare_numbers_as_text(ds: list):
    with dsl.ParallelFor(ds) as row, dsl.If(row.n > 9.0):
        says(s="gt")


@component
def metadata_with_nan(made: Output[Dataset]):
    made.metadata["loss"] = float("nan")


@case(error="the metadata of output 'made' of task 'metadata-with-nan' holds nan")
def nan_in_metadata():
    metadata_with_nan()


@component
def metadata_with_numbers(made: Output[Dataset]):
    made.metadata.update({"rows": 10.0, "shares": [0.5, 1.0]})


@component
def metadata_of(d: Input[Dataset]) -> str:
    return repr(d.metadata)


@case(metadata_of="{'rows': 10, 'shares': [0.5, 1]}")
def whole_numbers_in_metadata():
    metadata_of(d=metadata_with_numbers().outputs["made"])


@case(error="it loops over 'as it is', which is no list|must be LIST, got 'as it is'")
def loop_over_a_field_that_is_no_list():
    with dsl.ParallelFor(rows().output) as row, dsl.ParallelFor(row.s) as x:
        text(v=x)


@dsl.pipeline
def inner(s: str, n: int = 3, d: dict = {"k": 1.0}) -> str:  # noqa: B006 - it is compiled
    pair_of(a=s, b=f"{n}-{d}")
    return text(v=s).output


@case(
    **loop('1|3-{"k":1}', of="inner/pair-of"),
    **loop("'1'", of="inner/text"),
)
def field_into_a_nested_pipeline():
    with dsl.ParallelFor(rows().output) as row:
        inner(s=row.n)


@case(pair_of='[1,0.5,{"k":2}]|7/8/[9,0.5]/{"k":10}/true/0.0000001', arguments={"x": 1e-7})
def texts_with_several_placeholders(x: float, b: bool = True):
    made = several()
    n, y, many, d = (made.outputs[name] for name in ("n", "x", "many", "d"))
    pair_of(a='[1,0.5,{"k":2}]', b=f"{n}/{y}/{many}/{d}/{b}/{x}")


@case(whole="3", real="1e-07", flag="True", flag_2="False")
def files_of_a_container():
    first, second = writes(word="T"), writes(word="False")
    whole(v=first.outputs["n"])
    real(v=first.outputs["x"])
    flag(v=first.outputs["b"])
    flag(v=second.outputs["b"])


@case(error="output 'n' of task 'writes-whole' must be NUMBER_INTEGER, got '3.0'")
def a_file_that_holds_no_integer():
    writes_whole(word="3.0")


@case(error="output 'Output' of task 'not-finite' must be NUMBER_DOUBLE, got inf")
def infinity_returned():
    not_finite()


@case(error="output 'Output' of task 'not-finite-inside' holds nan, which JSON")
def nan_inside_what_is_returned():
    not_finite_inside()


@case(error="input 'v' of task 'real' holds nan, which JSON")
def nan_from_a_file_into_a_task():
    real(v=nan_in_a_file().outputs["x"])
