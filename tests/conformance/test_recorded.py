"""Our server answers what TensorFlow Serving answered; the rules are in recorded/README.md."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.serving.servers import Server

_FOLDER = Path(__file__).parent / "recorded"
_HALF_PLUS_TWO = "half_plus_two (TFS test data)"
# Where texts begin that only TensorFlow can word: a node, a printed SignatureDef.
_WORDED = re.compile(r"\n\t \[\[\{\{node|(?<=SignatureDef: )|(?<=Signature was: )")


def _rows(name: str) -> list[Any]:
    return [json.loads(line) for line in (_FOLDER / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def recorded(
    table_models: Path, serving_protos: Protos, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Gives the server of a model with flags, both named m: started once, when first asked."""
    started: dict[tuple[str, ...], Served] = {}
    with ExitStack() as stack:

        def give(model: str, *flags: str) -> Served:
            if (model, *flags) not in started:
                folder = tmp_path_factory.mktemp("recorded")
                server = Server.start(table_models / model, folder, *flags)
                stack.callback(server.close)
                server.wait_for(123 if model == "half_plus_two" else 1)
                served = Served(server.rest, server.grpc, serving_protos)
                started[model, *flags] = stack.enter_context(closing(served))
            return started[model, *flags]

        yield give


def _bytes(body: dict[str, str] | None) -> bytes | None:
    if body is None:
        return None
    return base64.b64decode(body["b64"]) if "b64" in body else body["text"].encode()


def _parsed(body: bytes) -> Any:
    """Parse what is JSON, as text again so that NaN equals itself; give back what is not."""
    try:
        parsed = json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError:
        return body
    if isinstance(parsed, dict) and "error" in parsed:
        parsed.pop("hint", None)
        parsed["error"] = _WORDED.split(parsed["error"])[0]
    return json.dumps(parsed, sort_keys=True)


@pytest.mark.parametrize(
    "row", _rows("rest.jsonl"), ids=lambda row: f"{row['section']} {row['path']}"
)
def test_a_recorded_rest_exchange_is_answered_alike(recorded: Any, row: Any) -> None:
    is_example = row["section"] == "classify/regress"
    served = recorded("half_plus_two" if is_example else "m")

    answer = served.ask(
        row["method"], row["path"], _bytes(row["request_body"]), row["request_headers"]
    )

    expected = _bytes(row["body"]) or b""
    assert _parsed(answer.body) == _parsed(expected)
    assert (answer.status, answer.reason) == (row["status"], row["reason"])
    expected_headers = {**row["headers"], "Content-Length": str(len(answer.body))}
    for name, value in expected_headers.items():
        assert answer.headers[name.lower()] == value


@pytest.mark.parametrize(
    "row",
    _rows("grpc.jsonl"),
    ids=lambda row: f"{row['method']} {row['code']}",
)
def test_a_recorded_call_is_answered_alike(recorded: Any, row: Any) -> None:
    name, *flags = row["model"].split(" --")
    served = recorded(
        "half_plus_two" if name == _HALF_PLUS_TWO else "m", *(f"--{flag}" for flag in flags)
    )

    code, message, response = served.call(row["method"], row["request"])

    assert (code, _WORDED.split(message)[0]) == (row["code"], _WORDED.split(row["message"])[0])
    if row["method"] == "GetModelMetadata" and response:
        response.pop("metadata")
    assert response == row["response"]
