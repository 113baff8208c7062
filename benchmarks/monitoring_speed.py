"""How fast monitoring reads a year of predictions, and how much memory that takes.

Writes a log of 300,000 requests, one per flight with all its features, as the model server does,
and reads it in a process of its own, file by file. A sentence that does not hold any more is not
printed: the script stops at it.

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
import pandas as pd

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
import json, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
import pandas as pd
from mlops_mini.data.periods import Calendar
from mlops_mini.flights.tables import CALENDAR
from mlops_mini.monitoring import dashboard, reports, row_skew
from mlops_mini.monitoring.journal import Journal
from mlops_mini.monitoring.quality import Maturity
from mlops_mini.prediction_log import Reader

folder, now = Path(sys.argv[1]), datetime(2014, 1, 10, tzinfo=UTC)
journal = Journal(folder / "journal.sqlite", model="flights",
                  calendar=Calendar("week", zone=CALENDAR.zone))
start, done = (time.perf_counter(), time.process_time()), []

def end(what, n):
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    done.append({"what": what, "n": n, "wall": wall, "cpu": cpu, "mb": int(line.split()[1]) / 1024})

n = 0
for file in sorted((folder / "log").iterdir()):
    n += journal.read_log(file).n_new
    end("read", n)
end("labels", journal.add_labels(pd.read_parquet(folder / "labels.parquet"), now=now))
made = reports.report(journal, now=now, maturity=Maturity(after=timedelta(hours=34)))
page = dashboard.html_page("flights", made, reports.alerts(made), now=now)
end("reports and page", len(made))
found = row_skew.compare(
    Reader(folder / "log" / "m"), pd.read_parquet(folder / "computed.parquet"), model="flights"
)
end("compared row by row", found.n_rows)
print(json.dumps([done, found.n_different]))
"""


def write_log(folder: Path) -> float:
    """Write the log and the labels; return the log's size in MiB."""
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
    (folder / "log").mkdir()
    for number, first in enumerate(range(0, len(ids), N_PER_FILE)):
        path = folder / "log" / f"m-20130101T{number:06}.000000Z-1.tfrecord"
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
    pd.DataFrame({"request_id": ids, "label": late}).to_parquet(folder / "labels.parquet")
    features.assign(request_id=ids).to_parquet(folder / "computed.parquet")
    return sum(path.stat().st_size for path in (folder / "log").iterdir()) / 2**20


def main(date: str) -> None:
    """Measure, and write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_mb = write_log(folder)
        ran = subprocess.run(
            [sys.executable, "-c", READ, folder], capture_output=True, text=True, check=True
        )
    done, n_different = json.loads(ran.stdout)
    by_n = {each["n"]: each for each in done if each["what"] == "read"}
    third, whole = by_n[N_RECORDS // 3], by_n[N_RECORDS]
    steps = [third, whole, *done[-3:]]
    rows = [
        [each["what"], f"{each['n']:,}", f"{each['wall']:.0f}", f"{each['cpu']:.0f}",
         f"{each['mb']:.0f}"]
        for each in steps
    ]  # fmt: skip
    header = ["until here", "records, labels, weeks", "wall (s)", "CPU (s)", "peak memory (MB)"]
    sentences = [
        claim(
            f"A year is read in {whole['cpu']:.0f} CPU seconds, less than 60.",
            whole["cpu"] < 60,
        ),
        claim(
            "Three times as many records take hardly more memory:"
            f" {whole['mb'] - third['mb']:.0f} MB.",
            whole["mb"] < third["mb"] + 120,
        ),
        claim(
            "Compared row by row with the features as they were computed, none of the"
            f" {done[-1]['n']:,} requests differs.",
            n_different == 0,
            done[-1]["n"] == N_RECORDS,
        ),
    ]
    text = f"""# A year of predictions, read by monitoring

Written by `benchmarks/monitoring_speed.py` on {date}; Python {platform.python_version()},
{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}.

A log of {log_mb:.0f} MiB, one request per flight with 25 features, is read in batches of 5,000.
Then its labels are added, all weeks are reported, and each request is compared with the features
computed for it.

{table(header, rows)}

{chr(10).join(sentences)}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
