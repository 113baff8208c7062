"""Small components for pipelines that test whoever runs them.

A component that says something appends a line to the file that the environment variable
MLOPS_MINI_TEST_LINES names, by one write, so that tasks at the same time do not mix their letters.
"""
# ruff: noqa: UP045 - KFP reads annotations, and does not know `str | None`

from typing import NamedTuple, Optional

from kfp import dsl
from kfp.dsl import Dataset, Input, Output, OutputPath, PipelineTaskFinalStatus

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def say(s: str) -> str:
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{s}\n".encode())
    return s


@component
def say_again(s: str):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"again {s}\n".encode())


@component
def sayi(s: str, x: int):
    import os
    from pathlib import Path

    assert type(x) is int, f"x is {x!r}, a {type(x).__name__}"
    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{s}{x}\n".encode())


@component
def say_unless(s: str, bad: str):
    import os
    from pathlib import Path

    if s == bad:
        raise ValueError(f"cannot say {s}")
    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{s}\n".encode())


@component
def num(x: float) -> float:
    return x


@component
def boolean(x: bool) -> bool:
    return x


@component
def text(s: str) -> str:
    return s


@component
def named(x: float) -> NamedTuple("Outputs", [("auc", float), ("blessed", bool), ("why", str)]):
    return (x, x > 0.5, "it's fine")


@component
def names() -> list[str]:
    return ["a", "b", "c"]


@component
def no_names() -> list[str]:
    return []


@component
def dicts() -> list[dict]:
    return [{"m": "x", "n": 1}, {"m": "y", "n": 2}]


@component
def silent(verdict: OutputPath(str)):
    """Writes no verdict, although it has promised one."""


@component
def mk(s: str, made: Output[Dataset]):
    from pathlib import Path

    Path(made.path).write_text(s)


@component
def rd(d: Input[Dataset]):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{Path(d.path).read_text()}\n".encode())


@component
def cat(ds: Input[list[Dataset]]):
    import os
    from pathlib import Path

    content = ",".join(Path(d.path).read_text() for d in ds)
    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{content}\n".encode())


@component
def joins(items: list[str]):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{'+'.join(items)}\n".encode())


@component
def optc(a: Optional[str] = None, d: Optional[Input[Dataset]] = None):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{a}|{d is None}\n".encode())


@component
def fin(status: PipelineTaskFinalStatus):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"state={status.state}\n".encode())


@component
def flaky():
    """Fails twice, then says so; counts its calls in a file beside the lines."""
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"] + ".calls").open("ab", buffering=0) as calls:
        calls.write(b".")
        n_calls = calls.tell()
    if n_calls < 3:
        raise RuntimeError(f"failed at call {n_calls}")
    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(b"flaky-ok\n")


@component
def boom():
    raise RuntimeError("boom went off")


@component
def dicts_of_all() -> list[dict]:
    return [{"n": 1, "x": 1e-7, "some": ["a", 1], "in": {"z": 1, "a": "ü"}, "yes": True}]


@component
def sizes(many: list[int] = [64, 32], few: dict = {"n": 2, "x": 0.5}) -> str:  # noqa: B006
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{many} {few}\n".encode())
    return "said"


@component
def says_types(v: list):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{' '.join(type(one).__name__ for one in v)}\n".encode())


@component
def says_input(v: str):
    import json
    import os
    from pathlib import Path

    inputs = json.loads(v)["inputs"]
    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{list(inputs['parameterValues'])}\n".encode())


@component
def says_metadata(d: Input[Dataset]):
    import os
    from pathlib import Path

    with Path(os.environ["MLOPS_MINI_TEST_LINES"]).open("ab", buffering=0) as lines:
        lines.write(f"{d.metadata['who']}, {d.metadata['size']}\n".encode())


@component
def outputs_of_types() -> NamedTuple("Types", [("n", int), ("x", float), ("v", list), ("d", dict)]):
    return (7, 1e-7, ["ü", 1], {"k": 2})
