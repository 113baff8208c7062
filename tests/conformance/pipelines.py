"""Pipelines that any runner of Kubeflow pipelines must run alike, and what comes of each.

Caching is off in all of them: a task that is taken from a cache says nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import dsl

from tests.conformance.components import (
    boolean,
    boom,
    cat,
    dicts,
    dicts_of_all,
    fin,
    flaky,
    joins,
    mk,
    named,
    names,
    no_names,
    num,
    optc,
    outputs_of_types,
    rd,
    say,
    say_again,
    say_unless,
    sayi,
    says_input,
    says_metadata,
    says_types,
    silent,
    sizes,
    text,
)

TRICKY = "a && b || !c true"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A pipeline, and what must come of it.

    Attributes:
        name: The pipeline's function.
        pipeline: What `@dsl.pipeline` has made of it.
        arguments: For its parameters; "{folder}" in a string stands for the folder of the lines.
        lines: What its tasks write.
        before: Pairs of lines of which the first comes first; None: all in the order of `lines`.
        raises: Whether the run fails.
    """

    name: str
    pipeline: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    before: tuple[tuple[str, str], ...] | None = None
    raises: bool = False

    def arguments_in(self, folder: Path) -> dict[str, Any]:
        """The arguments, and the file that one of them may name."""
        (folder / "imported.txt").write_text("imported")
        return {
            name: value.format(folder=folder) if isinstance(value, str) else value
            for name, value in self.arguments.items()
        }

    def difference(self, lines_file: Path, error: Exception | None) -> str:
        """What a run did otherwise, one finding a line; empty if it did as it must.

        Args:
            lines_file: What its tasks wrote; not there if they wrote nothing.
            error: What the runner raised.

        >>> case = Case(name="two", pipeline=None, lines=("a", "b"))
        >>> print(case.difference(Path("/nowhere"), RuntimeError("lost")))
        did not say 'a'
        did not say 'b'
        failed, and must end well: RuntimeError: lost
        said: ()
        """
        lines = tuple(lines_file.read_text().splitlines()) if lines_file.exists() else ()
        missing, unexpected = Counter(self.lines), Counter(lines)
        missing, unexpected = missing - unexpected, unexpected - missing
        findings = [f"did not say {line!r}" for line in missing.elements()]
        findings += [f"said {line!r}, which nobody asked for" for line in unexpected.elements()]
        if not findings and self.before is None and lines != self.lines:
            findings.append(f"must be said in the order {self.lines}")
        findings += [
            f"must say {first!r} before {second!r}"
            for first, second in self.before or ()
            if {first, second} <= {*lines} and lines.index(second) < lines.index(first)
        ]
        if self.raises and error is None:
            findings.append("ended well, and must fail")
        elif error is not None and not self.raises:
            findings.append(f"failed, and must end well: {type(error).__name__}: {error}")
        return "\n".join([*findings, f"said: {lines}"]) if findings else ""


CASES: list[Case] = []


def without_cache(pipeline: Any) -> Any:
    """Turn caching off for each task of a pipeline, as its `set_caching_options(False)` would."""
    spec = pipeline.pipeline_spec
    for component in (spec.root, *spec.components.values()):
        for task in component.dag.tasks.values():
            task.caching_options.Clear()
    return pipeline


def case(
    *lines: str,
    before: tuple[tuple[str, str], ...] | None = None,
    raises: bool = False,
    **arguments: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Make a pipeline of a function, and list it as a case."""

    def listed(function: Callable[..., Any]) -> Any:
        pipeline = without_cache(dsl.pipeline(function))
        CASES.append(
            Case(
                name=function.__name__,
                pipeline=pipeline,
                arguments=arguments,
                lines=lines,
                before=before,
                raises=raises,
            )
        )
        return pipeline

    return listed


@case("T")
def if_num():
    with dsl.If(num(x=0.9).output > 0.5):
        say(s="T")


@case("E")
def if_else():
    n = num(x=0.1)
    with dsl.If(n.output > 0.5):
        say(s="T")
    with dsl.Else():
        say(s="E")


@case("M")
def elif_():
    n = num(x=0.6)
    with dsl.If(n.output > 0.8):
        say(s="T")
    with dsl.Elif(n.output > 0.5):
        say(s="M")
    with dsl.Else():
        say(s="E")


@case("T")
def if_bool():
    with dsl.If(boolean(x=True).output == True):  # noqa: E712 - KFP's way to ask
        say(s="T")


@case()
def if_bool_false():
    with dsl.If(boolean(x=False).output == True):  # noqa: E712 - KFP's way to ask
        say(s="T")


@case("T")
def if_named_bool():
    with dsl.If(named(x=0.9).outputs["blessed"] == True):  # noqa: E712 - KFP's way to ask
        say(s="T")


@case("T")
def if_named_num():
    with dsl.If(named(x=0.9).outputs["auc"] > 0.5):
        say(s="T")


@case("T")
def if_quote():
    with dsl.If(text(s="it's").output != "no"):
        say(s="T")


@case("T")
def if_and_text():
    with dsl.If(text(s=TRICKY).output == TRICKY):
        say(s="T")


@case("T", p="go")
def if_param(p: str):
    with dsl.If(p == "go"):
        say(s="T")


@case("T", p=3)
def if_int(p: int):
    with dsl.If(p >= 3):
        say(s="T")


@case("T", p=3)
def if_nested(p: int):
    with dsl.If(num(x=0.9).output > 0.5), dsl.If(p >= 3):
        say(s="T")


@case("a", "b", "c", before=())
def for_list():
    with dsl.ParallelFor(names().output, parallelism=1) as item:
        say(s=item)


@case("a", "b", before=())
def for_const():
    with dsl.ParallelFor(["a", "b"]) as item:
        say(s=item)


@case("x", "y", before=())
def for_dict():
    with dsl.ParallelFor(dicts().output) as item:
        say(s=item.m)


@case("a+b+c")
def collected():
    with dsl.ParallelFor(names().output) as item:
        t = text(s=item)
    joins(items=dsl.Collected(t.output))


@case("a,b,c")
def collected_art():
    with dsl.ParallelFor(names().output) as item:
        m = mk(s=item)
    cat(ds=dsl.Collected(m.outputs["made"]))


@case("b")
def for_if():
    with dsl.ParallelFor(names().output) as item:
        t = text(s=item)
        with dsl.If(t.output == "b"):
            say(s=item)


@case("a1", "a2", "b1", "b2", before=())
def for_nested():
    with dsl.ParallelFor(["a", "b"]) as letter, dsl.ParallelFor([1, 2]) as digit:
        sayi(s=letter, x=digit)


@case("oneof", "oneof")
def oneof():
    n = num(x=0.9)
    with dsl.If(n.output > 0.5):
        t = say(s="oneof")
    with dsl.Else():
        e = say(s="the other")
    say(s=dsl.OneOf(t.output, e.output))


@case("hi")
def oneof_art():
    n = num(x=0.9)
    with dsl.If(n.output > 0.5):
        t = mk(s="hi")
    with dsl.Else():
        e = mk(s="the other")
    rd(d=dsl.OneOf(t.outputs["made"], e.outputs["made"]))


@case("END", raises=True)
def exit_fail():
    with dsl.ExitHandler(say(s="END")):
        boom()


@case("in", "END")
def exit_ok():
    with dsl.ExitHandler(say(s="END")):
        say(s="in")


@case("state=FAILED", raises=True)
def exit_status():
    with dsl.ExitHandler(fin()):
        boom()


@case("after", raises=True)
def ignore_upstream():
    say(s="after").after(boom()).ignore_upstream_failure()


@case("flaky-ok")
def retry():
    flaky().set_retry(3, backoff_duration="0s")


@case("None|True")
def optional():
    optc()


@case("n3", x=3)
def int_param(x: int):
    sayi(s="n", x=x)


@case("imported", uri="{folder}/imported.txt")
def importer_(uri: str):
    rd(d=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output)


@dsl.pipeline
def inner(s: str = "q") -> str:
    return say(s=s).output


@case("q", "q2", "again q", before=(("q", "again q"),))
def nested():
    first = inner()
    inner(s="q2")
    say_again(s=first.output)


@case("x-1", p="1")
def fstring(p: str):
    say(s=f"x-{p}")


@case(raises=True)
def fail_for():
    with dsl.ParallelFor(["a", "b"]):
        boom()


# Beyond the table of the reference.


@case("")
def for_empty():
    with dsl.ParallelFor(no_names().output) as item:
        t = text(s=item)
    joins(items=dsl.Collected(t.output))


@case("a", "c", before=(), raises=True)
def for_one_fails():
    with dsl.ParallelFor(names().output) as item:
        say_unless(s=item, bad="b")


@case()
def else_in_skipped():
    n = num(x=0.1)
    with dsl.If(n.output > 0.5):
        inside = num(x=0.2)
        with dsl.If(inside.output > 0.5):
            say(s="T")
        with dsl.Else():
            say(s="E")


@case(raises=True)
def if_missing():
    with dsl.If(silent().outputs["verdict"] == "go"):
        say(s="T")


@case(raises=True)
def else_missing():
    s = silent()
    with dsl.If(s.outputs["verdict"] == "go"):
        say(s="T")
    with dsl.Else():
        say(s="E")


@case(raises=True)
def literal_quote():
    with dsl.If(text(s="it's").output == "it's"):
        say(s="T")
    with dsl.Else():
        say(s="E")


# What values become on their way, as Kubeflow's driver has it.


@case("1", "0.0000001", "true", '["a",1]', '{"a":"ü","z":1}', before=())
def fields_to_text():
    with dsl.ParallelFor(dicts_of_all().output) as row:
        say(s=row.n)
        say(s=row.x)
        say(s=row.yes)
        say(s=row.some)
        say(s=getattr(row, "in"))


@case("1", "2", before=())
def for_field():
    with dsl.ParallelFor([{"v": [1, 2]}]) as row, dsl.ParallelFor(row.v) as item:
        say(s=item)


@case("[64, 32] {'n': 2, 'x': 0.5}")
def whole_defaults():
    sizes()


@case("[1, 2] {'k': [3]}")
def whole_constants():
    sizes(many=[1, 2], few={"k": [3]})


@case("int float str", x=2)
def whole_in_lists(x: int):
    says_types(v=[1, 2.5, f"{x}"])


@case('7 0.0000001 ["ü",1] {"k":2}')
def fstring_of_types():
    made = outputs_of_types()
    n, x, v, d = (made.outputs[name] for name in "nxvd")
    say(s=f"{n} {x} {v} {d}")


@case("['v']")
def executor_input():
    says_input(v=dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER)


@case("say this")
def task_name():
    say(s=f"{dsl.PIPELINE_TASK_NAME_PLACEHOLDER} this")


@case('say "hi", 3', uri="{folder}/imported.txt", who='say "hi"')
def importer_metadata(uri: str, who: str):
    made = dsl.importer(
        artifact_uri=uri, artifact_class=dsl.Dataset, metadata={"who": who, "size": 3}
    )
    says_metadata(d=made.output)


@case("a", "a", before=())
def for_unused_item():
    with dsl.ParallelFor(dicts().output):
        say(s="a")
