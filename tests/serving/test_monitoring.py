"""The page of metrics under scrapers that misbehave, and what turns it on."""

import asyncio
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.serving import model_config
from mlops_mini.serving.http_answers import Answer
from mlops_mini.serving.models import Models
from mlops_mini.serving.monitoring import DEFAULT_PATH, Monitoring
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.server_metrics import ServerMetrics
from mlops_mini.serving.workers import Workers
from tests.serving.servers import Server, start_main

N_SCRAPERS = 8


@pytest.fixture(scope="module")
def server(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("monitored")
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    flag = f"--monitoring_config_file={folder}/monitoring.config"
    server = Server.start(toy_models / "numbered", folder / "server", flag)
    yield server
    server.close()


@pytest.fixture
def make_monitoring() -> Callable[[ServerMetrics], Monitoring]:

    def make(metrics: ServerMetrics) -> Monitoring:
        models = Models(lambda *_: pytest.fail("nothing is loaded"))
        return Monitoring(DEFAULT_PATH, metrics, models, Predictor(models.by_name, Workers(1)))

    return make


def told_at_once(count: Callable[..., None], *arguments: Any) -> None:
    count(*arguments)


def n_predicts(page: bytes) -> int:
    """Read how many predict requests have succeeded over REST."""
    marker = b'request_latency_count{model_name="m",API="predict",entrypoint="REST"} '
    return int(page.partition(marker)[2].partition(b"\n")[0] or 0)


def test_a_scraper_that_hangs_holds_up_nobody(server: Server) -> None:
    host, port = server.rest.split(":")
    before = n_predicts(server.ask("GET", DEFAULT_PATH).body)
    with socket.create_connection((host, int(port))) as hanging:
        hanging.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hanging.sendall(f"GET {DEFAULT_PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode() * 200)
        assert hanging.recv(100).startswith(b"HTTP/1.1 200 OK")  # and reads no further
        for _ in range(20):
            assert server.predict({"instances": [0]}).json == {"predictions": [5.0]}
        page = server.ask("GET", DEFAULT_PATH).body

    assert n_predicts(page) == before + 20
    assert page.endswith(b"\n")


def test_answers_stay_right_while_the_page_is_asked_for_without_a_pause(server: Server) -> None:
    is_over = threading.Event()
    pages: list[list[bytes]] = [[] for _ in range(N_SCRAPERS)]

    def scrape(number: int) -> None:
        with closing(http.client.HTTPConnection(server.rest, timeout=60)) as connection:
            while not is_over.is_set():
                connection.request("GET", DEFAULT_PATH)
                pages[number].append(connection.getresponse().read())

    threads = [threading.Thread(target=scrape, args=[number]) for number in range(N_SCRAPERS)]
    before = n_predicts(server.ask("GET", DEFAULT_PATH).body)
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert server.predict({"instances": [0]}).json == {"predictions": [5.0]}
    finally:
        is_over.set()
        for thread in threads:
            thread.join()

    for seen in pages:
        counted = [n_predicts(page) for page in seen]
        assert counted == sorted(counted)
        assert all(page.endswith(b"\n") for page in seen)
    assert n_predicts(server.ask("GET", DEFAULT_PATH).body) == before + 300


def test_pages_take_a_tenth_of_the_time_however_many_ask(
    make_monitoring: Callable[[ServerMetrics], Monitoring],
) -> None:
    busy_s, n_pages = 0.002, 0

    class SlowFamily:
        def lines(self) -> Iterator[str]:
            nonlocal n_pages
            n_pages += 1
            until_s = time.perf_counter() + busy_s
            while time.perf_counter() < until_s:
                pass
            yield f"page {n_pages}"

    async def ask() -> float:
        metrics = ServerMetrics(told_at_once)
        monitoring = make_monitoring(metrics)
        metrics.families.append(SlowFamily())  # type: ignore[arg-type]

        async def scrape() -> None:
            for _ in range(10):
                answer = await monitoring.answer(DEFAULT_PATH)
                assert answer is not None
                assert answer.body.startswith(b"page") or b"\npage" in answer.body

        began_s = time.perf_counter()
        await asyncio.gather(*[scrape() for _ in range(100)])
        return time.perf_counter() - began_s

    took_s = asyncio.run(ask())

    assert 10 <= n_pages <= 12  # a thousand answers
    assert n_pages * busy_s <= 0.1 * took_s + 2 * busy_s


def test_a_page_is_begun_after_it_was_asked_for(
    make_monitoring: Callable[[ServerMetrics], Monitoring],
) -> None:
    async def ask() -> None:
        metrics = ServerMetrics(told_at_once)
        metrics.models = {"m"}
        monitoring = make_monitoring(metrics)
        first = asyncio.ensure_future(monitoring.answer(DEFAULT_PATH))
        await asyncio.sleep(0)
        for n_asked in range(1, 20):
            metrics.rest_ended("POST", b"/v1/models/m:predict", Answer(200, {}), 0.001)
            answer = await monitoring.answer(DEFAULT_PATH)
            assert answer is not None
            assert n_predicts(answer.body) == n_asked
        await first

    asyncio.run(ask())


def test_a_stall_of_the_event_loop_is_counted(
    make_monitoring: Callable[[ServerMetrics], Monitoring],
) -> None:
    stalls = re.compile(rb"stall_seconds_(?:bucket\{le=\"0.256\"\}|count\{\}) (\d+)\n")

    async def stall() -> None:
        monitoring = make_monitoring(ServerMetrics(told_at_once))
        until_s = time.perf_counter() + 0.3
        while time.perf_counter() < until_s:
            pass
        while True:
            answer = await monitoring.answer(DEFAULT_PATH)
            assert answer is not None
            n_shorter, n_all = map(int, stalls.findall(answer.body))
            if n_all > n_shorter:
                return

    asyncio.run(asyncio.wait_for(stall(), 60))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", DEFAULT_PATH),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
        ('prometheus_config { path: "/m" }', ""),
        ("", ""),
    ],
)
def test_a_configuration_says_where_the_page_is(tmp_path: Path, text: str, path: str) -> None:
    (tmp_path / "config").write_text(text)

    assert model_config.read_monitoring(tmp_path / "config", DEFAULT_PATH) == path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prometheus_config { enabled: true }", "Invalid protobuf file: '.*/config'"),
        ("statsd_config {}", "Invalid protobuf file: '.*/config'"),
        ('prometheus_config { enable: true path: "metrics" }', "path is 'metrics', but must begin"),
        ('prometheus_config { enable: true path: "/a?b" }', "must .* have neither \\? nor #"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "config").write_text(text)

    with pytest.raises(InvalidArgumentError, match=words):
        model_config.read_monitoring(tmp_path / "config", DEFAULT_PATH)


def test_a_configuration_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"/none; No such file or directory$"):
        model_config.read_monitoring(tmp_path / "none", DEFAULT_PATH)


def test_a_server_does_not_start_with_a_broken_configuration(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("prometheus_config { enabled: true }")
    flags = ["--port=0", f"--address_file={tmp_path}/a", f"--model_base_path={tmp_path}"]
    process = start_main([*flags, f"--monitoring_config_file={tmp_path}/config"], tmp_path / "log")
    process.join(60)

    assert process.exitcode == 255
    said = (tmp_path / "log").read_text()
    assert "Error parsing text-format tensorflow.serving.MonitoringConfig: 1:2" in said
    assert "INVALID_ARGUMENT: Invalid protobuf file: " in said
    assert not (tmp_path / "a").exists()


def test_without_a_configuration_there_is_no_page(toy_server: Server) -> None:
    assert toy_server.ask("GET", DEFAULT_PATH).status == 404


def test_runs_that_nobody_asks_about_take_no_memory() -> None:
    metrics = ServerMetrics(told_at_once)
    runs = metrics.runs("m", 1, "serving_default")

    for _ in range(1000):
        runs.ran_apart(1, time.perf_counter())

    assert len(metrics.noted) < 256
    metrics.count_noted()
    assert runs.n_requests.value == 1000
