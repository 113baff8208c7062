from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import tensors
from mlops_mini.data.periods import Calendar
from mlops_mini.monitoring import dashboard, inputs, reports, row_skew
from mlops_mini.monitoring.journal import Journal
from mlops_mini.monitoring.quality import Maturity
from mlops_mini.monitoring.reports import Limits
from mlops_mini.prediction_log import Reader
from tests import browser
from tests.monitoring.logs import START, log_file, record, write_weeks

MATURITY = Maturity(after=timedelta(hours=34))
IMPORTANCES = {"usd": 0.2, "plan": 0.05}
CALENDAR = Calendar("month")
LATER = START + timedelta(days=200)


def watched(
    folder: Path, labels: pd.DataFrame | None = None, *, n_weeks: int = 26, **options: object
) -> Journal:
    _, all_labels = write_weeks(folder, n_weeks, n=60, **options)
    journal = Journal(folder / "j.sqlite", model="churn", calendar=CALENDAR)
    journal.read_log(folder / "log")
    journal.add_labels(all_labels if labels is None else labels, now=LATER)
    return journal


def report(journal: Journal, **options: object) -> list[reports.WindowReport]:
    options = {"now": LATER, "maturity": MATURITY, "importances": IMPORTANCES} | options
    return reports.report(journal, **options)


def rules(made: list[reports.WindowReport], limits: Limits | None = None) -> set[tuple[str, str]]:
    return {(alert.window, alert.rule) for alert in reports.alerts(made, limits)}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return watched(tmp_path_factory.mktemp("calm"))


def test_a_calm_half_year_raises_no_alarm_although_what_does_not_matter_moves(
    calm: Journal,
) -> None:
    made = report(calm)

    assert [each.window for each in made] == [f"2026-{month:02}" for month in range(3, 9)]
    assert {each.cohort.state for each in made} == {"usable"}
    assert rules(made) == set()
    # The noise moves each month, and without importances it would ring each month.
    assert all("noise" in each.drift.moved for each in made[1:])
    unweighted = report(calm, importances=None)
    assert {rule for _, rule in rules(unweighted)} == {"drift"}
    assert len(rules(unweighted)) == 5


def test_what_is_sent_in_other_units_is_skew_at_once_and_drift_once(tmp_path: Path) -> None:
    weeks = dict.fromkeys(range(9, 26), 100.0)  # from May on
    journal = watched(tmp_path, usd_in_week=weeks)
    month = CALENDAR.period("2026-03")

    made = report(journal, reference=journal.statistics(month))

    assert {window for window, rule in rules(made) if rule == "drift"} == {"2026-05"}
    assert {window for window, rule in rules(made) if rule == "skew"} == {
        "2026-05", "2026-06", "2026-07", "2026-08",
    }  # fmt: skip
    assert made[-1].skew.columns[0].column == "usd"  # the most relevant first


def test_a_model_that_gets_worse_is_found_by_its_labels(tmp_path: Path, calm: Journal) -> None:
    _, labels = write_weeks(tmp_path, 26, n=60)
    flipped = labels["week"] >= 22
    changed = labels.assign(label=labels["label"].where(~flipped, 1 - labels["label"]))
    journal = watched(tmp_path, changed)

    made = report(journal)

    assert rules(made) == {("2026-08", "quality")}
    assert reports.alerts(made)[0].text.startswith("the excess log loss is 0.")


def test_labels_that_stop_coming_are_said_and_nothing_is_judged_by_them(tmp_path: Path) -> None:
    _, labels = write_weeks(tmp_path, 26, n=60)
    journal = watched(tmp_path, labels[labels["week"] < 13])

    made = report(journal)

    few = {window for window, rule in rules(made) if rule == "labels"}
    assert few == {"2026-06", "2026-07", "2026-08"}
    assert {window for window, rule in rules(made) if rule == "no labels"} == {"2026-08"}
    assert not any(rule == "quality" for _, rule in rules(made))


def test_labels_that_take_longer_than_a_window_are_waited_for(tmp_path: Path) -> None:
    """Three months late is in time, if that's how long a label takes."""
    _, labels = write_weeks(tmp_path, 26, n=60)
    journal = watched(tmp_path, labels[labels["week"] < 14])

    made = report(
        journal, now=START + timedelta(weeks=26), maturity=Maturity(after=timedelta(days=92))
    )

    states = [each.cohort.state for each in made]
    assert states == ["usable", "usable", "usable", "maturing", "maturing", "open"]
    assert rules(made, Limits(max_unknown=2)) == set()


def test_a_window_that_is_not_mature_says_nothing_yet(calm: Journal) -> None:
    # All labels are in the journal; only the clock is at the end of April.
    made = report(calm, now=START + timedelta(days=45))

    assert [each.cohort.state for each in made] == ["usable"] + ["open"] * 5
    assert rules(made) == set()


def test_errors_latency_silence_and_doubled_records_are_alarms(tmp_path: Path) -> None:
    x = {"usd": [[0.5]]}
    month_s = 31 * 86_400
    times = [0, month_s, 3 * month_s]
    log_file(tmp_path, 0).write_bytes(
        b"".join(record(f"r{i}", at_s, x, 0.5) for i, at_s in enumerate(times))
        + record("r0", 0, x, 0.5)
    )
    journal = Journal(tmp_path / "j.sqlite", model="churn", calendar=CALENDAR)
    journal.read_log(tmp_path / "log")
    serving = ":tensorflow:serving:request"
    page = (
        f'{serving}_count{{model_name="churn",status="OK"}} 90\n'
        f'{serving}_count{{model_name="churn",status="INTERNAL"}} 10\n'
        f'{serving}_latency_bucket{{model_name="churn",API="predict",le="1000"}} 80\n'
        f'{serving}_latency_bucket{{model_name="churn",API="predict",le="1e+06"}} 89\n'
        f'{serving}_latency_bucket{{model_name="churn",API="predict",le="+Inf"}} 90\n'
        f'{serving}_count{{model_name="flowers",status="INTERNAL"}} 7\n'
    )
    journal.add_scrape(page, source="s", now=START)

    made = report(journal)
    found = rules(made)

    assert {("2026-03", "errors"), ("2026-03", "latency"), ("2026-03", "doubled")} <= found
    assert ("2026-05", "silence") in found
    assert made[0].traffic.error_rate == 0.1
    assert (made[0].traffic.latency_ms(0.5), made[0].traffic.latency_ms(0.98)) == (1.0, 1000.0)
    assert not any(rule in {"errors", "latency"} for window, rule in found if window != "2026-03")


def test_images_that_were_learned_from_are_described_like_those_that_are_asked_about() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    features = pd.DataFrame({"image": tensors.column(pixels), "shop": list("aabbc")})

    learned = inputs.of_features(features)

    described = inputs.describe_images(pixels)
    assert list(learned) == ["shop", *(f"image {name}" for name in described)]
    assert learned["image brightness"].tolist() == described["brightness"].tolist()


def test_images_drift_like_any_other_input(tmp_path: Path) -> None:
    """A lamp is replaced, and every picture gets darker."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(400):
        light = 1.0 if i < 200 else 0.6
        image = np.float32(rng.uniform(0, 255, (1, 8, 8)) * light)
        at_s = (0 if i < 200 else 31 * 86_400) + i
        records.append(record(f"r{i}", at_s, {"image": image}, [[0.7, 0.3]]))
    log_file(tmp_path, 0).write_bytes(b"".join(records))
    journal = Journal(tmp_path / "j.sqlite", model="churn", calendar=CALENDAR)
    journal.read_log(tmp_path / "log")

    made = report(journal, importances={"image brightness": 1.0})
    (alert,) = [each for each in reports.alerts(made) if each.rule == "drift"]

    assert alert.text == "image brightness moved against the window before"
    assert made[1].drift.columns[0].column == "image brightness"


def test_rows_that_were_sent_other_features_are_an_alarm(tmp_path: Path, calm: Journal) -> None:
    """Row by row nothing is as computed, while each distribution stays what it was."""
    log = calm.file.parent / "log"
    sent = [(r.request_id, float(r.inputs["usd"][0])) for r in Reader(log)]
    right = pd.DataFrame(sent, columns=["request_id", "usd"])
    late = right.assign(usd=right["usd"].shift(-1))  # what the next request got is this one's
    window = str(calm.windows()[-1])

    found = {
        name: row_skew.compare(Reader(log), table, model="churn")
        for name, table in (("right", right), ("late", late))
    }
    made = {name: report(calm, row_skews={window: each}) for name, each in found.items()}

    assert rules(made["right"]) == set()
    (alert,) = reports.alerts(made["late"])
    assert (alert.window, alert.rule) == (window, "row skew")
    assert alert.text == (
        "sent with another value than the one computed again: usd in 100.0% of the rows"
    )
    assert rules(made["late"], Limits(relevant=["plan"])) == set()
    text = dashboard.html_page("churn", made["late"], reports.alerts(made["late"]), now=LATER)
    assert "rows that differ" in text
    assert found["late"].columns[0].example in text


def test_the_page_needs_nothing_else(calm: Journal) -> None:
    made = report(calm, reference=calm.statistics(CALENDAR.period("2026-03")))
    raised = reports.alerts(made, Limits(max_psi=0.0))
    text = dashboard.html_page("churn & Co", made, raised, now=LATER)

    assert "churn &amp; Co, as it serves" in text
    assert "no alarm in the newest" in text
    for there in ("Quality", "Inputs", "No server was scraped", "usable", "<svg", "usd"):
        assert there in text
    for network in ("http://", "https://", "<script", "<link", "url("):
        assert network not in text


def test_the_page_of_a_model_that_nobody_has_asked_yet(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", model="churn", calendar=CALENDAR)

    text = dashboard.html_page("churn", report(journal), [], now=LATER)

    assert "0 windows; no alarm" in text


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_shows_all_of_the_page(tmp_path: Path) -> None:
    """On a phone and on a desk, by day and by night, without a network."""
    journal = watched(tmp_path, usd_in_week=dict.fromkeys(range(22, 26), 100.0))
    log = tmp_path / "log"
    sent = [(r.request_id, float(r.inputs["usd"][0])) for r in Reader(log)]
    computed = pd.DataFrame(sent, columns=["request_id", "usd"])
    found = row_skew.compare(Reader(log), computed.assign(usd=computed["usd"] / 3), model="churn")
    for n in range(1, 3):
        counted = f':tensorflow:serving:request_count{{model_name="churn",status="OK"}} {900 * n}\n'
        took = ':tensorflow:serving:request_latency_bucket{model_name="churn",API="predict",le='
        journal.add_scrape(
            f'{counted}{took}"5000"}} {890 * n}\n{took}"+Inf"}} {900 * n}\n',
            source="server", now=START + timedelta(days=31 * n),
        )  # fmt: skip
    window = str(journal.windows()[-1])
    made = report(
        journal,
        reference=journal.statistics(journal.windows()[0]),
        row_skews={window: found},
    )
    page_file = tmp_path / "page.html"
    page_file.write_text(dashboard.html_page("churn", made, reports.alerts(made), now=LATER))

    looks = {}
    with browser.opened(tmp_path) as page:
        page.set_offline(True)
        page.open(page_file.as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelector('svg')")
        for width, is_dark in ((360, False), (360, True), (1200, False), (1200, True)):
            look = tmp_path / f"{width}{'_dark' if is_dark else ''}.png"
            page.screenshot(look, width=width, height=900, is_dark=is_dark)
            looks[width, is_dark] = page.run("getComputedStyle(document.body).backgroundColor")
            root = page.run(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert root[0] <= root[1] <= width
        drawn = page.run("[...document.querySelectorAll('polyline')].map(p => p.getTotalLength())")
        headings = page.run("[...document.querySelectorAll('h2')].map(h => h.innerText)")
        cells = page.run("[...document.querySelectorAll('td.number')].map(c => c.innerText)")
        n_fetched = page.run("performance.getEntriesByType('resource').length")

    assert headings == ["Alarms", "Quality", "Inputs", "Traffic"]
    assert len(drawn) == 3
    assert all(length > 100 for length in drawn)
    assert looks[360, False] == looks[1200, False] != looks[360, True] == looks[1200, True]
    assert n_fetched == 0
    assert "> 5" in cells  # of the answers, one in a hundred took longer than any bucket
    assert any(" to " in cell for cell in cells)  # limits stand beside their value
