"""Cost of statistics, schema check and drift, from a month of flights to ten years of them.

Measures CPU seconds per row (flat, or the accumulator would not scale), the memory that statistics
keep (bounded), and what a year of monitoring costs: statistics of each month, validated against the
reviewed schema and compared with January. Prints tables and writes them to
benchmarks/data_statistics.md.

Example: python benchmarks/data_statistics.py
"""

import argparse
import os
import pickle
import platform
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_mini.flights import datasets, tables
from mlops_mini.statistics import anomalies, drift, mergeable, schemas

N_REPEATS = 3


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    """Run some work a few times; its least CPU seconds, and its result."""
    seconds = []
    for _ in range(N_REPEATS):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def count(batches: list[pd.DataFrame], copies: int = 1) -> mergeable.TableStatistics:
    """Count batches, each as often as there are copies, under flight_ids of their own."""
    counted = mergeable.create()
    for copy in range(copies):
        for batch in batches:
            again = batch.assign(flight_id=batch["flight_id"] + copy * 336_776)
            counted = mergeable.add(counted, again)
    return counted


def watch_a_year(months: list[pd.DataFrame]) -> tuple[int, int]:
    """Do what a year of monitoring does; how many anomalies it finds, and drifted columns."""
    schema = schemas.read(tables.FLIGHTS.schema)
    counted = [mergeable.add(mergeable.create(), month) for month in months]
    n_anomalies = sum(len(anomalies.validate(month, schema).anomaly_info) for month in counted)
    reports = [drift.compare(counted[0], month) for month in counted[1:]]
    n_drifted = sum(column.psi > 0.25 for report in reports for column in report.columns)
    return n_anomalies, n_drifted


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat())
    date = parser.parse_args().date
    months = [datasets.flights(month) for month in datasets.flight_months()]
    lines = [
        "| rows | batches | CPU s | CPU us a row | statistics kept, MB |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for batches, copies in ((months[:1], 1), (months, 1), (months, 10)):
        seconds, counted = cpu_s(lambda batches=batches, copies=copies: count(batches, copies))
        kept_mb = len(pickle.dumps(counted)) / 1e6
        lines.append(
            f"| {counted.n_rows:,} | {len(batches) * copies} | {seconds:.2f} |"
            f" {seconds / counted.n_rows * 1e6:.2f} | {kept_mb:.2f} |"
        )
    seconds, (n_anomalies, n_drifted) = cpu_s(lambda: watch_a_year(months))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    where = (
        f"{date}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" numpy {np.__version__}, pandas {pd.__version__}, pyarrow {pa.__version__}."
    )
    n_rows = sum(map(len, months))
    text = "\n".join(
        [
            "# Statistics, schema check and drift",
            "",
            "Flights, 15 columns, in monthly batches; the ten years are the year ten times over.",
            "",
            *lines,
            "",
            "A year of monitoring: 12 months counted, validated and compared with January.",
            "",
            "| rows | CPU s | columns with anomalies | with PSI above .25 | peak memory, MB |",
            "| ---: | ---: | ---: | ---: | ---: |",
            f"| {n_rows:,} | {seconds:.2f} | {n_anomalies} | {n_drifted} | {peak_mb:.0f} |",
            "",
            f"CPU seconds, least of {N_REPEATS} runs; peak memory includes the rows of the year.",
            where,
        ]
    )
    sys.stdout.write(text + "\n")
    Path(__file__).with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
