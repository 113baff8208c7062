"""What a loop's page and record say, and whether a browser shows it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from mlops_mini.errors import NotFoundError
from mlops_mini.loop import report, state
from mlops_mini.loop.comparison import Compared
from mlops_mini.loop.plan import Plan
from mlops_mini.loop.state import Served, State
from tests import browser

PLAN = Plan(
    use_case="tests.tenants.weekly:WEEKLY", data_folder="data", first="2026-W00", last="2026-W12",
    n_first=5,
)  # fmt: skip
LOSSES = {"never": 0.6, "served": 0.52, "always": 0.5}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A loop of eight weeks, as it's written down."""
    weeks = [f"2026-W{number:02}" for number in range(5, 13)]
    known = State(plan=PLAN, period=weeks[-1], step="end", stable=2, stage_s={"retrain": 30.0})
    for kind in ("first", "quarantined", "fired", "blessed", "releasing", "promoted"):
        known = known.noted(kind, f"why it was {kind}", version=2)
    served = tuple(
        Served(
            period=week, n_requests=100, n_labeled=90 + number, log_loss=LOSSES["served"],
            by_version={"1": 100}, psi={"temp_c": 0.1 * number, "load": 0.01},
        )
        for number, week in enumerate(weeks)
    )  # fmt: skip
    state.write(tmp_path, State(**{**_fields(known), "served": served}))
    (tmp_path / "comparison").mkdir()
    for week in weeks:
        compared = Compared(period=week, n_rows=90, never=LOSSES["never"], always=LOSSES["always"])
        (tmp_path / "comparison" / f"{week}.json").write_text(json.dumps(asdict(compared)))
    return tmp_path


def _fields(known: State) -> dict:
    return {name: getattr(known, name) for name in State.__dataclass_fields__}


def test_the_share_of_the_gap_is_computed_from_the_same_rows(workspace):
    written = report.record(workspace)

    assert written["quality"]["share"] == pytest.approx((0.6 - 0.52) / (0.6 - 0.5))
    assert written["quality"]["n_rows"] == sum(90 + number for number in range(8))
    assert [each["never"] for each in written["periods"]] == [0.6] * 8
    assert [event["kind"] for event in written["events"]][-1] == "promoted"
    assert written["is_over"]


def test_periods_that_are_not_compared_yet_do_not_count(workspace):
    (workspace / "comparison" / "2026-W12.json").unlink()

    assert report.record(workspace)["quality"]["n_rows"] == sum(90 + n for n in range(7))


def test_the_tables_say_what_happened_how_good_it_was_and_what_it_took(workspace):
    events, quality, stages, tasks = report.tables(workspace)

    assert events[2][1] == ("2026-W12", "quarantined", "2", "why it was quarantined")
    assert [row[-1] for row in quality[2]] == ["0%", "80%", "100%"]
    assert stages[2] == [("retrain", "30", "100%")]
    assert tasks[2] == []  # there were no runs


def test_the_page_needs_nothing_else_and_escapes_what_it_is_told(workspace):
    known = state.read(workspace).noted("failed", "<script>alert(1)</script>")
    state.write(workspace, known)

    text = report.write(workspace).read_text()

    assert "<script" not in text
    assert "80% of the gap is closed" in text
    for words in ("src=", "href=", "http"):
        assert words not in text


def test_a_loop_that_has_just_begun_has_a_page_too(tmp_path):
    state.write(tmp_path, State(plan=PLAN, period="2026-W05"))

    assert "0 periods were served (" in report.write(tmp_path).read_text()
    with pytest.raises(NotFoundError, match="no loop in"):
        report.write(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_all_of_it_without_scrolling_sideways(workspace, tmp_path, width):
    page_file = report.write(workspace)

    with browser.opened(tmp_path) as page:
        page.open(page_file.as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelector('svg')")
        page.screenshot(tmp_path / "page.png", width=width, height=900)
        seen = page.run(
            """({page: document.documentElement.scrollWidth,
                window: document.documentElement.clientWidth,
                lines: [...document.querySelectorAll("polyline")].map(p => p.getTotalLength()),
                dots: [...document.querySelectorAll("circle")].map(c => c.getBBox().x)})"""
        )

    assert seen["page"] <= seen["window"] <= width
    assert len(seen["lines"]) == 2 + 2
    assert all(length > 100 for length in seen["lines"])
    assert len(seen["dots"]) == 5
    assert all(0 < x < 440 for x in seen["dots"])
