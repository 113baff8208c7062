"""Metrics as sections of TensorFlow Serving's documentation and its sources have them.

What needs promtool or Prometheus itself is skipped where Debian's package isn't installed.
"""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conformance import models
from tests.conformance.grpc_cases import ONE, X, spec
from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.serving.servers import Server, copy_version, free_ports, run_in_child, wait_until
from tools import dashboard

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PATH = "/monitoring/prometheus/metrics"
# Word for word from https://www.tensorflow.org/tfx/serving/serving_config#monitoring_configuration
CONFIG = """prometheus_config {
  enable: true,
  path: "/monitoring/prometheus/metrics"
}
"""
promtool = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="promtool and prometheus aren't installed: apt-get install prometheus",
)
# Names after the prefix :tensorflow:, types, labels and limits of buckets.
REFERENCE: dict[str, tuple[str, tuple[str, ...], int]] = {
    "serving:request_count": ("counter", ("model_name", "status"), 0),
    "serving:request_latency": ("histogram", ("API", "entrypoint", "model_name"), 33),
    "serving:runtime_latency": ("histogram", ("API", "model_name", "runtime"), 33),
    "serving:request_example_counts": ("histogram", ("model",), 15),
    "serving:request_example_count_total": ("counter", ("model",), 0),
    "serving:model_warmup_latency": ("histogram", ("model_path", "status"), 33),
    "serving:model_warmup_records_read": ("counter", ("model_path", "status"), 0),
    "serving:batching_session:queuing_latency": ("histogram", ("thread_pool_name",), 52),
    "serving:batching_session:wrapped_run_count": ("counter", (), 0),
    "serving:batching_session:input_batch_size": ("histogram", (), 14),
    "serving:batching_session:processed_batch_size": ("histogram", (), 14),
    "serving:batching_session:padding_size": ("histogram", ("execution_batch_size",), 14),
    "serving:request_log_count": ("counter", ("model_name", "status_code"), 0),
    "serving:mlmd_map": ("gauge", ("model_name", "version"), 0),
    "cc:saved_model:load_attempt_count": ("counter", ("model_path", "status"), 0),
    "cc:saved_model:load_latency": ("counter", ("model_path",), 0),
    "core:graph_runs": ("counter", (), 0),
    "core:graph_run_time_usecs": ("counter", (), 0),
}
LATENCIES_US = [
    "10", "18", "32.4", "58.32", "104.976", "188.957", "340.122", "612.22", "1102", "1983.59",
    "3570.47", "6426.84", "11568.3", "20823", "37481.3", "67466.4", "121440", "218591", "393464",
    "708235", "1.27482e+06",
]  # fmt: skip


@dataclass(frozen=True)
class Monitored:
    """A server that has been asked for everything that is counted, and its page after it."""

    server: Server
    served: Served
    page: str

    def value(self, name: str, **labels: str) -> float:
        """Read one sample of the page."""
        return sample(self.page, name, **labels)


def sample(page: str, name: str, **labels: str) -> float:
    """Read one sample of a page; 0 if it isn't there. The parser adds `_total` to counters."""
    found = [
        s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
        if s.name in (name, f"{name}_total") and labels.items() <= s.labels.items()
    ]
    assert len(found) <= 1, (name, labels, found)
    return found[0] if found else 0


@pytest.fixture(scope="module")
def monitored(
    table_models: Path,
    toy_models: Path,
    serving_protos: Protos,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitored")
    copy_version(table_models / "half_plus_two" / "00000123", folder / "m" / "123")
    (folder / "m" / "broken").mkdir()
    (folder / "m" / "122").mkdir()
    (folder / "m" / "122" / "saved_model.pb").write_bytes(b"no model")
    log = {"predict_log": {"request": {"model_spec": spec("m"), "inputs": X}}}
    record = serving_protos.message("PredictionLog", log).SerializeToString()
    extra = folder / "m" / "123" / "assets.extra"
    extra.mkdir()
    file = extra / "tf_serving_warmup_requests"
    run_in_child(models.write_records, str(file), [record] * 3, log_file=folder / "log")
    (folder / "monitoring.config").write_text(CONFIG)
    (folder / "models.config").write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{folder}/m"'
        ' model_platform: "tensorflow" model_version_policy { all {} }'
        ' version_labels { key: "stable" value: 123 }'
        f' logging_config {{ log_collector_config {{ filename_prefix: "{folder}/requests/m" }}'
        " sampling_config { sampling_rate: 1 } } }"
        f' config {{ name: "numbered" base_path: "{toy_models}/numbered"'
        ' model_platform: "tensorflow" } }'
    )
    server = Server.start(
        folder / "unused",
        folder / "server",
        f"--model_config_file={folder}/models.config",
        f"--monitoring_config_file={folder}/monitoring.config",
    )
    with closing(server), closing(Served(server.rest, server.grpc, serving_protos)) as served:
        server.wait_for(123)
        ask_everything(served)
        page = served.ask("GET", PATH)
        assert (page.status, page.headers["content-type"]) == (200, "text/plain")
        yield Monitored(server, served, page.body.decode())


def ask_everything(served: Served) -> None:
    """Ask often enough, and at the same time, that there are batches; then in all other ways."""
    body = '{"instances": [1.0, 2.0]}'
    for _ in range(30):
        assert served.ask("POST", "/v1/models/m:predict", body).status == 200
    call = served.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    request = served.protos.request("Predict", {"model_spec": spec("numbered"), "inputs": X})

    def are_batched() -> bool:
        for waiting in [call.future(request, timeout=60) for _ in range(64)]:
            waiting.result()
        return b"batching_session:wrapped_run_count" in served.ask("GET", PATH).body

    wait_until(are_batched, "requests that run together")
    for _ in range(2):
        assert served.ask("POST", "/v1/models/m/labels/stable:predict", body).status == 200
        regress = {"model_spec": spec("m", "regress_x_to_y"), "input": ONE}
        assert served.call("Regress", regress)[0] == "OK"
        classify = {"model_spec": spec("m", "classify_x_to_y"), "input": ONE}
        assert served.call("Classify", classify)[0] == "OK"
        regress_body = '{"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}'
        assert served.ask("POST", "/v1/models/m:regress", regress_body).status == 200
        task = {
            "model_spec": spec("m", "regress_x_to_y"),
            "method_name": "tensorflow/serving/regress",
        }
        assert served.call("MultiInference", {"tasks": [task], "input": ONE})[0] == "OK"
        assert served.ask("GET", "/v1/models/m").status == 200
        assert served.ask("GET", "/v1/models/m/metadata").status == 200
        assert served.ask("POST", "/v1/models/m:predict", "no JSON").status == 400
        assert served.call("Predict", {"model_spec": spec("m", "zz")})[0] == "FAILED_PRECONDITION"
    for number in range(50):
        assert served.ask("POST", f"/v1/models/zz{number}:predict", body).status == 404
        assert served.call("Predict", {"model_spec": spec(f"zz{number}")})[0] == "NOT_FOUND"
    assert served.ask("PUT", "/v1/nothing").status == 400


def families(page: str) -> dict[str, str]:
    """Return the type of each family of a page."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))


def declared_missing() -> set[str]:
    """List the families that docs/model-server.md says are not there."""
    page = (ROOT / "docs" / "model-server.md").read_text()
    section = page.partition("## Metrics\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `:tensorflow:(\S+)` \| none", section, re.MULTILINE))


def test_each_family_of_the_reference_is_there_or_declared(monitored: Monitored) -> None:
    exposed = families(monitored.page)

    missing = {name for name in REFERENCE if f":tensorflow:{name}" not in exposed}

    assert missing == declared_missing() == {"serving:mlmd_map"}
    assert all(name.startswith(("mlops_mini_", ":tensorflow:")) for name in exposed)


@pytest.mark.parametrize("name", REFERENCE)
def test_types_labels_and_buckets_are_those_of_the_reference(
    monitored: Monitored, name: str
) -> None:
    if name in declared_missing():
        return
    kind, labels, n_limits = REFERENCE[name]
    full_name = f":tensorflow:{name}"
    suffix = "_count" if kind == "histogram" else ""
    given = re.findall(rf"^{full_name}{suffix}\{{(.*)\}} ", monitored.page, re.MULTILINE)
    limits = re.findall(rf"^{full_name}_bucket\{{.*le=\"(.*)\"\}} ", monitored.page, re.MULTILINE)

    assert families(monitored.page)[full_name] == kind
    assert given
    for text in given:
        assert tuple(sorted(re.findall(r'(\w+)="', text))) == labels
    per_series = len(limits) // len(given)
    assert per_series == (n_limits + 1 if n_limits else 0)
    if n_limits == 33:
        assert limits[: len(LATENCIES_US)] == LATENCIES_US
        assert limits[32:34] == ["1.47476e+09", "+Inf"]


def test_each_logged_request_counts_once_its_record_is_written(monitored: Monitored) -> None:
    n_predicts, n_others = 30 + 2, 4 * 2  # others by Regress, Classify, MultiInference, :regress
    line = ':tensorflow:serving:request_log_count{model_name="m",status_code="OK"}'

    def are_written() -> bool:
        page = monitored.served.ask("GET", PATH).body.decode()
        return f"{line} {n_predicts + n_others}" in page.split("\n")

    wait_until(are_written, "records of all requests")


def test_the_numbers_are_those_of_the_requests(monitored: Monitored, toy_models: Path) -> None:
    serving = ":tensorflow:serving:"
    count = f"{serving}request_count"
    latency = f"{serving}request_latency_count"
    n_predicts = 30 + 2
    n_calls = monitored.value(latency, model_name="numbered", entrypoint="GRPC", API="Predict")
    n_gets = monitored.value(latency, model_name="m", API="")

    assert monitored.value(latency, API="predict") == n_predicts
    assert n_calls % 64 == 0 < n_calls
    assert monitored.value(latency, API="regress", entrypoint="REST") == 2
    assert monitored.value(latency, API="Regress") == monitored.value(latency, API="Classify") == 2
    assert n_gets >= 2 * 2
    ok = monitored.value(count, model_name="m", status="OK")
    assert ok == n_predicts + 3 * 2 + n_gets
    assert monitored.value(count, model_name="m", status="INVALID_ARGUMENT") == 2
    assert monitored.value(count, model_name="m", status="FAILED_PRECONDITION") == 2
    # Names that nobody has configured are one series: 50 over each edge.
    assert monitored.value(count, model_name="(unknown)", status="NOT_FOUND") == 100
    assert "zz" not in monitored.page
    assert monitored.value(count, model_name="", status="INVALID_ARGUMENT") == 1
    runtime = f"{serving}runtime_latency_count"
    assert monitored.value(runtime, model_name="m", API="Predict", runtime="TF1") == n_predicts
    assert monitored.value(runtime, model_name="numbered") == n_calls
    assert monitored.value(runtime, API="Regress") == 4
    assert monitored.value(f"{serving}request_example_count_total", model="m") == 2
    assert monitored.value(f"{serving}model_warmup_records_read", status="OK") == 3
    run = {"model_name": "m", "version": "123", "signature": "serving_default"}
    assert monitored.value("mlops_mini_run_requests_total", **run) == n_predicts
    n_runs = sum(
        monitored.value("mlops_mini_run_rows_count", model_name=name) for name in ("m", "numbered")
    )
    assert monitored.value(":tensorflow:core:graph_runs") == n_runs + 4 + 2 + 2
    assert monitored.value("mlops_mini_queued_requests", **run) == 0
    attempts = ":tensorflow:cc:saved_model:load_attempt_count"
    path = f"{toy_models}/numbered/5"
    assert monitored.value(attempts, model_path=path, status="success") == 1
    assert monitored.value(attempts, status="fail") == 1
    assert monitored.value("mlops_mini_loads_total", model_name="m", status="OK") == 1
    assert monitored.value("mlops_mini_model_ready", model_name="m") == 1
    assert monitored.value("mlops_mini_version_state", version="123", state="AVAILABLE") == 1
    assert monitored.value("mlops_mini_version_label", label="stable", version="123") == 1
    assert monitored.value("mlops_mini_event_loop_stall_seconds_count") > 0


def test_batches_count_their_requests_and_their_padding(monitored: Monitored) -> None:
    batching = ":tensorflow:serving:batching_session:"
    n_batches = monitored.value(f"{batching}wrapped_run_count")
    n_requests = monitored.value(f"{batching}input_batch_size_count")

    assert n_batches == monitored.value(f"{batching}processed_batch_size_count") > 0
    assert 2 * n_batches <= n_requests
    assert n_requests == monitored.value(f"{batching}queuing_latency_count")
    paddings = re.findall(r"padding_size_sum\{.*\} (.*)$", monitored.page, re.MULTILINE)
    n_rows = monitored.value(f"{batching}input_batch_size_sum") + sum(map(float, paddings))
    assert n_rows == monitored.value(f"{batching}processed_batch_size_sum")


def test_histograms_are_whole(monitored: Monitored) -> None:
    n_histograms = 0
    for family in text_string_to_metric_families(monitored.page):
        series: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for one in family.samples if family.type == "histogram" else ():
            labels = tuple(sorted((k, v) for k, v in one.labels.items() if k != "le"))
            entry = series.setdefault(labels, {"buckets": []})
            if one.name.endswith("_bucket"):
                entry["buckets"].append(one.value)
            entry[one.name.removeprefix(family.name)] = one.value
        for entry in series.values():
            n_histograms += 1
            assert entry["buckets"] == sorted(entry["buckets"])
            assert entry["buckets"][-1] == entry["_count"]
            assert (entry["_sum"] > 0) <= (entry["_count"] > 0)
    assert n_histograms > 10


def test_the_page_is_there_by_any_method_and_by_no_other_name(monitored: Monitored) -> None:
    ask = monitored.served.ask

    assert ask("POST", PATH, "whatever").body.startswith(b"# TYPE :tensorflow:")
    assert ask("HEAD", PATH).body == b""
    with_query = ask("GET", f"{PATH}?x=1")
    assert (with_query.status, with_query.body) == (400, f"Unexpected path: {PATH}?x=1".encode())
    assert ask("GET", PATH + "/").status == 404
    assert ask("GET", "/metrics").status == 404


def test_the_configuration_in_deploy_is_the_documentations() -> None:
    assert (DEPLOY / "monitoring.config").read_text() == CONFIG
    assert (
        yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["metrics_path"]
        in CONFIG
    )


@promtool
def test_promtool_has_nothing_against_our_own_families(monitored: Monitored) -> None:
    """Of TensorFlow Serving's it says that they have colons and no help, as they have there."""
    lines = monitored.page.splitlines()
    ours = [line for line in lines if re.match(r"(# \w+ )?mlops_mini_", line)]
    theirs = [line for line in lines if line not in ours]

    assert check_metrics(ours) == (0, [])
    status, problems = check_metrics(theirs)
    assert status == 3  # it could be read; these are the linter's
    assert {re.sub(r"^\S+ ", "", problem) for problem in problems} == {
        "metric names should not contain ':'",
        "no help text",
        'counter metrics should have "_total" suffix',
        'non-histogram and non-summary metrics should not have "_count" suffix',
    }


def check_metrics(lines: list[str]) -> tuple[int, list[str]]:
    command = ["promtool", "check", "metrics"]
    page = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


@promtool
def test_a_real_prometheus_reads_the_page_and_knows_the_rules(
    monitored: Monitored, tmp_path: Path
) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    file = tmp_path / "deploy" / "prometheus.yml"
    config = file.read_text().replace("127.0.0.1:8501", monitored.server.rest)
    file.write_text(config.replace("scrape_interval: 15s", "scrape_interval: 100ms"))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        "prometheus", f"--config.file={file}", f"--web.listen-address={address}",
        f"--storage.tsdb.path={tmp_path}/data", "--log.level=warn",
    ]  # fmt: skip

    def query(text: str) -> Any:
        asked = urllib.parse.urlencode({"query": text})
        url = f"http://{address}/api/v1/query?{asked}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]["result"]

    def is_scraped() -> Any:
        try:
            return query('up{job="model_server"} == 1')
        except OSError:
            return None

    with ExitStack() as stack, (tmp_path / "log").open("w") as log:
        process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        stack.callback(process.kill)
        wait_until(is_scraped, f"a scrape, see {tmp_path}/log", pace_s=0.1)
        (counted,) = query(':tensorflow:serving:request_count{status="FAILED_PRECONDITION"}')
        (median,) = query(
            "histogram_quantile(0.5, sum by (le)"
            ' (:tensorflow:serving:request_latency_bucket{API="predict"}))'
        )
        with urllib.request.urlopen(f"http://{address}/api/v1/rules", timeout=60) as answer:
            (group,) = json.load(answer)["data"]["groups"]

    assert counted["metric"]["model_name"] == "m"
    assert counted["value"][1] == "2"
    assert 10 < float(median["value"][1]) < 1e8
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert len(group["rules"]) == 8


@promtool
def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
    tested = (DEPLOY / "alerts_test.yml").read_text()
    assert [r["alert"] for r in rules if "alert" in r and r["alert"] not in tested] == []


def test_the_dashboard_is_what_its_script_makes() -> None:
    assert dashboard.DASHBOARD.read_text() == dashboard.text()


@promtool
def test_each_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{n}", "expr": expr} for n, expr in enumerate(dashboard_queries())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_each_metric_of_dashboard_and_alerts_is_exposed(monitored: Monitored) -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
    queries = [*dashboard_queries(), *[rule["expr"] for rule in rules]]
    named = set(re.findall(r"(?::tensorflow:|mlops_mini_)[\w:]+", " ".join(queries)))
    exposed = families(monitored.page)
    histograms = [name for name, kind in exposed.items() if kind == "histogram"]
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}

    assert named - parts - exposed.keys() == set()
    assert len(named) > 10


def dashboard_queries() -> list[str]:
    panels = json.loads(dashboard.DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]
