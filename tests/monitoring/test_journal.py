import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data.periods import Calendar
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.monitoring import reports
from mlops_mini.monitoring.journal import Intake, Journal
from mlops_mini.monitoring.quality import Maturity
from mlops_mini.statistics import mergeable
from tests.monitoring.logs import START, WEEK_S, log_file, record, write_weeks

CALENDAR = Calendar("week", zone="America/New_York")
LATER = START + timedelta(days=60)
X = {"x": np.float32([1])}
# Reads as often as it's told, and is killed each time at some moment but the last; then reports.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import pandas as pd
from tests.monitoring.test_journal import LATER, opened, said
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
labels = pd.read_parquet(folder / "labels.parquet")

def watch(name):
    journal = opened(folder / name)
    for part in (labels[::2], labels[1::2]):
        journal.add_labels(part, now=LATER)
        journal.read_log(folder / "log")
    return journal

start = time.perf_counter()
watch("trial.sqlite")
needed_s = time.perf_counter() - start
draws, n_killed = random.Random(seed), 0
while n_killed < 20:
    after_s = draws.uniform(0.001, needed_s)
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        watch("killed.sqlite")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    n_killed += status == -signal.SIGALRM
    if status == 0:  # it was quicker: begin anew
        (folder / "killed.sqlite").rename(folder / f"whole-{n_killed}.sqlite")
print(said(watch("killed.sqlite")))
for file in sorted(folder.glob("whole-*.sqlite")):
    print(said(watch(file.name)))
"""


def opened(file: Path, *, n_batch: int = 50, **options: object) -> Journal:
    return Journal(file, model="churn", calendar=CALENDAR, n_batch=n_batch, **options)


def said(journal: Journal) -> str:
    """All reports at one time, in one line."""
    made = reports.report(
        journal, now=LATER, maturity=Maturity(), importances={"usd": 1.0, "plan": 0.1}
    )
    return repr([made, journal.counts(), journal.n_unknown_labels()])


def test_20_kills_at_random_moments_change_no_report(tmp_path: Path) -> None:
    _, labels = write_weeks(tmp_path, 2, n=150)
    labels.to_parquet(tmp_path / "labels.parquet")
    seed = random.randrange(2**32)
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, str(seed)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    whole = opened(tmp_path / "whole.sqlite")
    whole.add_labels(labels, now=LATER)
    whole.read_log(tmp_path / "log")

    expected = said(whole)

    assert set(ran.stdout.splitlines()) == {expected}, f"seed {seed}"
    assert expected.count("state='usable'") >= 4


def test_a_log_is_read_as_far_as_it_goes_and_each_record_once(tmp_path: Path) -> None:
    records = [record(f"r{i}", i, X, 0.5) for i in range(5)]
    unfinished = log_file(tmp_path, 0, end=".unfinished")
    unfinished.write_bytes(b"".join(records[:3]) + records[3][:20])
    journal = opened(tmp_path / "j.sqlite")

    first = journal.read_log(tmp_path / "log")
    again = opened(tmp_path / "j.sqlite").read_log(tmp_path / "log")
    log_file(tmp_path, 0).write_bytes(b"".join(records))
    unfinished.unlink()
    last = journal.read_log(tmp_path / "log")

    assert (first, again, last) == (Intake(n_new=3), Intake(), Intake(n_new=2))
    (window,) = journal.windows()
    assert journal.statistics(window).n_rows == len(journal.rows(window)) == 5


def test_a_log_with_gaps_doubled_records_and_those_of_another_model(tmp_path: Path) -> None:
    good = [record(f"r{i}", i, X, 0.5) for i in range(4)]
    other = record("r9", 9, X, 0.5, model="flowers")
    no_output = record("r8", 8, X, 0.5, output="scores")
    log_file(tmp_path, 0).write_bytes(
        b"".join([good[0], good[1], b"?" * 100, good[2], good[1], other, no_output, good[3]])
    )
    log_file(tmp_path, 1).write_bytes(good[0])  # sent again after the file was rotated
    journal = opened(tmp_path / "j.sqlite", n_batch=2)

    intake = journal.read_log(tmp_path / "log")

    assert intake == Intake(n_new=4, n_doubled=2, n_other=2, n_gaps=1)
    (window,) = journal.windows()
    assert journal.counts(window) == {"doubled": 2}
    assert journal.counts() == {"gaps": 1, "other": 2}
    assert journal.statistics(window).n_rows == 4


def test_a_label_of_an_unknown_request_waits_for_it(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j.sqlite")
    labels = pd.DataFrame({"request_id": ["r0", "nobody", "r1"], "label": [1, 0, np.nan]})

    n_known = journal.add_labels(labels, now=START)
    before = journal.n_unknown_labels()
    log_file(tmp_path, 0).write_bytes(record("r0", 0, X, 0.5) + record("r1", 1, X, 0.5))
    journal.read_log(tmp_path / "log")

    assert (n_known, before, journal.n_unknown_labels()) == (0, 2, 1)
    (window,) = journal.windows()
    assert journal.rows(window)["label"].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    # A label that comes again changes nothing, and a corrected one counts.
    assert journal.add_labels(labels, now=LATER) == 1
    journal.add_labels(labels.assign(label=0), now=LATER)
    assert journal.rows(window)["label"].tolist() == [0.0, 0.0]


def test_windows_are_cut_by_the_time_of_the_prediction_in_the_calendar_s_zone(
    tmp_path: Path,
) -> None:
    inside = CALENDAR.partition(START)
    edge_s = (inside.end - START).total_seconds()
    log_file(tmp_path, 0).write_bytes(
        b"".join(
            [record("a", edge_s - 1, X, 0.5), record("b", edge_s, X, 0.5),
             record("c", edge_s + 2 * WEEK_S, X, 0.5)]
        )
    )  # fmt: skip
    journal = opened(tmp_path / "j.sqlite")
    journal.read_log(tmp_path / "log")

    windows = journal.windows()

    assert windows[0] == inside
    assert [len(journal.rows(window)) for window in windows] == [1, 1, 0, 1]
    # The last second of the day before, on clocks in New York.
    assert journal.rows(windows[0])["day"].tolist() == [f"{inside.end.date() - timedelta(days=1)}"]


def test_a_replay_says_when_a_prediction_was_made(tmp_path: Path) -> None:
    """The server answered today, about a week in another year."""
    log_file(tmp_path, 0).write_bytes(record("2013-03-08T12:00:00", 0, X, 0.5))
    journal = opened(
        tmp_path / "j.sqlite",
        instant=lambda r: datetime.fromisoformat(r.request_id).replace(tzinfo=UTC).timestamp(),
    )
    journal.read_log(tmp_path / "log")

    (window,) = journal.windows()

    assert str(window) == "2013-W09"
    assert journal.rows(window)["day"].tolist() == ["2013-03-08"]


def test_a_request_may_have_several_rows_and_several_classes(tmp_path: Path) -> None:
    scores = np.float32([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    images = {"image": np.zeros((2, 8, 8), np.float32)}
    log_file(tmp_path, 0).write_bytes(record("a", 0, images, scores))
    journal = opened(tmp_path / "j.sqlite")

    assert journal.read_log(tmp_path / "log").n_new == 2
    labels = pd.DataFrame({"request_id": ["a", "a"], "row": [0, 1], "label": [0, 1]})
    assert journal.add_labels(labels, now=LATER) == 2
    (window,) = journal.windows()
    rows = journal.rows(window)
    np.testing.assert_array_equal(np.stack(rows["outputs"].to_list()), scores)
    assert rows["label"].tolist() == [0.0, 1.0]
    assert "image brightness" in journal.statistics(window).columns


def test_requests_without_an_id_are_told_apart_by_what_they_were(tmp_path: Path) -> None:
    """Files that others have written have none; nothing can be joined with them."""
    records = [record("", 0, X, 0.5), record("", 0, X, 0.6), record("", 1, X, 0.5)]
    log_file(tmp_path, 0).write_bytes(b"".join([*records, records[0]]))

    assert opened(tmp_path / "j.sqlite").read_log(tmp_path / "log") == Intake(n_new=3, n_doubled=1)


def test_statistics_are_those_of_all_rows_at_once_and_by_version(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    usd = rng.normal(size=300).astype(np.float32)
    frame = pd.DataFrame({"usd": usd, "plan": ["a", "b\0", "ü"] * 100})
    texts = [np.array([plan.encode()], object) for plan in frame["plan"]]
    log_file(tmp_path, 0).write_bytes(
        b"".join(
            record(f"r{i}", i, {"usd": usd[[i]], "plan": texts[i]}, 0.5, version=1 + i % 2)
            for i in range(300)
        )
    )
    journal = opened(tmp_path / "j.sqlite", n_batch=70)
    journal.read_log(tmp_path / "log")
    (window,) = journal.windows()

    expected = mergeable.add(mergeable.create(), frame)
    read = journal.statistics(window)

    for name, column in expected.columns.items():
        pd.testing.assert_series_equal(
            read.columns[name].counts, column.counts, check_index_type=False
        )
        assert read.columns[name].mean == pytest.approx(column.mean)
    halves = [journal.statistics(window, version=version) for version in (1, 2)]
    assert [half.n_rows for half in halves] == [150, 150]


def test_scrapes_are_counted_in_their_windows(tmp_path: Path) -> None:
    page = ':tensorflow:serving:request_count{{model_name="churn",status="{}"}} {}\n'
    journal = opened(tmp_path / "j.sqlite")
    log_file(tmp_path, 0).write_bytes(record("a", 0, X, 0.5))
    journal.read_log(tmp_path / "log")
    (window,) = journal.windows()

    assert journal.traffic(window) is None
    for n_ok, n_bad in ((10, 1), (15, 1), (3, 2)):  # it has restarted in between
        text = page.format("OK", n_ok) + page.format("INTERNAL", n_bad)
        journal.add_scrape(text, source="server 1", now=START)
    journal.add_scrape(page.format("OK", 100), source="server 2", now=START)

    traffic = journal.traffic(window)
    assert (traffic.n_requests, traffic.n_errors) == (16 + 5 + 100, 1 + 2)


def test_what_is_no_journal_no_log_and_no_labels_is_said(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite").write_text("not a database, and long enough to be sure" * 30)

    with pytest.raises(DataIntegrityError, match="made anew from the log"):
        opened(tmp_path / "j.sqlite")
    journal = opened(tmp_path / "k.sqlite")
    with pytest.raises(NotFoundError):
        journal.read_log(tmp_path / "log")
    with pytest.raises(InvalidArgumentError, match=r"without \['request_id'\]"):
        journal.add_labels(pd.DataFrame({"id": [1], "label": [1]}), now=START)
    assert journal.windows() == []
