import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp
import pytest
import yaml
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    json_format,
    message_factory,
    struct_pb2,
)
from google.rpc import status_pb2
from kfp import compiler, dsl

from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    UnavailableError,
)
from mlops_mini.pipeline import kubeflow
from tests.conformance.components import (
    boolean,
    boom,
    dicts,
    fin,
    flaky,
    joins,
    mk,
    names,
    num,
    optc,
    rd,
    say,
    sayi,
    text,
)
from tests.conformance.pipelines import CASES

# What kfp-pipeline-spec 0.6.0 (Apache-2.0), the oldest that a Kubeflow in use may have, knows: the
# FileDescriptorProto of its pipeline_spec.proto, serialized. Later versions only added fields.
OLDEST_SPEC = Path(__file__).parent / "pipeline_spec_0.6.0.binpb"


@dsl.pipeline(name="ten-tasks", description="All that the pipeline language has to offer.")
def ten_tasks(ratio: float = 0.9, count: int = 3, word: str = "go", flag: bool = True):
    with dsl.ExitHandler(fin()):
        made = mk(s="a").set_caching_options(False)
        made.set_retry(3, backoff_duration="1s", backoff_factor=2.0, backoff_max_duration="9s")
        rd(d=made.output)
        rd(d=dsl.importer(artifact_uri="file:///a", artifact_class=dsl.Dataset).output)
        with dsl.If(num(x=ratio).output > 0.8):
            high = text(s="high")
        with dsl.Elif(count >= 3):
            middle = text(s="middle")
        with dsl.Else():
            low = text(s="low")
        say(s=dsl.OneOf(high.output, middle.output, low.output))
        with dsl.ParallelFor(names().output, parallelism=1) as name:
            said = text(s=name)
            with dsl.If(said.output == "b"), dsl.If(flag == True):  # noqa: E712
                say(s=name)
        joins(items=dsl.Collected(said.output))
        with dsl.ParallelFor(dicts().output) as item:
            say(s=item.m)
        with dsl.ParallelFor(["a", "b"]) as outer, dsl.ParallelFor([1, 2]) as inner:
            sayi(s=outer, x=inner)
        say(s=f"x-{word}").set_env_variable("A", "b").set_memory_limit("1G")
        boom()
    say(s="after").after(flaky()).ignore_upstream_failure()
    optc()


def compiled(pipeline: Any, folder: Path) -> Path:
    package = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(package))
    return package


@pytest.fixture(scope="module")
def text_of_ten_tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(ten_tasks, tmp_path_factory.mktemp("compiled")).read_text()


@pytest.fixture
def package(text_of_ten_tasks: str, tmp_path: Path) -> Path:
    package = tmp_path / "ten-tasks.yaml"
    package.write_text(text_of_ten_tasks)
    return package


def read(package: Path) -> dict[str, Any]:
    return yaml.load(package.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def changed(package: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The same pipeline, after a change to its document."""
    document = read(package)
    change(document)
    package.write_text(json.dumps(document))
    return package


def oldest_spec() -> Any:
    """An empty PipelineSpec as kfp-pipeline-spec 0.6.0 defines it."""
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, duration_pb2, struct_pb2, status_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto.FromString(OLDEST_SPEC.read_bytes())
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("ml_pipelines.PipelineSpec")
    )()


# Acceptance.


def test_takes_a_pipeline_with_all_of_the_language(package: Path) -> None:
    assert kubeflow.check(package).name == "ten-tasks"
    assert kubeflow.check(ten_tasks).name == "ten-tasks"


def test_compiles_to_the_same_bytes(package: Path, tmp_path: Path) -> None:
    first = package.read_bytes()

    assert compiled(ten_tasks, tmp_path).read_bytes() == first


def test_the_oldest_spec_reads_the_same_pipeline(package: Path) -> None:
    found = json_format.ParseDict(read(package), oldest_spec())

    assert json_format.MessageToDict(found) == json_format.MessageToDict(ten_tasks.pipeline_spec)


def test_the_oldest_spec_refuses_a_newer_field(package: Path) -> None:
    passed = [{"field": "ENV"}]
    changed(
        package,
        lambda document: document["components"]["comp-say"].update(taskConfigPassthroughs=passed),
    )

    assert kubeflow.check(package).name == "ten-tasks"
    with pytest.raises(json_format.ParseError, match="taskConfigPassthroughs"):
        json_format.ParseDict(read(package), oldest_spec())


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name) for case in CASES if case.name != "literal_quote"],
)
def test_takes_each_case_and_so_does_the_oldest_spec(case: Any, tmp_path: Path) -> None:
    package = compiled(case.pipeline, tmp_path)
    # One that has the name of its own component cannot be loaded by kfp.
    changed(package, lambda document: document["pipelineInfo"].update(name="case"))

    assert kubeflow.check(package).name == "case"
    json_format.ParseDict(read(package), oldest_spec())


def first_task(document: dict[str, Any]) -> dict[str, Any]:
    return document["components"]["comp-exit-handler-1"]["dag"]["tasks"]["mk"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda document: first_task(document).update(bogus=1), "bogus"),
        (lambda document: document.update(schemaVersion="2.0.0"), "schemaVersion '2.0.0'"),
        (lambda document: document.pop("schemaVersion"), "schemaVersion None"),
        (lambda document: document.pop("pipelineInfo"), "pipelineInfo"),
        (lambda document: document["pipelineInfo"].pop("name"), "name"),
        (lambda document: document.pop("root"), "root"),
        (lambda document: document.update(root={}), "no tasks in its root"),
        (lambda document: document["root"]["dag"].update(tasks={}), "no tasks in its root"),
        (
            lambda document: first_task(document)["componentRef"].update(name="comp-x"),
            "task 'mk' in comp-exit-handler-1 of pipeline 'ten-tasks': .* no component 'comp-x'",
        ),
        (
            lambda document: first_task(document).update(dependentTasks=["x"]),
            "task 'mk' in comp-exit-handler-1 .* waits for 'x'",
        ),
        (lambda document: document["deploymentSpec"].clear(), "ten-tasks|deploymentSpec"),
    ],
)
def test_refuses_what_the_api_server_would_refuse(
    package: Path, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"(?s){why}"):
        kubeflow.check(changed(package, change))


@pytest.mark.parametrize("name", ["Loop", "a_b", "-a", "a-", "a..b", ".a", "a b", "a/b", "ä"])
def test_refuses_a_name_that_kubernetes_would_refuse(package: Path, name: str) -> None:
    changed(package, lambda document: document["pipelineInfo"].update(name=name))

    with pytest.raises(InvalidArgumentError, match=f"name '{name}' must be lower-case .* rename"):
        kubeflow.check(package)


@pytest.mark.parametrize("name", ["a", "a-b.c-1", "1"])
def test_takes_a_name_that_kubernetes_takes(package: Path, name: str) -> None:
    changed(package, lambda document: document["pipelineInfo"].update(name=name))

    assert kubeflow.check(package).name == name


def test_takes_one_platform_spec_beside_the_pipeline(package: Path) -> None:
    package.write_text(package.read_text() + "\n---\nplatforms:\n  kubernetes: {}\n---\n")

    assert kubeflow.check(package).name == "ten-tasks"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("platforms:\n  kubernetes: {bogus: 1}", "bogus"),
        ("- platforms", "1 more"),
        ("platforms: {}\n---\nplatforms: {}", "2 more"),
        ("just text", "1 more"),
    ],
)
def test_refuses_any_other_second_document(package: Path, document: str, why: str) -> None:
    package.write_text(f"{package.read_text()}\n---\n{document}\n")

    with pytest.raises(InvalidArgumentError, match=f"may hold one PlatformSpec.*{why}"):
        kubeflow.check(package)


def test_refuses_two_pipelines_no_yaml_and_no_file(package: Path) -> None:
    package.write_text(f"{package.read_text()}\n---\n{package.read_text()}")
    with pytest.raises(InvalidArgumentError, match="2"):
        kubeflow.check(package)

    package.write_text("a: [")
    with pytest.raises(InvalidArgumentError, match="not YAML"):
        kubeflow.check(package)

    with pytest.raises(NotFoundError, match=r"no pipeline in .*none\.yaml"):
        kubeflow.check(package.with_name("none.yaml"))


def test_refuses_a_pipeline_named_as_its_own_importer() -> None:
    @dsl.pipeline(name="importer")
    def pipeline():
        rd(d=dsl.importer(artifact_uri="file:///a", artifact_class=dsl.Dataset).output)

    with pytest.raises(InvalidArgumentError, match=r"cannot load pipeline 'importer'.* rename it"):
        kubeflow.check(pipeline)


# Images by digest.


def test_images_are_pinned_to_digests_and_nothing_else_changes(package: Path) -> None:
    before = kubeflow.check(package)
    names = {container["image"] for container in before.containers}
    digests = {name: f"registry.example/{n}@sha256:{n:064x}" for n, name in enumerate(names)}

    package.write_text(kubeflow.pinned(package, digests))

    after = kubeflow.check(package)
    assert {container["image"] for container in after.containers} == set(digests.values())
    assert package.read_text().startswith("# PIPELINE DEFINITION\n# Name: ten-tasks\n")
    unpinned = json.dumps(after.spec, sort_keys=True)
    for name, pinned in digests.items():
        unpinned = unpinned.replace(pinned, name)
    assert unpinned == json.dumps(before.spec, sort_keys=True)


@pytest.mark.parametrize("digest", [None, "a:1", "a@sha256:12", f"a@sha256:{64 * 'A'}"])
def test_an_image_without_a_digest_is_named(package: Path, digest: str | None) -> None:
    name = kubeflow.check(package).containers[0]["image"]

    with pytest.raises(InvalidArgumentError, match=f"image {name} of pipeline 'ten-tasks' is"):
        kubeflow.pinned(package, {name: digest} if digest else {})


# What kfp compiles wrongly.


def with_condition(compare: Callable[..., Any]) -> Any:
    @dsl.pipeline(name="gate")
    def gate(number: float = 0.5, count: int = 3, word: str = "go", flag: bool = True):
        with dsl.If(compare(number, count, word, flag)):
            say(s="T")

    return gate


IN_FILES = [
    (lambda _n, _c, word, _f: word == "it's", "check its quotes"),
    (lambda _n, _c, word, _f: word == 'a "b"', "a quote, a backslash or a control character"),
    (lambda _n, _c, word, _f: word == "a\\n", "a quote, a backslash or a control character"),
    (lambda _n, _c, word, _f: word == "a\\b", "check its quotes"),
    (lambda _n, _c, word, _f: word == "a\tb", "a quote, a backslash or a control character"),
    (lambda _n, _c, word, _f: word == "a\nb", "check its quotes"),
    (lambda _n, _c, word, _f: word == "a' || 'b' == 'b", "compares two fixed texts"),
    (lambda _n, _c, word, _f: word == 3, "compares a string with '3'.* declare the parameter"),
    (lambda _n, _c, word, _f: word == "3", "compares a string with '3'.* compare with a word"),
    (lambda _n, _c, word, _f: word > 0.5, "compares a string with '0.5'"),
    (lambda _n, _c, word, _f: word != -1e-07, "compares a string with '-1e-07'"),
    (lambda _n, _c, word, _f: word == True, "compares a string with 'true'"),  # noqa: E712
    (lambda _n, _c, word, _f: word == float("inf"), "compares a string with 'inf'"),
    (lambda _n, count, word, _f: word == count, "cannot be read"),
    (lambda number, _c, word, _f: word == number, "cannot be read|two fixed texts|goes on"),
    (lambda _n, _c, word, flag: word == flag, "cannot be read|two fixed texts|goes on"),
    (lambda number, _c, _w, _f: number == "a", "cannot be read|two fixed texts|goes on"),
    (lambda number, _c, _w, _f: number < float("inf"), "has 'inf' in place of a value"),
    (lambda _n, _c, _w, flag: flag > 0, "two values of kind bool by >"),
]


@pytest.mark.parametrize(("compare", "why"), IN_FILES)
def test_refuses_a_condition_that_kfp_garbles(
    compare: Callable[..., Any], why: str, tmp_path: Path
) -> None:
    where = "task 'condition-1' in root of pipeline 'gate': condition"

    with pytest.raises(InvalidArgumentError, match=f"(?s){where}.*({why})"):
        kubeflow.check(compiled(with_condition(compare), tmp_path))
    with pytest.raises(InvalidArgumentError, match=f"(?s){where}.*({why})"):
        kubeflow.check(with_condition(compare))


@pytest.mark.parametrize(
    "compare",
    [
        lambda _n, _c, word, _f: word == "go",
        lambda _n, _c, word, _f: word != "2013-03",
        lambda _n, _c, word, _f: word == "03",
        lambda _n, _c, word, _f: word == "True",
        lambda _n, _c, word, _f: word == "",
        lambda _n, _c, word, _f: word == "a && b || !c",
        lambda number, _c, _w, _f: number > 3,
        lambda _n, count, _w, _f: count > 0.5,
        lambda number, count, _w, _f: number > count,
        lambda _n, _c, _w, flag: flag == False,  # noqa: E712
    ],
)
def test_takes_a_condition_that_kfp_compiles_well(
    compare: Callable[..., Any], tmp_path: Path
) -> None:
    assert kubeflow.check(with_condition(compare)).name == "gate"
    assert kubeflow.check(compiled(with_condition(compare), tmp_path)).name == "gate"


@pytest.mark.parametrize(("number", "wrongly"), [(1, "false"), (0, "true")])
def test_only_the_source_shows_a_bool_that_is_compared_with_a_number(
    number: int, wrongly: str, tmp_path: Path
) -> None:
    pipeline = with_condition(lambda _n, _c, _w, flag: flag == number)
    package = compiled(pipeline, tmp_path)

    assert f"['pipelinechannel--flag'] == {wrongly}" in package.read_text()
    assert kubeflow.check(package).name == "gate"
    with pytest.raises(
        InvalidArgumentError,
        match=f"'gate' compares BOOLEAN with NUMBER in `flag == {number}`, .* own type",
    ):
        kubeflow.check(pipeline)


def test_the_source_of_nested_conditions_and_of_artifacts_is_looked_at() -> None:
    @dsl.pipeline(name="deep")
    def deep(given: dsl.Input[dsl.Dataset] = None):
        with dsl.ParallelFor(names().output) as item, dsl.If(item == "b"):
            with dsl.If(num(x=0.9).output > 0.5):
                say(s="a")
            with dsl.Elif(boolean(x=True).output == 1):
                say(s=item)

    with pytest.raises(InvalidArgumentError, match="`boolean-Output == 1`"):
        kubeflow.check(deep)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("inputs.parameter_values['pipelinechannel--none'] > 0.5", "'pipelinechannel--none'"),
        ("inputs.parameter_values['pipelinechannel--word'] > 0.5", "string with number"),
        ("inputs.parameter_values['pipelinechannel--word'] == true", "string with bool"),
        ("inputs.parameter_values['pipelinechannel--word']", "must be true or false"),
        ("'a' == 'a'", "two fixed texts"),
        ("", ""),
    ],
)
def test_refuses_a_condition_that_can_never_be_decided(
    value: str, why: str, tmp_path: Path
) -> None:
    package = compiled(with_condition(lambda _n, _c, word, _f: word == "go"), tmp_path)
    changed(
        package,
        lambda document: document["root"]["dag"]["tasks"]["condition-1"]["triggerPolicy"].update(
            condition=value
        ),
    )

    if why:
        with pytest.raises(InvalidArgumentError, match=f"task 'condition-1' in root .*{why}"):
            kubeflow.check(package)
    else:
        assert kubeflow.check(package).name == "gate"


def loop_and_if(text_of: Callable[[Any], Any]) -> Any:
    @dsl.pipeline(name="lost")
    def lost():
        with dsl.ParallelFor(["a", "b"]) as item, dsl.If(num(x=0.9).output > 0.5):
            say(s=text_of(item))

    return lost


def loop_in_loop(text_of: Callable[[Any], Any]) -> Any:
    @dsl.pipeline(name="lost")
    def lost():
        with dsl.ParallelFor(["a", "b"]) as outer, dsl.ParallelFor(["c"]) as inner:
            say(s=outer)
            say(s=text_of(inner))

    return lost


def loop_in_exit_handler(text_of: Callable[[Any], Any]) -> Any:
    @dsl.pipeline(name="lost")
    def lost():
        with dsl.ExitHandler(fin()), dsl.ParallelFor(["a", "b"]) as item:
            say(s=text_of(item))

    return lost


def field_of_an_item(text_of: Callable[[Any], Any]) -> Any:
    @dsl.pipeline(name="lost")
    def lost():
        with dsl.ParallelFor(dicts().output) as item:
            say(s=text_of(item.m))

    return lost


@pytest.mark.parametrize(
    ("pipeline_with", "task"),
    [
        (loop_and_if, "say"),
        (loop_in_loop, "for-loop-2"),
        (loop_in_exit_handler, "exit-handler-1"),
        (field_of_an_item, "for-loop-1"),
    ],
)
def test_refuses_an_f_string_whose_value_kfp_loses(
    pipeline_with: Callable[..., Any], task: str
) -> None:
    assert kubeflow.check(pipeline_with(lambda item: item)).name == "lost"
    with pytest.raises(
        InvalidArgumentError,
        match=f"task '{task}' in .*which is not there. kfp loses a value that an f-string uses",
    ):
        kubeflow.check(pipeline_with(lambda item: f"x-{item}"))


def test_refuses_a_raw_channel_in_a_text() -> None:
    @dsl.pipeline(name="raw")
    def raw():
        say(s=f"x-{names().output}")

    with pytest.raises(
        InvalidArgumentError, match=r"task 'say' in root .*'s' is a text .*\{\{channel:.* f-string"
    ):
        kubeflow.check(raw)


def test_refuses_a_placeholder_of_an_input_that_is_not_there(tmp_path: Path) -> None:
    @dsl.pipeline(name="lost")
    def lost(word: str = "go"):
        say(s=f"x-{word}")

    def cut(document: dict[str, Any]) -> None:
        inputs = document["root"]["dag"]["tasks"]["say"]["inputs"]["parameters"]
        del inputs["pipelinechannel--word"]

    assert kubeflow.check(compiled(lost, tmp_path)).name == "lost"
    with pytest.raises(InvalidArgumentError, match=r"task 'say' in root .*'s' is a text .*--word"):
        kubeflow.check(changed(compiled(lost, tmp_path), cut))


@pytest.mark.parametrize("field", ["trigger_policy", "dependentTasks"])
def test_refuses_what_protobuf_reads_and_a_runner_may_overlook(field: str, tmp_path: Path) -> None:
    def respell(document: dict[str, Any]) -> None:
        task = document["root"]["dag"]["tasks"]["condition-1"]
        task[field] = task.pop("triggerPolicy") if field == "trigger_policy" else None

    package = compiled(with_condition(lambda _n, _c, word, _f: word == "go"), tmp_path)
    with pytest.raises(InvalidArgumentError, match=f"spells '{field}' otherwise"):
        kubeflow.check(changed(package, respell))


def test_refuses_an_input_from_an_output_that_is_not_there(package: Path) -> None:
    def cut(document: dict[str, Any]) -> None:
        del document["components"]["comp-mk"]["outputDefinitions"]

    with pytest.raises(InvalidArgumentError, match=r"task 'rd' in .*the output '.*' of 'mk'"):
        kubeflow.check(changed(package, cut))


# Submission.


class Kubeflow(ThreadingHTTPServer):
    """Answers as Kubeflow's API server does, or as `answers` says, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, str]] = {
            "GET /apis/v2beta1/healthz": (200, '{"multi_user": false}'),
            "GET /apis/v2beta1/experiments": (200, "{}"),
            "POST /apis/v2beta1/experiments": (200, '{"experiment_id": "e-1"}'),
            "POST /apis/v2beta1/runs": (200, '{"run_id": "r-1"}'),
            "POST /apis/v2beta1/recurringruns": (200, '{"recurring_run_id": "rr-1"}'),
        }
        self.may_answer = threading.Event()
        self.may_answer.set()

    def sent(self, what: str) -> list[Any]:
        return [body for request, body, _ in self.requests if request == what]


class _Handler(BaseHTTPRequestHandler):
    server: Kubeflow

    def do_GET(self) -> None:
        url = urlsplit(self.requestline.split()[1])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        what = f"{self.command} {url.path}"
        query = parse_qs(url.query, keep_blank_values=True)
        self.server.requests.append(
            (what, json.loads(body) if body else query, dict(self.headers.items()))
        )
        self.server.may_answer.wait(60)
        status, answer = self.server.answers[what]
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if answer[:1] == "{" else "text/html")
        self.send_header("Content-Length", str(len(answer.encode())))
        self.end_headers()
        self.wfile.write(answer.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Kubeflow]:
    with Kubeflow() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


GATE = with_condition(lambda number, *_: number > 0.5)
RUNS, EXPERIMENTS = "POST /apis/v2beta1/runs", "POST /apis/v2beta1/experiments"


def test_sends_what_kfps_own_client_sends(
    package: Path, server: Kubeflow, capsys: pytest.CaptureFixture[str]
) -> None:
    package.write_text(package.read_text() + "---\nplatforms:\n  kubernetes: {}\n")
    given = {"count": 5, "word": "x"}
    with pytest.warns(FutureWarning, match="This client only works"):
        client = kfp.Client(host=server.host)
    client.create_run_from_pipeline_package(str(package), arguments=given, run_name="a run")
    made = client.create_recurring_run(
        experiment_id="e-1", job_name="nightly", cron_expression="0 30 6 * * *", no_catchup=True,
        pipeline_package_path=str(package), params=given,
    )  # fmt: skip
    assert made.recurring_run_id == "rr-1"
    health, *theirs = [(what, body) for what, body, _ in server.requests]
    assert health[0] == "GET /apis/v2beta1/healthz"
    server.requests.clear()
    capsys.readouterr()

    options: dict[str, Any] = {"host": server.host, "arguments": given}
    assert kubeflow.submit(package, run_name="a run", **options) == "r-1"
    nightly = {"cron": "0 30 6 * * *", "run_name": "nightly", **options}
    assert kubeflow.submit(package, **nightly) == "rr-1"

    ours = [(what, body) for what, body, _ in server.requests]
    assert ours[:3] == theirs[:3]
    assert ours[-1] == theirs[-1]
    assert ours[2][1]["pipeline_spec"]["platform_spec"] == {"platforms": {"kubernetes": {}}}
    assert [what for what, _ in ours[:3]] == ["GET /apis/v2beta1/experiments", EXPERIMENTS, RUNS]
    assert capsys.readouterr() == ("", "")


def test_a_recurring_run_runs_alone_and_makes_up_for_nothing(
    package: Path, server: Kubeflow
) -> None:
    kubeflow.submit(
        package, host=server.host, cron="@daily", arguments={"word": "[[ScheduledTime]]"}
    )

    (body,) = server.sent("POST /apis/v2beta1/recurringruns")
    assert (body["max_concurrency"], body["no_catchup"], body["mode"]) == (1, True, "ENABLE")
    assert body["trigger"] == {"cron_schedule": {"cron": "@daily"}}
    assert body["runtime_config"] == {"parameters": {"word": "[[ScheduledTime]]"}}
    assert body["display_name"] == "ten-tasks"


@pytest.mark.parametrize("cron", ["30 6 * * *", "", "0 30 6 * * * 2013"])
def test_refuses_a_cron_that_kubeflow_would_read_otherwise(
    package: Path, server: Kubeflow, cron: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="Kubeflow reads six, seconds first"):
        kubeflow.submit(package, host=server.host, cron=cron)

    assert server.requests == []


def test_joins_the_experiment_that_is_there(server: Kubeflow) -> None:
    server.answers["GET /apis/v2beta1/experiments"] = (
        200,
        '{"experiments": [{"experiment_id": "e-7"}]}',
    )

    kubeflow.submit(
        GATE,
        host=server.host + "/",
        experiment="flights",
        namespace="team",
        headers={"Authorization": "Bearer secret"},
    )

    asked, run = server.requests
    assert json.loads(asked[1]["filter"][0])["predicates"][0]["stringValue"] == "flights"
    assert asked[1]["namespace"] == ["team"]
    assert run[1]["experiment_id"] == "e-7"
    assert run[1]["display_name"] == "gate"
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"nobody": 1}, "'nobody'"),
        ({"count": "3"}, "'count'"),
        ({"word": 3}, "'word'"),
        ({"flag": 1}, "'flag'"),
    ],
)
def test_sends_nothing_if_an_argument_cannot_be_right(
    server: Kubeflow, arguments: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        kubeflow.submit(GATE, host=server.host, arguments=arguments)

    assert server.requests == []


def test_sends_nothing_if_an_argument_is_missing_or_the_pipeline_is_refused(
    server: Kubeflow,
) -> None:
    @dsl.pipeline(name="needs")
    def needs(word: str):
        say(s=word)

    with pytest.raises(InvalidArgumentError, match="'word'"):
        kubeflow.submit(needs, host=server.host)
    with pytest.raises(InvalidArgumentError, match="check its quotes"):
        kubeflow.submit(with_condition(lambda _n, _c, word, _f: word == "it's"), host=server.host)

    assert server.requests == []


def test_changes_no_arguments_and_sends_only_those(server: Kubeflow) -> None:
    given = {"number": 1, "count": 2.0, "word": None}
    before = copy.deepcopy(given)

    kubeflow.submit(GATE, host=server.host, arguments=given)

    assert given == before
    assert server.sent(RUNS)[0]["runtime_config"] == {"parameters": {"number": 1.0, "count": 2}}


REFUSAL = json.dumps(
    {"error": "short", "code": 3, "message": "Failed to create a run: no such root", "details": []}
)


@pytest.mark.parametrize(
    ("status", "answer", "expected", "why"),
    [
        (
            400,
            REFUSAL,
            InvalidArgumentError,
            "400 Bad Request: Failed to create a run: no such root",
        ),
        (
            404,
            '{"error": "no experiment", "code": 5}',
            NotFoundError,
            "404 Not Found: no experiment",
        ),
        (401, '{"code": 16, "message": "sign in"}', MlopsMiniError, "401 Unauthorized: sign in"),
        (403, "<html>no</html>", FailedPreconditionError, "403 Forbidden: <html>no</html>"),
        (302, "", FailedPreconditionError, "302 Found"),
        (500, "<html>oops</html>", UnavailableError, "500 Internal Server Error: <html>oops"),
        (503, '["?"]', UnavailableError, "503 Service Unavailable"),
        (200, "<html>sign in</html>", UnavailableError, "not as Kubeflow's API.*<html>sign in"),
        (200, "{}", UnavailableError, "no run_id in {}"),
        (200, "[1]", UnavailableError, "not as Kubeflow's API does"),
        (200, "", UnavailableError, "not as Kubeflow's API does"),
    ],
)
def test_keeps_the_servers_own_words(
    server: Kubeflow, status: int, answer: str, expected: type[MlopsMiniError], why: str
) -> None:
    server.answers[RUNS] = (status, answer)

    with pytest.raises(expected, match=f"POST runs at {server.host}.*{why}") as caught:
        kubeflow.submit(GATE, host=server.host)

    assert type(caught.value) is expected
    assert len(server.sent(RUNS)) == 1


def test_says_whom_it_waited_for_and_that_it_may_have_been_done(server: Kubeflow) -> None:
    server.may_answer.clear()  # for longer than the client may wait

    with pytest.raises(
        DeadlineExceededError, match=rf"GET experiments at {server.host}: no answer in 0\.2 s"
    ):
        kubeflow.submit(GATE, host=server.host, timeout_s=0.2)

    assert len(server.requests) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_there_is_named_with_a_way_out(scheme: str) -> None:
    with Kubeflow() as gone:
        host = f"{scheme}://127.0.0.1:{gone.server_port}"

    with pytest.raises(
        UnavailableError, match=f"experiments at {host}: no Kubeflow .* `kubectl port-forward"
    ):
        kubeflow.submit(GATE, host=host)


def test_tls_where_there_is_none_is_unavailable(server: Kubeflow) -> None:
    host = server.host.replace("http:", "https:")

    with pytest.raises(UnavailableError, match=f"experiments at {host}"):
        kubeflow.submit(GATE, host=host, timeout_s=5)


def test_refuses_a_host_that_is_no_url() -> None:
    with pytest.raises(InvalidArgumentError, match="'localhost:8080' must begin with http"):
        kubeflow.submit(GATE, host="localhost:8080")
    with pytest.raises(UnavailableError, match="http://no such"):
        kubeflow.submit(GATE, host="http://no such/")
