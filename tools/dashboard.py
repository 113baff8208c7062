"""Writes deploy/dashboard.json: a Grafana dashboard of a model server's metrics.

Import it in Grafana, which then asks for the Prometheus to read. A test compares file and code, has
promtool parse each query, and looks for each metric on the page of a server.

Example: python -m tools.dashboard
"""

import json
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "deploy" / "dashboard.json"
SERVING = ":tensorflow:serving:"
_WHERE = 'instance=~"$instance"'
_N_COLUMNS = 2
_WIDTH, _HEIGHT = 24 // _N_COLUMNS, 8


def quantile(share: float, histogram: str, by: str) -> str:
    """Write the query for a quantile of a histogram over five minutes."""
    rate = f"rate({histogram}_bucket{{{_WHERE}}}[5m])"
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate}))"


def rate(counter: str, by: str) -> str:
    """Write the query for what a counter grows by in a second."""
    return f"sum by ({by}) (rate({counter}{{{_WHERE}}}[5m]))"


# Title, unit as Grafana names it, queries with their legends.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "Requests",
        "reqps",
        [(rate(f"{SERVING}request_count", "model_name, status"), "{{model_name}} {{status}}")],
    ),
    (
        "Time of a request, of 100 all but 1",
        "µs",
        [
            (
                quantile(0.99, f"{SERVING}request_latency", "model_name, API"),
                "{{model_name}} {{API}}",
            )
        ],
    ),
    (
        "Time of its run in TensorFlow, median",
        "µs",
        [
            (
                quantile(0.5, f"{SERVING}runtime_latency", "model_name, API"),
                "{{model_name}} {{API}}",
            )
        ],
    ),
    (
        "Requests by version and signature",
        "reqps",
        [
            (
                rate("mlops_mini_run_requests_total", "model_name, version, signature"),
                "{{model_name}} {{version}} {{signature}}",
            )
        ],
    ),
    (
        "Rows of a run, mean",
        "short",
        [
            (
                " / ".join(
                    rate(f"mlops_mini_run_rows_{part}", "model_name, signature")
                    for part in ("sum", "count")
                ),
                "{{model_name}} {{signature}}",
            )
        ],
    ),
    (
        "Waiting to be run, and running",
        "short",
        [
            (
                f"sum by (model_name) (mlops_mini_queued_requests{{{_WHERE}}})",
                "{{model_name}} waiting",
            ),
            (f"mlops_mini_requests_running{{{_WHERE}}}", "{{model_name}} running"),
        ],
    ),
    (
        "Wait for a batch, of 100 all but 1",
        "µs",
        [
            (
                quantile(0.99, f"{SERVING}batching_session:queuing_latency", "thread_pool_name"),
                "{{thread_pool_name}}",
            )
        ],
    ),
    (
        "Longest stall of the event loop",
        "s",
        [(quantile(1, "mlops_mini_event_loop_stall_seconds", "instance"), "{{instance}}")],
    ),
    (
        "Versions and their states",
        "short",
        [
            (
                f"mlops_mini_version_state{{{_WHERE}}}",
                "{{model_name}} {{version}} {{state}}",
            ),
            (
                f"mlops_mini_version_label{{{_WHERE}}}",
                "{{model_name}} {{label}}: {{version}}",
            ),
        ],
    ),
    (
        "Loads, in an hour",
        "short",
        [
            (
                f"sum by (model_name, status) (increase(mlops_mini_loads_total{{{_WHERE}}}[1h]))",
                "{{model_name}} {{status}}",
            )
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Describe the dashboard in Grafana's terms."""
    source = {"type": "prometheus", "uid": "${prometheus}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {
                "x": number % _N_COLUMNS * _WIDTH,
                "y": number // _N_COLUMNS * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend}
                for index, (expr, legend) in enumerate(queries)
            ],
        }
        for number, (title, unit, queries) in enumerate(PANELS)
    ]
    variables = [
        {"name": "prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "type": "query",
            "datasource": source,
            "query": "label_values(mlops_mini_model_ready, instance)",
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "refresh": 2,
        },
    ]
    return {
        "uid": "mini-model-server",
        "title": "Model server",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": panels,
    }


def text() -> str:
    """Write the dashboard as the file's text."""
    return json.dumps(dashboard(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text())
