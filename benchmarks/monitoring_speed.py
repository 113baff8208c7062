"""How fast monitoring reads a year of predictions, and how much memory that takes.

Writes a log of 300,000 requests, one per flight with all its features, as the model server does,
and reads it in a process of its own: whole, and again a third of it. A sentence that does not hold
any more is not printed: the script stops at it.

    .venv/bin/python -m benchmarks.monitoring_speed [DATE]

writes `benchmarks/monitoring_speed.md`.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.features import claim
from benchmarks.gate_replay import table
from benchmarks.reference_model import flights
from mlops_mini.features import events, offline
from mlops_mini.flights import datasets
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from mlops_mini.prediction_log import frame
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse, fill_spec
from mlops_mini.wire_messages import EXACT

N_RECORDS = 300_000
N_PER_FILE = 25_000
READ = """
import json, resource, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
import pandas as pd
from mlops_mini.flights.tables import CALENDAR
from mlops_mini.monitoring import dashboard, reports
from mlops_mini.monitoring.journal import Journal
from mlops_mini.monitoring.quality import Maturity
from mlops_mini.data.periods import Calendar

folder, log = Path(sys.argv[1]), Path(sys.argv[2])
now = datetime(2014, 1, 10, tzinfo=UTC)
journal = Journal(folder / f"{log.parent.name}.sqlite", model="flights",
                  calendar=Calendar("week", zone=CALENDAR.zone))
def clock(): return time.perf_counter(), time.process_time()
times = [clock()]
intake = journal.read_log(log)
times.append(clock())
labels = pd.read_parquet(folder / "labels.parquet").head(intake.n_new)
journal.add_labels(labels, now=now)
times.append(clock())
made = reports.report(journal, now=now, maturity=Maturity(after=timedelta(hours=34)))
page = dashboard.html_page("flights", made, reports.alerts(made), now=now)
times.append(clock())
print(json.dumps({
    "n": intake.n_new, "windows": len(made), "page": len(page),
    "labeled": sum(each.cohort.n_labeled for each in made),
    "wall": [b[0] - a[0] for a, b in zip(times, times[1:])],
    "cpu": [b[1] - a[1] for a, b in zip(times, times[1:])],
    "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "size": journal.file.stat().st_size / 2**20,
}))
"""


def write_log(folder: Path) -> float:
    """Write the log, a third of it and the labels; return the log's size in MiB."""
    year = flights()
    prepared = prepare(year)
    features = offline.compute(
        year,
        FEATURES,
        prepare=prepare,
        history=events.from_tables(FEATURES, {"flights": prepared}, {"flights": FEATURES.key}),
        observed={"weather": datasets.weather()},
    )[list(FEATURES.names)]
    order = np.argsort(prepared[FEATURES.time].to_numpy(), kind="stable")[:N_RECORDS]
    features, rows = features.iloc[order], prepared.iloc[order]
    at_s = rows[FEATURES.time].astype("int64").to_numpy() / 1e9
    ids = [f"flight-{key}" for key in rows[FEATURES.key]]
    late = rows["late"].to_numpy()
    spec = ModelSpec(name="flights", version=1, signature_name="serving_default")
    columns = {
        name: [
            np.array([value.encode()], object) if isinstance(value, str) else np.float32([value])
            for value in column
        ]
        for name, column in features.items()
    }
    rng = np.random.default_rng(0)
    probability = np.float32(rng.uniform(0.05, 0.4, len(ids)))
    (folder / "all").mkdir()
    (folder / "third").mkdir()
    for number, first in enumerate(range(0, len(ids), N_PER_FILE)):
        path = folder / "all" / f"m-20130101T{number:06}.000000Z-1.tfrecord"
        with path.open("wb") as file:
            for i in range(first, min(first + N_PER_FILE, len(ids))):
                inputs = {name: values[i] for name, values in columns.items()}
                log = EXACT["PredictionLog"]()
                log.predict_log.request = PredictRequest(model_spec=spec, inputs=inputs).to_bytes()
                answer = PredictResponse(
                    model_spec=spec, outputs={"probability": probability[i : i + 1]}
                )
                log.predict_log.response = answer.to_bytes()
                fill_spec(log.log_metadata.model_spec, spec)
                log.log_metadata.request_id = ids[i].encode()
                log.log_metadata.time_us = int(at_s[i] * 1e6)
                file.write(frame(log.SerializeToString()))
        if 3 * first < len(ids):
            (folder / "third" / path.name).hardlink_to(path)
    import pandas as pd

    pd.DataFrame({"request_id": ids, "label": late}).to_parquet(folder / "labels.parquet")
    return sum(path.stat().st_size for path in (folder / "all").iterdir()) / 2**20


def main(date: str) -> None:
    """Measure, and write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_mb = write_log(folder)
        measured = []
        for which in ("third", "all"):
            ran = subprocess.run(
                [sys.executable, "-c", READ, folder, folder / which / "m"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            measured.append(json.loads(ran.stdout))
    load = os.getloadavg()[0]
    third, whole = measured
    rows = [
        [
            f"{each['n']:,}", f"{each['labeled']:,}", str(each["windows"]),
            *(
                f"{wall:.1f} / {cpu:.1f}"
                for wall, cpu in zip(each["wall"], each["cpu"], strict=True)
            ),
            f"{each['mb']:.0f}", f"{each['size']:.0f}",
        ]
        for each in measured
    ]  # fmt: skip
    header = [
        "records", "labels", "windows", "read (wall / CPU s)", "labels (wall / CPU s)",
        "reports and page (wall / CPU s)", "peak memory (MB)", "journal (MB)",
    ]  # fmt: skip
    sentences = [
        claim(
            f"A year is read in {whole['cpu'][0]:.0f} CPU seconds, less than 60.",
            whole["n"] == N_RECORDS,
            whole["cpu"][0] < 60,
        ),
        claim(
            "Three times as many records take hardly more memory:"
            f" {whole['mb'] - third['mb']:.0f} MB.",
            whole["mb"] < third["mb"] + 120,
        ),
    ]
    text = f"""# A year of predictions, read by monitoring

Written by `benchmarks/monitoring_speed.py` on {date}; Python {platform.python_version()},
{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load:.0f}.

A log of {log_mb:.0f} MiB, one request per flight with 25 features, is read in batches of 5,000.
Then its labels are added, and all weeks are reported.

{table(header, rows)}

{chr(10).join(sentences)}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
