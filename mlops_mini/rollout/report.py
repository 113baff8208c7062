"""What a release did, as a page: weights, requests and evidence over time, and each decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from mlops_mini import page
from mlops_mini.rollout import guardrails
from mlops_mini.rollout.controller import Phase
from mlops_mini.rollout.release import Release

_VERDICTS = {
    Phase.PROMOTED: "{canary} was promoted",
    Phase.ROLLED_BACK: "{canary} was rolled back, {stable} serves",
    Phase.ABORTED: "{canary} was given up, {stable} serves",
    Phase.PAUSED: "{canary} waits for somebody to decide",
}


def verdict(release: Release) -> str:
    """Say in a sentence how the release stands.

    Args:
        release: A release, at any time.
    """
    state = release.state
    words = _VERDICTS.get(state.phase, "{canary} is being released")
    return words.format(canary=release.canary.name, stable=release.stable.name)


def evidence_rows(release: Release) -> list[tuple[str, ...]]:
    """Make a row per guardrail: its name, both sides' counts, their ratio, e and the alarm's limit.

    Args:
        release: A release, at any time.
    """
    rows: list[tuple[str, ...]] = []
    for guardrail, one in zip(release.strategy.guardrails, release.evidence(), strict=True):
        c = one.counts
        ratio = "none"
        if guardrail.test in ("proportion", "latency"):
            low, high = guardrails.ratio_interval(release.state.looks, guardrail.metrics[0])
            ratio = f"{low:.2f} to {'any' if math.isinf(high) else f'{high:.2f}'}"
        rows.append(
            (
                guardrail.name,
                f"{c.bad_canary:,} of {c.n_canary:,}",
                f"{c.bad_stable:,} of {c.n_stable:,}",
                ratio,
                guardrails.e_value(one.log_e),
                guardrails.e_value(one.limit),
            )
        )
    return rows


EVIDENCE_HEADER = ("guardrail", "canary", "stable", "ratio", "e", "alarm at")


def html_page(release: Release, decisions: Sequence[Mapping[str, Any]]) -> str:
    """Write the page of a release.

    Args:
        release: A release, at any time.
        decisions: What `release.decisions` lists.

    Returns:
        HTML that needs no network, readable on a phone.
    """
    looks = release.state.looks
    parts = [
        page.paragraph(f"{verdict(release)}: {release.state.reason}."),
        page.heading("What was decided, and why"),
        page.table(
            ("time", "phase", "canary's share", "reason"),
            [
                (str(d["time"])[11:19], str(d["phase"]), f"{d['weight_pct']:g} %", str(d["reason"]))
                for d in decisions
            ],
        ),
        page.heading("What was seen"),
        page.table(EVIDENCE_HEADER, evidence_rows(release)),
    ]
    if looks:
        parts += _drawings(release)
    return page.page(f"Release of {release.model}: {verdict(release)}", *parts)


def _drawings(release: Release) -> list[str]:
    looks = release.state.looks
    seconds = list(accumulate(look.seconds for look in looks))
    of_look = [look.counts.get("error", guardrails.Counts()) for look in looks]
    limit = math.log10(len(release.strategy.guardrails) / release.strategy.alpha)
    by_guardrail = [
        page.Line(
            name=g.name, values=[e / math.log(10) for e in guardrails.log_e_by_look(looks, g)]
        )
        for g in release.strategy.guardrails
    ]
    highest = max(float(max(line.values)) for line in by_guardrail)
    found = "crossed the alarm's line" if highest >= limit else "stayed below the alarm's line"
    n_canary = sum(counts.n_canary for counts in of_look)
    return [
        page.lines(
            [page.Line(name="share", values=[k.weight_pct for k in looks], is_step=True)],
            caption=f"The canary's share rose to {max(k.weight_pct for k in looks):g} %",
            x=seconds,
            x_label="seconds since the first look",
            y_label="percent of the requests",
        ),
        page.lines(
            [
                page.Line(name=release.canary.name, values=[c.n_canary for c in of_look]),
                page.Line(name=release.stable.name, values=[c.n_stable for c in of_look]),
            ],
            caption=f"{release.canary.name} answered {n_canary:,} requests",
            x=seconds,
            x_label="seconds since the first look",
            y_label="requests in a look",
        ),
        page.lines(
            by_guardrail,
            caption=f"The evidence against the canary {found}",
            x=seconds,
            x_label="seconds since the first look",
            y_label="powers of ten of the e-value; dashed: alarm",
            alarm=limit,
        ),
    ]
