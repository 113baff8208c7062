"""Pipelines in which something goes wrong."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Output, OutputPath

from tests.conformance.components import boom, fin, mk, names, rd, say, say_unless
from tests.conformance.pipelines import without_cache

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def unlucky(made: Output[Dataset]):
    """Fails whenever it is called, and says where it would have written."""
    from tests.runner import gates

    gates.say(made.path)
    raise RuntimeError(f"failure {len(gates.said())}")


@component
def exits():
    import sys

    sys.exit(3)


@component
def is_killed():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@component
def chatty():
    for i in range(10_000):
        print(f"{i:5d}" + "x" * 100)  # noqa: T201 - it is what a component does


@component
def leaves_a_child():
    import subprocess
    import sys

    from tests.runner import gates

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    gates.say(child.pid)


@component
def detaches():
    """Leaves a child and a grandchild in sessions of their own, and waits if there is no gate."""
    import os
    import subprocess
    import sys

    from tests.runner import gates

    sleeps = "import time; time.sleep(600)"
    options = "start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    popen = f"subprocess.Popen([sys.executable, '-c', {sleeps!r}], {options})"
    code = f"import subprocess, sys; print({popen}.pid)"
    child = subprocess.Popen([sys.executable, "-c", sleeps], start_new_session=True)
    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, check=True
    )
    gates.say(f"detached begins {os.getpid()} {child.pid} {int(done.stdout)}")
    gates.wait_at("detached")


@component
def returns_text() -> int:
    return "many"


@component
def late_boom():
    raise RuntimeError("the exit handler broke too")


@component
def needs_gate():
    from tests.runner import gates

    gates.say("needs_gate")
    if not gates.is_open("needs_gate"):
        raise RuntimeError("the gate is shut")


@component
def waits(name: str):
    """Says that it has begun, and in which processes: its own, its parent's, its child's."""
    import os
    import subprocess
    import sys

    from tests.runner import gates

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]) as child:
        gates.say(f"{name} begins {os.getpid()} {os.getppid()} {child.pid}")
        gates.wait_at(name)
        child.kill()
    gates.say(f"{name} ends")


@component
def a() -> str:
    import os

    from tests.runner import gates

    gates.say(f"a begins {os.getpid()}")
    gates.wait_at("a")
    return "hello"


@component
def slow(seed: str, made: Output[Dataset]):
    import os
    from pathlib import Path

    from tests.runner import gates

    Path(made.path).write_text("half")
    gates.say(f"slow begins {os.getpid()}")
    gates.wait_at("slow")
    Path(made.path).write_text(f"whole {seed}")


@component
def push(made: Input[Dataset], run_id: str):
    """Has an effect outside of the pipeline, once a run."""
    import os
    from pathlib import Path

    from tests.runner import gates

    gates.say(f"push begins {os.getpid()}")
    gates.wait_at("push")
    if not gates.said(beginning=f"pushed {run_id}"):
        gates.say(f"pushed {run_id} {Path(made.path).read_text()}")


@component
def keeps_company(name: str, wait_s: float) -> str:
    from tests.runner import gates

    return gates.company(name, wait_s=wait_s)


@component
def not_a_number(x: OutputPath(float)):
    from pathlib import Path

    Path(x).write_text("NaN")


@component
def asks_library() -> str:
    import library_of_a_test

    return library_of_a_test.answer()


@component
def make_other(s: str, n: int, made: Output[Dataset]):
    """Makes what `mk` makes, and says so."""
    from pathlib import Path

    from tests.runner import gates

    gates.say("make_other")
    Path(made.path).write_text(s)


@component
def measure(d: Input[Dataset]) -> NamedTuple("Outputs", [("n_chars", int)]):
    from pathlib import Path

    from tests.runner import gates

    gates.say("measure")
    return (len(Path(d.path).read_text()),)


@component
def fills_the_disk(made: Output[Dataset]):
    from pathlib import Path

    from tests.runner import gates

    gates.say("fills_the_disk")
    Path(made.path).write_bytes(b"x" * 8_000_000)


def of_one(task_component):
    """A pipeline of one task."""

    @dsl.pipeline(name=task_component.name)
    def pipeline():
        task_component()

    return pipeline


@dsl.pipeline
def retried():
    unlucky().set_retry(2, backoff_duration="0s")


@dsl.pipeline
def broken_exit():
    with dsl.ExitHandler(late_boom()):
        boom()


@dsl.pipeline
def broken_exit_alone():
    with dsl.ExitHandler(late_boom()):
        say(s="in")


@dsl.pipeline
def exit_after_wait():
    with dsl.ExitHandler(fin()):
        say(s="later").after(waits(name="body"))


@dsl.pipeline
def exit_waits():
    with dsl.ExitHandler(waits(name="exit")):
        waits(name="body")


@dsl.pipeline
def one_item_fails():
    with dsl.ParallelFor(names().output) as item:
        say_unless(s=item, bad="b")


@dsl.pipeline
def waiting(name: str):
    waits(name=name).set_caching_options(False)


@dsl.pipeline
def detached():
    detaches().set_caching_options(False)


@dsl.pipeline
def pausing():
    """Every worker has a task that pauses, then comes a task that needs a worker."""
    for _ in range(2):
        unlucky().set_retry(1, backoff_duration="3600s").set_caching_options(False)
    waits(name="it")


@without_cache
@dsl.pipeline
def slowly():
    made = slow(seed=a().output)
    push(made=made.outputs["made"], run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)


@dsl.pipeline
def measured(s: str = "four"):
    measure(d=mk(s=s).outputs["made"])


@dsl.pipeline
def measured_elsewhere(s: str = "four", n: int = 1):
    measure(d=make_other(s=s, n=n).outputs["made"])


@dsl.pipeline
def gated():
    needs_gate().after(say(s="first"))


@dsl.pipeline
def gated_twice():
    needs_gate().after(say(s="first"))
    say(s="another")


@dsl.pipeline
def gated_data():
    made = mk(s="four")
    measure(d=made.outputs["made"])
    needs_gate().after(made)


@dsl.pipeline
def in_turn():
    with dsl.ParallelFor(["x", "y", "z"], parallelism=1) as name:
        keeps_company(name=name, wait_s=0.2)


@dsl.pipeline
def at_once():
    with dsl.ParallelFor(["x", "y"]) as name:
        keeps_company(name=name, wait_s=60.0)


@dsl.pipeline
def branches_at_once():
    keeps_company(name="x", wait_s=60.0)
    keeps_company(name="y", wait_s=60.0)


@dsl.pipeline
def if_nan():
    n = not_a_number()
    with dsl.If(n.outputs["x"] > 0.5):
        say(s="T")
    with dsl.Else():
        say(s="E")


@dsl.pipeline
def from_outside(d: Input[Dataset]):
    rd(d=d)


@dsl.pipeline
def filling():
    disk = fills_the_disk().after(say(s="first"))
    rd(d=disk.outputs["made"])
