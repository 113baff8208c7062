"""SageMaker's routes: what AWS's own container answers, but for two faults."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import sagemaker_routes
from tests.serving.servers import Server

JSON, LINES, SEVERAL, CSV = (
    "application/json", "application/jsonlines", "application/jsons", "text/csv",
)  # fmt: skip


@pytest.mark.parametrize(
    ("content_type", "body", "converted"),
    [
        (JSON, '{"instances": [1]}', '{"instances": [1]}'),
        (JSON, '{"inputs" : 1}', '{"inputs" : 1}'),
        (JSON, '{"examples": [{"x": 1}]}', '{"examples": [{"x": 1}]}'),
        (JSON, "[1,2,3]", '{"instances":[[1,2,3]]}'),
        (JSON, " [ [1,2],[3,4]]\n", '{"instances":[ [1,2],[3,4]]}'),
        (JSON, '{"x":1}', '{"instances":[{"x":1}]}'),
        (JSON, '{"x":1}\n{"x":2}\n', '{"instances":[{"x":1},{"x":2}]}'),
        (JSON, "9007199254740993", '{"instances":[9007199254740993]}'),
        (LINES, "1\n2\r\n\n3", '{"instances":[1,2,3]}'),
        (LINES, "[1,2]\n[3,4]", '{"instances":[[1,2],[3,4]]}'),
        (LINES, '["a\\n"]', '{"instances":[["a\\n"]]}'),
        (SEVERAL, '{"x":1} {"x":2}', '{"instances":[{"x":1},{"x":2}]}'),
        (SEVERAL, '{"x":1}{"x":2}', '{"instances":[{"x":1},{"x":2}]}'),
        (CSV, "1.0,2.0\n3.0,4.0", '{"instances":[[1.0,2.0],[3.0,4.0]]}'),
        (CSV, "1.0, 2.0\r\n\r\n-3e-1,NaN\r\n", '{"instances":[[1.0,2.0],[-3e-1,NaN]]}'),
        (CSV, "1\n2", '{"instances":[1,2]}'),
        (CSV, "a,b,c", '{"instances":[["a","b","c"]]}'),
        (CSV, "a,1,", '{"instances":[["a","1",""]]}'),
        (CSV, '"a, ""b""",1', '{"instances":[["a, \\"b\\"",1]]}'),
        (CSV, '"a\nb",c\nd,"1"', '{"instances":[["a\\nb","c"],["d","1"]]}'),
        (CSV, "é", '{"instances":["é"]}'),
    ],
)
def test_bodies_become_predict_requests(content_type: str, body: str, converted: str) -> None:
    assert sagemaker_routes.convert(content_type, body.encode()).decode() == converted


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        (JSON, "", "the body is empty: send at least one JSON value"),
        (LINES, " \n ", "the body is empty: send at least one JSON value"),
        (JSON, "[1,", "no JSON at offset 3: ''"),
        (LINES, "1\nx y", "no JSON at offset 2: 'x y'"),
        (JSON, "[" * 100_000, f"no JSON at offset 0: '{'[' * 20}'"),
        (CSV, "\n", "the body is empty: send at least one row of CSV"),
        (CSV, "1,2\n\n3", "rows 1 and 2 differ in length: 2 and 1 values"),
        (CSV, "1,2\n3,x", "row 2, column 2: 'x' is no number"),
        (CSV, "1,", "row 1, column 2: '' is no number"),
        (CSV, "nan", "row 1, column 1: 'nan' is no number, such as 0.5, 1e-3 or NaN"),
        (CSV, '1\n"a', "row 2, column 1: a quote isn't closed, or has text beside it"),
        (CSV, 'a,"b"c', "row 1, column 2: a quote isn't closed, or has text beside it"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(content_type: str, body: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        sagemaker_routes.convert(content_type, body.encode())

    assert words in str(raised.value)


def test_a_long_run_of_spaces_or_quotes_takes_no_longer_than_its_length() -> None:
    for body in (b" " * 10**6 + b'"', b'"' * (10**6 + 1), b'"' + b' ""' * 10**5):
        with pytest.raises(InvalidArgumentError, match="a quote"):
            sagemaker_routes.convert(CSV, body)


@pytest.fixture(scope="module")
def server(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sagemaker")
    metrics = folder / "monitoring.config"
    metrics.write_text("prometheus_config { enable: true }")
    flags = ("--sagemaker_model=m", f"--monitoring_config_file={metrics}")
    server = Server.start(toy_models / "toy", folder / "server", *flags)
    server.wait_for(1)
    yield server
    server.close()


def test_ping_is_200_and_empty_while_a_version_answers(server: Server) -> None:
    answer = server.ask("GET", "/ping")

    assert (answer.status, answer.body) == (200, b"")


def test_ping_is_502_without_a_version(start_server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    server = start_server(tmp_path / "m", "--sagemaker_model=m")

    assert server.ask("GET", "/ping").status == 502
    answer = server.ask("POST", "/invocations", "1", {"Content-Type": CSV})
    assert (answer.status, answer.json["error"]) == (
        404, "Servable not found for request: Latest(m)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, '{"instances": [1, 2]}'),
        (LINES, "1\n2"),
        (SEVERAL, "1 2"),
        (CSV, "1\n2.0\n"),
        (CSV, "1\n2" + "\n" * 300_000),  # converted on a thread
        (CSV, "1\n2" + "\n" * 5_000_000),  # converted by another process
    ],
)
def test_every_format_is_answered_alike(server: Server, content_type: str, body: str) -> None:
    answer = server.ask("POST", "/invocations", body, {"Content-Type": content_type})

    assert (answer.status, answer.json) == (200, {"predictions": [2.5, 3.0]})
    assert answer.headers["content-type"] == JSON


def test_nan_is_passed_on(server: Server) -> None:
    answer = server.ask("POST", "/invocations", "NaN\n1", {"Content-Type": CSV})

    assert answer.status == 200
    assert b"NaN" in answer.body


def test_an_answer_in_one_line_for_those_who_read_lines(server: Server) -> None:
    headers = {"Content-Type": LINES, "Accept": LINES}
    answer = server.ask("POST", "/invocations", "1\n2", headers)

    assert json.loads(answer.body) == {"predictions": [2.5, 3.0]}
    assert b"\n" not in answer.body
    assert answer.headers["content-type"] == LINES


@pytest.mark.parametrize("content_type", ["image/png", "application/json; charset=utf-8", ""])
def test_an_unknown_content_type_is_415(server: Server, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = server.ask("POST", "/invocations", "1", headers)

    assert answer.status == 415
    assert answer.json["error"] == f"Unsupported Media Type: {content_type or 'Unknown'}"
    assert "text/csv" in answer.json["hint"]


@pytest.mark.parametrize(
    ("attributes", "status", "said"),
    [
        ("tfs-model-version=1", 200, [2.5]),
        ("c=d,tfs-model-name=m,tfs-model-version=1,tfs-method=predict", 200, [2.5]),
        ("tfs-model-version=9", 404, "Servable not found for request: Specific(m, 9)"),
        ("tfs-model-name=a/b", 404, "Servable not found for request: Latest(a/b)"),
        ("tfs-method=explain", 400, "Malformed request: POST /v1/models/m:explain"),
    ],
)
def test_a_header_chooses_model_version_and_method(
    server: Server, attributes: str, status: int, said: object
) -> None:
    headers = {"Content-Type": CSV, "X-Amzn-SageMaker-Custom-Attributes": attributes}
    answer = server.ask("POST", "/invocations", "1", headers)

    assert answer.status == status
    assert answer.json["predictions" if status == 200 else "error"] == said


def test_the_body_is_what_is_wrong_not_the_server(server: Server) -> None:
    for body, status in (("", 400), ("1,2\n3", 400), ("a", 400)):
        assert server.ask("POST", "/invocations", body, {"Content-Type": CSV}).status == status
    assert server.ask("GET", "/ping").status == 200


def test_invocations_are_counted_as_the_requests_that_they_are(server: Server) -> None:
    def succeeded() -> float:
        page = server.ask("GET", "/monitoring/prometheus/metrics").body.decode()
        line = ':tensorflow:serving:request_count{model_name="m",status="OK"} '
        return float(page.partition(line)[2].partition("\n")[0] or 0)

    before = succeeded()
    server.ask("POST", "/invocations", "1", {"Content-Type": CSV})

    assert succeeded() == before + 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/ping"), ("POST", "/invocations")])
def test_without_the_flag_there_are_no_such_routes(
    toy_server: Server, method: str, path: str
) -> None:
    assert toy_server.ask(method, path).status == 404


def test_tensorflow_servings_routes_stay(server: Server) -> None:
    assert server.predict({"instances": [1.0]}).json == {"predictions": [2.5]}
    assert server.ask("GET", "/invocations").status == 404
    assert server.ask("GET", "/readyz").status == 200
