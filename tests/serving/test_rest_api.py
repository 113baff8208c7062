"""Routes, asked of a real server."""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.models import write_half_plus_two
from tests.serving.servers import Server, run_in_child

StartServer = Callable[..., Server]

PREDICT = "/v1/models/m:predict"
BODY = json.dumps({"instances": [1.0, 2.0]})
PREDICTED = {"predictions": [2.5, 3.0]}
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}


@pytest.fixture(scope="module")
def examples_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("examples")
    run_in_child(write_half_plus_two, str(folder / "m/1"), log_file=folder / "log")
    server = Server.start(folder / "m", folder / "server")
    server.wait_for(1)
    yield server
    server.close()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v2/models/m",
        "/v1models",
        "/metrics",
        "/healthz/",
        "/readyz?x",
        "//v1/models/m",
    ],
)
def test_what_is_no_route_is_the_page_of_libevent(toy_server: Server, path: str) -> None:
    answer = toy_server.ask("GET", path)

    assert answer.status == 404
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["connection"] == "close"
    assert answer.body == (
        b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n"
        b"</BODY></HTML>\n"
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/m:predict"),
        ("GET", "/v1/models/m/versions/x"),
        ("GET", "/v1/models/m/versions/1/labels/x"),
        ("GET", "/v1/models/m/metadata/"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", "/v1/models/m:predict?x=1"),
        ("POST", "/v1/models/m:predict#x"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/a/b:predict"),
        ("PUT", "/v1/models/m:predict"),
        ("DELETE", "/v1/models/m"),
        ("PATCH", "/v1/models/m:predict"),
    ],
)
def test_a_malformed_request_is_told_back(toy_server: Server, method: str, path: str) -> None:
    answer = toy_server.ask(method, path, BODY)

    assert answer.status == 400
    assert (
        answer.body
        == json.dumps({"error": f"Malformed request: {method} {path}"}, indent=4).encode()
    )
    assert answer.headers["content-type"] == "application/json"


def test_head_is_malformed_and_has_no_body(toy_server: Server) -> None:
    answer = toy_server.ask("HEAD", "/v1/models/m")

    assert (answer.status, answer.body) == (400, b"")


def test_without_a_name_there_is_nothing_to_tell(toy_server: Server) -> None:
    answer = toy_server.ask("GET", "/v1/models")

    assert answer.status == 400
    assert answer.json == {"error": "Missing model name in request."}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/m:predict",
        "/V1/MODELS/m:predict",
        "/v1/models/m/versions/1:predict",
        "/v1/models/m/versions/0001:predict",
        "/v1/models/%6D:predict",
        "http://any.host:80/v1/models/m:predict",
    ],
)
def test_ways_to_predict(toy_server: Server, path: str) -> None:
    answer = toy_server.ask("POST", path, BODY)

    assert (answer.status, answer.json) == (200, PREDICTED)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("GET", "/v1/models/a%20b%2Fc", 404, "Could not find any versions of model a b/c"),
        ("GET", "/v1/models/%C3%A9", 404, "Could not find any versions of model é"),
        ("GET", "/v1/models/m/versions/9", 404, "Could not find version 9 of model m"),
        ("GET", "/v1/models/zz/metadata", 404, "Servable not found for request: Latest(zz)"),
        (
            "GET", "/v1/models/m/labels/x/metadata", 400,
            "Unrecognized servable version label: x",
        ),
        (
            "POST", "/v1/models/m/versions/9223372036854775807:predict", 404,
            "Servable not found for request: Specific(m, 9223372036854775807)",
        ),
        (
            "POST", "/v1/models/m/labels/a%2Fb:predict", 400,
            "Unrecognized servable version label: a/b",
        ),
    ],
)  # fmt: skip
def test_names_are_decoded_after_the_match(
    toy_server: Server, method: str, path: str, status: int, text: str
) -> None:
    answer = toy_server.ask(method, path, BODY if method == "POST" else None)

    assert (answer.status, answer.json["error"]) == (status, text)


def test_bytes_that_are_no_utf_8_come_back_as_they_were(toy_server: Server) -> None:
    answer = toy_server.ask("GET", "/v1/models/%FF%00")

    assert answer.status == 404
    assert b"of model \xff\\u0000" in answer.body


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 5000])
def test_a_version_over_int64_is_refused_without_a_body(toy_server: Server, number: str) -> None:
    for method, end in (("GET", ""), ("GET", "/metadata"), ("POST", ":predict")):
        answer = toy_server.ask(method, f"/v1/models/m/versions/{number}{end}", "")

        assert (answer.status, answer.body) == (400, b"")
        assert answer.headers["content-length"] == "0"


def test_a_status_ignores_the_label(toy_server: Server) -> None:
    answer = toy_server.ask("GET", "/v1/models/m/labels/no%20such")

    assert answer.status == 200
    assert answer.json["model_version_status"][0]["state"] == "AVAILABLE"


@pytest.mark.parametrize(
    ("verb", "body", "hint"),
    [
        ("predict", {"signature_name": "regress_x_to_y", "inputs": ["text"]}, "use :regress with"),
        ("classify", {"examples": [{"x": 2}]}, "made for classify: classify_x_to_y; numbers of"),
        ("regress", {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}, "made for "),
    ],
)
def test_who_asks_with_examples_wrongly_is_told_how(
    examples_server: Server, verb: str, body: dict[str, Any], hint: str
) -> None:
    answer = examples_server.ask("POST", f"/v1/models/m:{verb}", json.dumps(body))

    assert answer.status == 400
    assert hint in answer.json["hint"]


def test_an_error_ends_with_a_hint(toy_server: Server) -> None:
    answer = toy_server.ask("POST", PREDICT, '{"instances": ["text"]}')

    assert answer.status == 400
    assert list(answer.json) == ["error", "hint"]
    assert answer.body.startswith(b'{\n    "error": "Failed to process element: 0 of')


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("POST", "/v1/models/n:predict", 404, "models here: m"),
        ("GET", "/v1/models/n", 404, "models here: m"),
        ("GET", "/v1/models/n/metadata", 404, "models here: m"),
        ("POST", "/v1/models/m/versions/9:predict", 404, "versions of m that answer: 1"),
        ("POST", "/v1/models/m/labels/canary:predict", 400, "versions of m that answer: 1"),
        ("POST", "/v1/models/n/labels/canary:predict", 400, "models here: m"),
    ],
)
def test_what_is_not_there_has_a_hint_at_what_is(
    toy_server: Server, method: str, path: str, status: int, hint: str
) -> None:
    answer = toy_server.ask(method, path, BODY if method == "POST" else None)

    assert (answer.status, answer.json["hint"]) == (status, hint)


def test_content_type_and_accept_count_for_nothing(toy_server: Server) -> None:
    headers = {"Content-Type": "text/plain", "Accept": "image/png", "Accept-Encoding": "gzip"}
    answer = toy_server.ask("POST", PREDICT, BODY, headers)

    assert answer.json == PREDICTED
    assert "content-encoding" not in answer.headers


EMPTY = {"error": "JSON Parse error: The document is empty"}
BIG_BODY = json.dumps({"instances": [1.0, 2.0], "padding": "x" * 10_000_000})


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", gzip.compress(BODY.encode(), mtime=0), PREDICTED),
        ("x-gzip, identity", gzip.compress(BODY.encode(), mtime=0), PREDICTED),
        ("gzip", gzip.compress(BIG_BODY.encode(), mtime=0), PREDICTED),
        ("deflate", BODY, PREDICTED),
        ("gzip", BODY, EMPTY),
        ("gzip", gzip.compress(BODY.encode(), mtime=0)[:-9], EMPTY),
        ("gzip", gzip.compress(b" " * (100 * 2**20 + 1), 1, mtime=0), EMPTY),
    ],
    ids=["whole", "named among others", "large", "not gzip", "no gzip", "cut", "a bomb"],
)
def test_gzip(toy_server: Server, encoding: str, body: bytes | str, expected: Any) -> None:
    answer = toy_server.ask("POST", PREDICT, body, {"Content-Encoding": encoding})

    assert {key: answer.json[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://a.example", 200), ("https://a.example", 200), ("null", 400), (None, 400)],
)
def test_a_preflight_is_answered_without_cors_headers(
    toy_server: Server, origin: str | None, status: int
) -> None:
    answer = toy_server.ask("OPTIONS", PREDICT, headers={"Origin": origin} if origin else {})

    assert (answer.status, answer.body) == (status, b"")
    assert answer.headers["content-type"] == "text/html; charset=ISO-8859-1"
    assert not CORS.keys() & answer.headers.keys()


def test_trace_is_not_implemented(toy_server: Server) -> None:
    answer = toy_server.ask("TRACE", PREDICT)

    assert answer.status == 501
    assert b"<H1>Not Implemented</H1>" in answer.body


def test_cors_headers_are_on_every_answer_of_v1(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "toy", "--rest_api_enable_cors_support")
    server.wait_for(1)

    for method, path, status in (
        ("POST", PREDICT, 200),
        ("GET", "/v1/models/m", 200),
        ("GET", "/v1/models/zz", 404),
        ("PUT", "/v1/models/m", 400),
        ("OPTIONS", PREDICT, 400),
    ):
        answer = server.ask(method, path, BODY if method == "POST" else None)
        assert answer.status == status
        assert CORS.items() <= dict(answer.headers).items()
    for path in ("/healthz", "/readyz"):
        assert not CORS.keys() & server.ask("GET", path).headers.keys()


def test_healthz_and_readyz(toy_server: Server) -> None:
    assert toy_server.ask("GET", "/healthz").json == {"status": "ok"}
    ready = toy_server.ask("GET", "/readyz")
    version = {"1": {"state": "AVAILABLE"}}
    model = {"ready": True, "versions": version, "labels": {}}
    assert (ready.status, ready.json) == (200, {"ready": True, "models": {"m": model}})
    assert toy_server.ask("HEAD", "/readyz").body == b""
    assert toy_server.ask("POST", "/healthz").status == 404


def test_readyz_tells_versions_labels_and_what_is_wrong_by_model(
    start_server: StartServer, toy_models: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_models / "numbered", tmp_path / "m")
    (tmp_path / "m" / "5" / "saved_model.pb").write_bytes(b"no graph")
    (tmp_path / "m" / "6").mkdir()
    file = tmp_path / "models.config"
    file.write_text(
        f"""model_config_list {{
          config {{
            name: "m" base_path: "{tmp_path}/m" model_platform: "tensorflow"
            model_version_policy {{ latest {{ num_versions: 2 }} }}
            version_labels {{ key: "stable" value: 4 }} version_labels {{ key: "next" value: 7 }}
          }}
          config {{ name: "late" base_path: "{tmp_path}/none" model_platform: "tensorflow" }}
        }}"""
    )

    answer = start_server(tmp_path, f"--model_config_file={file}").ask("GET", "/readyz")

    assert (answer.status, answer.json["ready"]) == (503, False)
    late, m = answer.json["models"]["late"], answer.json["models"]["m"]
    assert late == {
        "ready": False,
        "reason": f"Could not find base path {tmp_path}/none for servable late with error"
        " NOT_FOUND: No such file or directory",
        "versions": {},
        "labels": {},
    }
    assert m["ready"] is True
    assert "reason" not in m
    assert m["labels"] == {"next": {"version": None, "waits_for": 7}, "stable": {"version": 4}}
    broken = m["versions"].pop("5")
    assert broken["state"] == "LOADING"  # it is tried again
    assert broken["error"].startswith("Can't parse ")
    assert m["versions"] == {
        "6": {"state": "START", "waits": "it is an empty folder"},
        "4": {"state": "AVAILABLE"},
        "3": {"state": "AVAILABLE"},
    }


def test_nothing_over_rest_changes_what_is_served(toy_server: Server, toy_models: Path) -> None:
    config = json.dumps({"name": "b", "base_path": str(toy_models / "numbered")})
    headers = {"Content-Type": "application/json"}

    for method, path in (("POST", "/admin/models"), ("DELETE", "/admin/models/m"),
                         ("POST", "/readyz"), ("POST", "/v1/models")):  # fmt: skip
        assert toy_server.ask(method, path, config, headers).status in (400, 404)
    assert list(toy_server.ask("GET", "/readyz").json["models"]) == ["m"]


def test_a_large_body_stops_nobody_while_it_is_read(toy_server: Server) -> None:
    body = '{"inputs":[' + "Inf," * 1_000_000 + "1]}"  # Inf is read the slow way
    n_meanwhile = 0
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(toy_server.predict, body)
        while not large.done():
            assert toy_server.ask("GET", "/healthz").status == 200
            n_meanwhile += 1

    assert large.result().status == 200
    assert n_meanwhile > 20
