"""What degrees of automation promise and cost: draws of labels, alarms, and time per item.

The network of the photos learns from 10,000 pictures; 26,000 others are the population whose truth
is known. Run `python -m benchmarks.automation`: it writes `automation.md` in minutes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_mini.automation.audits import AuditMonitor
from mlops_mini.automation.certificates import Scope, certify_threshold, naive_threshold
from mlops_mini.automation.dispatch import Case, Dispatcher
from mlops_mini.automation.levels import Level
from mlops_mini.automation.policy import AutomationPolicy
from mlops_mini.client import Client
from mlops_mini.data import tensors
from mlops_mini.local_server import LocalServer
from mlops_mini.photos import datasets
from mlops_mini.review.queue import Item, ReviewQueue

SEED, N_DRAWS, N_STREAMS, MAX_ERROR = 7, 1000, 400, 0.02
NOW = datetime(2026, 5, 20, tzinfo=UTC)
SCOPE = Scope(
    model_version=1,
    data_from=NOW - timedelta(days=8),
    data_until=NOW - timedelta(days=1),
    expires_at=NOW + timedelta(days=30),
)


def train(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Export the network, and tell how sure it is of each picture, and whether it's right."""
    from mlops_mini.photos import network

    sample = datasets.fashion_mnist()
    column = pd.DataFrame({"image": tensors.column(sample.train_images[:10_000])})
    model = network.train(column, sample.train_labels[:10_000], epochs=4, seed=11)
    model.export(folder, verbose=False)
    images = np.concatenate([sample.train_images[10_000:26_000], sample.test_images])
    labels = np.concatenate([sample.train_labels[10_000:26_000], sample.test_labels])
    found = model.predict({"image": images}, batch_size=500, verbose=0)["probability"]
    return found.max(1).astype(np.float64), found.argmax(1) == labels


def promises(scores: np.ndarray, is_right: np.ndarray) -> list[str]:
    """Draw labels again and again, and count the broken promises."""
    rng = np.random.default_rng(SEED)
    order = rng.permutation(scores.size)
    others, pool, right = scores[order[:4000]], scores[order[4000:]], is_right[order[4000:]]
    ranked = ~right[np.argsort(-pool)]
    share_wrong = ranked.cumsum() / np.arange(1, pool.size + 1)
    oracle = (np.flatnonzero(share_wrong <= MAX_ERROR).max() + 1) / pool.size

    def judged(threshold: float | None) -> tuple[bool, float]:
        is_auto = pool >= (np.inf if threshold is None else threshold)
        return bool(is_auto.any() and (~right[is_auto]).mean() > MAX_ERROR), float(is_auto.mean())

    lines = [
        f"Best possible coverage: {oracle:.1%}.",
        "",
        "| labels | steps | naive: broken | coverage | ours: broken | coverage | to best | none |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in (500, 1000, 2000, 5000):
        for step in (0.025, 0.01):
            naive, certified = [], []
            for _ in range(N_DRAWS):
                drawn = rng.choice(pool.size, n, replace=False)
                given = (pool[drawn], right[drawn])
                naive.append(judged(naive_threshold(*given, other_scores=others, step=step)))
                made = certify_threshold(*given, other_scores=others, scope=SCOPE, step=step)
                certified.append(judged(made.threshold))
            (n_broken, n_cover), (broken, cover) = (
                np.mean(each, axis=0) for each in (naive, certified)
            )
            none = np.mean([coverage == 0 for _, coverage in certified])
            shares = (step, n_broken, n_cover, broken, cover, oracle - cover, none)
            lines.append(" | ".join([f"| {n:,}", *(f"{share:.1%}" for share in shares)]) + " |")
    return lines


def alarms() -> list[str]:
    """Audit streams of 3,000 items with a known share of errors."""
    rng = np.random.default_rng(SEED)
    lines = ["| true error | good audits before | alarms | median audits to the alarm |"]
    lines += ["| ---: | ---: | ---: | ---: |"]
    for rate, n_before in ((0.0166, 0), (0.02, 0), (0.03, 0), (0.04, 0), (0.059, 0), (0.1, 0),
                           (0.059, 1000)):  # fmt: skip
        at = []
        for _ in range(N_STREAMS):
            monitor = AuditMonitor(max_error=MAX_ERROR)
            rates = np.repeat([0.01, rate], [n_before, 3000])
            for errors in np.split(rng.random(rates.size) < rates, rates.size // 200):
                monitor.update(errors)
                if monitor.alarm:
                    break
            at.append(monitor.alarm.n_audits - n_before if monitor.alarm else np.inf)
        finite = np.isfinite(at)
        median = f"{np.median(at):,.0f}" if finite.mean() > 0.5 else "-"
        lines.append(f"| {rate:.2%} | {n_before:,} | {finite.mean():.1%} | {median} |")
    return lines


def seconds(call: Callable[[], object], n: int) -> float:
    """Median of several calls, of this thread's own processor time: others may be busy."""
    taken = []
    for _ in range(n):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return statistics.median(taken)


def routing(folder: Path, scores: np.ndarray, is_right: np.ndarray) -> list[str]:
    """Time a batch of photos through the dispatcher, and the model's own time beside it."""
    images = datasets.fashion_mnist().test_images
    made = certify_threshold(
        scores[4000:], is_right[4000:], other_scores=scores[:4000], scope=SCOPE
    )
    policy = AutomationPolicy(level=Level.PARTIAL, certificates={"": made})
    lines = [
        "| transport | items | in the queue | client alone, CPU ms per item | with it | added |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    with LocalServer(folder, folder.parent / "server") as server:
        for transport in ("grpc", "rest"):
            with server.client(transport) as client:
                for n_open in (0, 10_000):
                    lines += _timed(client, transport, n_open, folder.parent, policy, images)
    return lines


def _timed(
    client: Client, transport: str, n_open: int, folder: Path, policy: AutomationPolicy,
    images: np.ndarray,
) -> list[str]:  # fmt: skip
    lines = []
    file = folder / f"{transport}_{n_open}.sqlite"
    with ReviewQueue(file, categories=datasets.CLASSES) as queue:
        queue.add([Item(id=f"waits {n}", kind="human") for n in range(n_open)])
        dispatcher = Dispatcher(
            client, queue, file.with_suffix(".json"), output="probability", now=lambda: NOW,
            max_open=1_000_000, timeout_s=60,
        )  # fmt: skip
        dispatcher.set_policy(policy)
        count = iter(range(1_000_000))
        for n in (1, 32, 256):

            def decide(n: int = n) -> None:
                batch = [next(count) for _ in range(n)]
                dispatcher.decide(
                    [Case(id=f"{i}", inputs={"image": images[i % 10_000]}) for i in batch]
                )

            repeats = 100 if n == 1 else 20
            alone = (
                1e3
                * seconds(lambda n=n: client.predict({"image": images[:n]}, timeout_s=60), repeats)
                / n
            )
            both = 1e3 * seconds(decide, repeats) / n
            times = f"{alone:.3f} | {both:.3f} | {both - alone:.3f}"
            lines.append(f"| {transport} | {n} | {n_open:,} | {times} |")
    return lines


def main() -> None:
    """Measure everything, and write the table."""
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "clothes"
        scores, is_right = train(model / "1")
        parts = {
            f"Promises: {MAX_ERROR:.0%} errors, confidence 95%": promises(scores, is_right),
            f"Alarms against a limit of {MAX_ERROR:.0%}": alarms(),
            "Time": routing(model, scores, is_right),
        }
    made = (
        f"Made by `python -m benchmarks.automation`: {N_DRAWS:,} draws and {N_STREAMS} streams for"
        f" each row, seed {SEED}, on {os.cpu_count()} processors with a load of"
        f" {os.getloadavg()[0]:.0f}."
    )
    text = ["# Degrees of automation", "", made]
    for title, lines in parts.items():
        text += ["", f"## {title}", "", *lines]
    Path(__file__).with_suffix(".md").write_text("\n".join(text).replace("%", " %") + "\n")


if __name__ == "__main__":
    main()
