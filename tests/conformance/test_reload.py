"""HandleReloadConfigRequest, 4.7 with the texts of 5.1 and the labels of 5.6, step by step.

Only on servers of our own: a reload would take another server's models away.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.conformance import protos
from tests.conformance.grpc_cases import floats
from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.serving.servers import Server, publish_numbered, wait_until

_PLATFORM = "model_platform"


@dataclass(frozen=True)
class Reloaded:
    """A server to be reloaded; `base` holds versions 1 to 5, of which each answers its number."""

    served: Served
    base: Path

    def config(self, name: str, *versions: int, **more: Any) -> dict[str, Any]:
        """Write a ModelConfig of these versions; a field that is None is left out."""
        fields = {
            "name": name,
            "base_path": str(self.base),
            _PLATFORM: "tensorflow",
            "model_version_policy": {"specific": {"versions": list(versions)}},
            **more,
        }
        return {key: value for key, value in fields.items() if value is not None}

    def reload(self, *configs: Any, **more: Any) -> tuple[str, str, Any]:
        models = {"model_config_list": {"config": list(configs)}}
        return self.served.call("HandleReloadConfigRequest", {"config": models, **more})

    def answer(self, name: str, **target: Any) -> Any:
        """Tell which version answers, or in what words none does."""
        code, message, response = self.served.call(
            "Predict", {"model_spec": {"name": name, **target}, "inputs": {"x": floats(0)}}
        )
        return response["outputs"]["version"]["float_val"][0] if code == "OK" else message

    def states(self, name: str) -> dict[str, str]:
        response = self.served.call("GetModelStatus", {"model_spec": {"name": name}})[2]
        return {v["version"]: v["state"] for v in (response or {}).get("model_version_status", [])}

    def wait_for(self, name: str, version: int, state: str = "AVAILABLE") -> None:
        wait_until(
            lambda: self.states(name).get(str(version)) == state, f"{name} {version} {state}"
        )


StartReloaded = Callable[..., Reloaded]


@pytest.fixture
def start_reloaded(
    request: pytest.FixtureRequest, serving_protos: Protos, toy_models: Path, tmp_path: Path
) -> Iterator[StartReloaded]:
    """Starts a server without a model: `start_reloaded(*flags)`."""
    if request.config.getoption("--grpc-address", default=None):
        pytest.skip("a reload would take the models of the server at --grpc-address away")
    file = tmp_path / "models.config"
    file.write_text("model_config_list {}")
    with ExitStack() as stack:

        def start(*flags: str) -> Reloaded:
            server = Server.start(
                tmp_path, tmp_path / "server", f"--model_config_file={file}", *flags
            )
            stack.callback(server.close)
            served = Served(server.rest, server.grpc, serving_protos)
            return Reloaded(stack.enter_context(closing(served)), toy_models / "numbered")

        yield start


@dataclass(frozen=True, kw_only=True)
class Step:
    """A reload, its answer, and who answers from then on.

    `models` are arguments of `Reloaded.config`, by name; `served` maps a model, or a model and a
    label, to the version that answers or to the words in which none does.
    """

    models: dict[str, tuple[tuple[int, ...], dict[str, Any]]]
    code: str = "OK"
    message: str = ""
    served: dict[str, Any] = field(default_factory=dict)
    is_soon: bool = False  # what changes in a model that was there is not waited for


def walk(reloaded: Reloaded, steps: list[Step]) -> None:
    """Take one step after the other."""
    for number, step in enumerate(steps):
        configs = [
            reloaded.config(name, *versions, **more)
            for name, (versions, more) in step.models.items()
        ]
        code, message, _ = reloaded.reload(*configs)
        assert (number, code, message) == (number, step.code, step.message)

        def found(step: Step = step) -> dict[str, Any]:
            targets = {key: key.partition("@")[::2] for key in step.served}
            return {
                key: reloaded.answer(name, **({"version_label": label} if label else {}))
                for key, (name, label) in targets.items()
            }

        if step.is_soon:
            wait_until(lambda s=step, f=found: f() == s.served, f"step {number}: {step.served}")
        assert (number, found()) == (number, step.served)


def gone(name: str) -> str:
    return f"Servable not found for request: Latest({name})"


def labels(**versions: int) -> dict[str, Any]:
    return {"version_labels": versions}


def no_label(label: str) -> str:
    return f"Unrecognized servable version label: {label}"


def unavailable(version: int) -> str:
    return (
        f"Request to assign label to version {version} of model m, which is not currently available"
        " for inference"
    )


def test_a_reload_replaces_the_whole_set(start_reloaded: StartReloaded) -> None:
    reloaded = start_reloaded()

    walk(
        reloaded,
        [
            Step(models={"a": ((5,), {})}, served={"a": 5, "b": gone("b")}),
            Step(models={"a": ((5,), {}), "b": ((2,), {})}, served={"a": 5, "b": 2}),
            Step(models={"b": ((2,), {})}, served={"a": gone("a"), "b": 2}, is_soon=True),
            Step(models={"c": ((1, 3), {})}, served={"b": gone("b"), "c": 3}, is_soon=True),
            Step(models={"c": ((1,), {})}, served={"c": 1}, is_soon=True),
            Step(models={"c": ((1,), {})}, served={"c": 1}),
            Step(models={}, served={"c": gone("c")}, is_soon=True),
            Step(models={"a": ((4,), {})}, served={"a": 4}),
        ],
    )

    assert list(reloaded.states("a").items()) == [("5", "END"), ("4", "AVAILABLE")]
    reloaded.wait_for("c", 1, "END")  # stays listed


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ([("n", {}), ("n", {})], "Illegal to list model n multiple times in config list"),
        (
            [("n", {"base_path": "rel/x"})],
            "Expected model n to have an absolute path or URI; got base_path()=rel/x",
        ),
        (
            [("n", {"base_path": ""})],
            "Expected model n to have an absolute path or URI; got base_path()=",
        ),
        (
            [("n", {_PLATFORM: None})],
            (
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
                " ModelServerConfig::model_platform, model name is n"
            ),
        ),
        (
            [("n", {"model_type": "TENSORFLOW"})],
            (
                "Illegal setting both ModelServerConfig::model_type (deprecated) and"
                " ModelServerConfig::model_platform, model name is n"
            ),
        ),
        ([("n", {_PLATFORM: "pytorch"})], "Model n requests unsupported platform pytorch"),
        (
            [("m", {_PLATFORM: "other"})],
            (
                "Illegal to change a model's platform. For model m platform was tensorflow and new"
                " platform requested is other"
            ),
        ),
        ([("n", {"logging_config": {}})], "No request-logger-creator provided."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_served_is_refused_and_nothing_changes(
    start_reloaded: StartReloaded, models: list[tuple[str, dict[str, Any]]], text: str
) -> None:
    reloaded = start_reloaded()
    reloaded.reload(reloaded.config("m", 2))

    answer = reloaded.reload(
        reloaded.config("o", 1), *(reloaded.config(name, 1, **more) for name, more in models)
    )

    assert answer == ("INVALID_ARGUMENT", text, None)
    assert [reloaded.answer(name) for name in "mno"] == [2, gone("n"), gone("o")]


def test_only_a_list_of_models_is_taken(start_reloaded: StartReloaded) -> None:
    reloaded = start_reloaded()
    reloaded.reload(reloaded.config("m", 2))
    anything = {"@type": "type.googleapis.com/tensorflow.serving.ModelSpec"}

    for request in ({}, {"config": {}}, {"config": {"custom_model_config": anything}}):
        answer = reloaded.served.call("HandleReloadConfigRequest", request)
        assert answer == (
            "INVALID_ARGUMENT",
            (
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported"
            ),
            None,
        )
    assert reloaded.answer("m") == 2


def test_the_old_field_for_the_platform_works(start_reloaded: StartReloaded) -> None:
    reloaded = start_reloaded()

    reloaded.reload(reloaded.config("m", 2, model_platform=None, model_type="TENSORFLOW"))

    assert reloaded.answer("m") == 2


def test_strict_labels_need_an_available_version(start_reloaded: StartReloaded) -> None:
    refused = {"code": "FAILED_PRECONDITION"}
    walk(
        start_reloaded("--strict_version_labels"),
        [
            Step(
                models={"m": ((2,), labels(stable=2))},
                message=unavailable(2),
                served={"m": gone("m"), "m@stable": no_label("stable")},
                **refused,
            ),
            Step(models={"m": ((2,), {})}, served={"m": 2}),
            Step(models={"m": ((2,), labels(stable=2))}, served={"m@stable": 2}),
            Step(
                models={"m": ((2,), labels(stable=2, next=9))},
                message=unavailable(9),
                served={"m@stable": 2, "m@next": no_label("next")},
                **refused,
            ),
            Step(
                models={"m": ((1, 2), labels(stable=1)), "n": ((3,), {})},
                message=unavailable(1),
                served={"m": 2, "m@stable": 2, "n": gone("n")},
                **refused,
            ),
            # The recipe: both versions, then the labels.
            Step(
                models={"m": ((2, 3), labels(stable=2))},
                served={"m": 3, "m@stable": 2},
                is_soon=True,
            ),
            Step(
                models={"m": ((2, 3), labels(stable=3, old=2))},
                served={"m@stable": 3, "m@old": 2},
            ),
            Step(
                models={"m": ((2, 3), labels(old=2))},
                served={"m@stable": no_label("stable"), "m@old": 2, "m": 3},
            ),
            Step(models={"m": ((2, 3), {})}, served={"m@old": no_label("old")}),
        ],
    )


def test_with_the_flag_a_new_label_may_be_ahead_of_its_version_and_none_moves_there(
    start_reloaded: StartReloaded,
) -> None:
    walk(
        start_reloaded("--strict_version_labels", "--allow_version_labels_for_unavailable_models"),
        [
            Step(
                models={"m": ((2,), labels(stable=2, next=9))},
                served={
                    "m@stable": 2,
                    "m@next": "Servable not found for request: Specific(m, 9)",
                },
            ),
            Step(
                models={"m": ((2,), labels(stable=9, next=9))},
                code="FAILED_PRECONDITION",
                message=unavailable(9),
                served={"m@stable": 2},
            ),
            Step(
                models={"m": ((2,), labels(next=2, other=9))},
                served={
                    "m@stable": no_label("stable"),
                    "m@next": 2,
                    "m@other": "Servable not found for request: Specific(m, 9)",
                },
            ),
        ],
    )


def test_a_load_that_fails_fails_the_call_and_the_set_is_in_force(
    start_reloaded: StartReloaded, tmp_path: Path
) -> None:
    reloaded = start_reloaded("--max_num_load_retries=0")
    reloaded.reload(reloaded.config("m", 2))
    (tmp_path / "bad/1").mkdir(parents=True)
    (tmp_path / "bad/1/saved_model.pb").write_bytes(b"\xff")

    code, message, _ = reloaded.reload(
        reloaded.config("bad", 1, base_path=f"{tmp_path}/bad"), reloaded.config("n", 3)
    )

    assert code == "UNKNOWN"
    assert message.startswith(
        "1 model(s) did not become available: {{{name: bad version: 1} due to error: "
    )
    assert reloaded.answer("bad") == gone("bad")
    assert reloaded.answer("n") == 3
    assert reloaded.states("bad") == {"1": "END"}
    reloaded.wait_for("m", 2, "END")


def test_the_call_waits_for_each_new_model_and_another_need_not_wait_for_it(
    start_reloaded: StartReloaded, toy_models: Path, tmp_path: Path
) -> None:
    reloaded = start_reloaded()
    late, other = tmp_path / "late", reloaded.config("other", 3)
    late.mkdir()
    config = reloaded.config("late", 1, base_path=str(late))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reloaded.reload, config, other)
        wait_until(lambda: reloaded.answer("other") == 3, "the model that is there")
        second = reloaded.reload(config, other, reloaded.config("more", 2))
        assert (second[0], reloaded.answer("more")) == ("OK", 2)  # late is not new to it
        assert not first.done()

        publish_numbered(toy_models, late, 1)

        assert first.result(60)[0] == "OK"
        assert reloaded.answer("late") == 1


def test_a_call_that_waits_ends_when_its_model_is_taken_away(
    start_reloaded: StartReloaded, tmp_path: Path
) -> None:
    reloaded = start_reloaded()
    other = reloaded.config("other", 3)
    with ThreadPoolExecutor(1) as pool:
        missing = reloaded.config("missing", 1, base_path=f"{tmp_path}/missing")
        first = pool.submit(reloaded.reload, missing, other)
        wait_until(lambda: reloaded.answer("other") == 3, "the first call to be in force")

        assert reloaded.reload(other)[0] == "OK"

        assert first.result(60)[0] == "OK"


def test_a_deadline_ends_the_wait_and_the_set_is_in_force(
    start_reloaded: StartReloaded, tmp_path: Path
) -> None:
    reloaded = start_reloaded()
    call = reloaded.served.channel.unary_unary(protos.path("HandleReloadConfigRequest"))
    configs = [reloaded.config("m", 2)]
    for number in range(35):  # more than the server has threads to wait in
        configs.append(reloaded.config(f"n{number}", 1, base_path=f"{tmp_path}/missing"))
        models = {"config": {"model_config_list": {"config": configs}}}

        with pytest.raises(grpc.RpcError) as raised:
            call(reloaded.served.protos.request("HandleReloadConfigRequest", models), timeout=0.06)

        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    reloaded.wait_for("m", 2)
    assert reloaded.answer("m") == 2


def test_metrics_that_are_asked_for_are_answered(start_reloaded: StartReloaded) -> None:
    reloaded = start_reloaded()

    answer = reloaded.reload(reloaded.config("m", 2), metric_names=["/no/such", "/other"])

    increases = [{"name": n, "int64_value_increase": "0"} for n in ("/no/such", "/other")]
    assert answer == ("OK", "", {"status": {}, "metric": increases})
