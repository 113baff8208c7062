import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_mini.rollout import controller
from mlops_mini.rollout.controller import Phase, State, Strategy
from mlops_mini.rollout.guardrails import ERRORS, LATENCY, Counts, Look
from mlops_mini.rollout.policy import Backend
from mlops_mini.rollout.release import Release
from mlops_mini.rollout.report import evidence_rows, html_page, verdict

V1 = Backend(name="v1", rest="127.0.0.1:8501", grpc="127.0.0.1:8500")
V2 = Backend(name="v2", rest="127.0.0.1:8601", grpc="127.0.0.1:8600")


@pytest.fixture(scope="module")
def rolled_back() -> Release:
    strategy = Strategy(guardrails=(ERRORS, LATENCY), step_requests=20)
    release = Release(model="flights", stable=V1, canary=V2, strategy=strategy)
    state = controller.step(State(), Look(seconds=1, weight_pct=0), strategy)
    while not state.is_over:
        share = state.weight_pct(strategy)
        n = round(share * 10)
        counts = Counts(
            n_canary=n, n_stable=1000 - n, bad_canary=n // 20, bad_stable=(1000 - n) // 100
        )
        look = Look(seconds=1, weight_pct=share, counts={"error": counts})
        state = controller.step(state, look, strategy)
    return replace(release, state=state)


def test_the_page_says_what_happened_and_why(rolled_back: Release) -> None:
    decision = {
        "time": "2026-11-29T12:00:00.000+00:00",
        "phase": "ROLLED_BACK",
        "weight_pct": 0,
        "reason": rolled_back.state.reason,
    }

    text = html_page(rolled_back, [decision])

    assert rolled_back.state.phase is Phase.ROLLED_BACK
    assert "v2 was rolled back, v1 serves" in text
    assert rolled_back.state.reason in text
    assert "crossed the alarm&#x27;s line" in text
    assert text.count("<svg") == 3


def test_a_release_without_a_look_has_a_page_too() -> None:
    release = Release(model="flights", stable=V1, canary=V2, strategy=Strategy())

    assert "v2 is being released" in html_page(release, [])
    assert verdict(release) == "v2 is being released"


def test_each_guardrail_has_a_row_with_an_interval(rolled_back: Release) -> None:
    errors, latency = evidence_rows(rolled_back)

    low, high = (float(bound) for bound in errors[3].split(" to "))
    assert 1 < low < 5 < high < math.inf
    assert latency[0] == "latency"
    assert latency[3] == "0.00 to any"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_it_without_scrolling_sideways(
    rolled_back: Release, tmp_path: Path, width: int
) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    decision = {"time": "2026-11-29T12:00:00", "phase": "RAMP", "weight_pct": 5, "reason": "so"}
    text = html_page(rolled_back, [decision] * 3)
    probe = """<script>addEventListener("load", () => { const d = document.documentElement;
      document.title = JSON.stringify({page: d.scrollWidth, window: d.clientWidth,
        lines: [...document.querySelectorAll("polyline")].map(p => p.getTotalLength())}) })
      </script></body>"""
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", probe))

    shown = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip

    title = shown.partition("<title>")[2].partition("</title>")[0]
    seen = json.loads(title.replace("&quot;", '"'))
    assert seen["page"] <= seen["window"]
    assert all(length > 100 for length in seen["lines"])
    assert len(seen["lines"]) == 5
