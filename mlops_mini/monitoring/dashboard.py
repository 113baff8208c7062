"""The page of a model that serves: one HTML file that needs no network and no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from mlops_mini import page
from mlops_mini.evidence.intervals import Interval
from mlops_mini.monitoring.reports import Alert, WindowReport
from mlops_mini.monitoring.scrapes import Traffic

_N_SHOWN = 12
_NONE = "-"


def html_page(
    model: str, reports: Sequence[WindowReport], alerts: Sequence[Alert], *, now: datetime
) -> str:
    """Write the page.

    Args:
        model: Its name.
        reports: Of all windows, oldest first.
        alerts: Of these reports.
        now: When they were made.
    """
    newest = [alert for alert in alerts if reports and alert.window == reports[-1].window]
    said = f"{len(newest) or 'no'} alarm{'s' if len(newest) > 1 else ''}"
    parts = [
        page.paragraph(
            f"As of {now:%Y-%m-%d %H:%M} UTC, {len(reports)} windows;"
            f" {said} in the newest, {len(alerts)} in all."
        )
    ]
    if alerts:
        rows = [(alert.window, alert.rule, alert.text) for alert in reversed(alerts)]
        parts += [page.heading("Alarms"), page.table(("window", "rule", "what"), rows[:_N_SHOWN])]
    if reports:
        parts += [page.heading("Quality"), *_quality(reports)]
        parts += [page.heading("Inputs"), *_inputs(reports)]
        parts += [page.heading("Traffic"), *_traffic(reports)]
    return page.page(f"{model}, as it serves", *parts)


def _quality(reports: Sequence[WindowReport]) -> list[str]:
    def line(name: str, get: Callable[[Interval], float]) -> page.Line:
        measured = [each.cohort.excess_log_loss for each in reports]
        return page.Line(name=name, values=[get(i) if i else math.nan for i in measured])

    drawn = [
        line("excess log loss", lambda i: i.value),
        line("lower limit", lambda i: i.lower),
        line("upper limit", lambda i: i.upper),
    ]
    rows = [
        (
            each.window,
            each.cohort.state,
            f"{each.cohort.n:,}",
            _number(each.cohort.labeled, ".1%"),
            _interval(each.cohort.log_loss),
            _interval(each.cohort.excess_log_loss),
            ", ".join(f"{cohort.version}: {cohort.n:,}" for cohort in each.by_version),
        )
        for each in reports[: -_N_SHOWN - 1 : -1]
    ]
    header = (
        "window", "state", "predictions", "labeled", "log loss (limits)", "excess (limits)",
        "by version",
    )  # fmt: skip
    return [
        page.lines(
            drawn,
            caption="Below 0, the model is better than always answering the share of the labels",
            x_label=f"windows {reports[0].window} to {reports[-1].window}",
            y_label="nats; windows without enough labels are left out",
        ),
        page.table(header, rows),
    ]


def _inputs(reports: Sequence[WindowReport]) -> list[str]:
    newest = reports[-1]
    parts = []
    for name, compared in (
        ("the window before", newest.drift),
        ("what the model has learned from", newest.skew),
    ):
        if compared is None:
            parts.append(page.paragraph(f"Nothing to compare with {name}."))
            continue
        rows = [
            (
                column.column,
                f"{column.psi:.3f}",
                _number(column.threshold, ".3f"),
                _number(column.relevance, ".2g"),
                "moved" if column.has_moved else "",
            )
            for column in compared.columns[:_N_SHOWN]
        ]
        parts += [
            page.paragraph(f"The newest window against {name}, the most relevant first."),
            page.table(("input", "PSI", "threshold", "PSI times importance", ""), rows),
        ]
    return parts + _row_skew(newest)


def _row_skew(newest: WindowReport) -> list[str]:
    found = newest.row_skew
    if found is None:
        return [page.paragraph("Nobody has computed the inputs again, to compare them row by row.")]
    said = (
        f"Of the newest window, {found.n_rows:,} rows were computed again, and in"
        f" {found.n_different:,} an input had another value when it was sent."
    )
    rows = [
        (each.column, f"{each.share:.1%}", each.example) for each in found.columns if each.share
    ]
    header = ("input", "rows that differ", "such as")
    return [page.paragraph(said), *([page.table(header, rows[:_N_SHOWN])] if rows else [])]


def _traffic(reports: Sequence[WindowReport]) -> list[str]:
    rows = [
        (
            each.window,
            f"{each.traffic.n_requests:,}",
            _number(each.traffic.error_rate, ".2%"),
            *(_latency(each.traffic, share) for share in (0.5, 0.99)),
        )
        for each in reports[: -_N_SHOWN - 1 : -1]
        if each.traffic
    ]
    if not rows:
        return [page.paragraph("No server was scraped.")]
    header = ("window", "requests", "errors", "half within (ms)", "99 of 100 within (ms)")
    return [page.table(header, rows)]


def _latency(traffic: Traffic, share: float) -> str:
    """Show within how many milliseconds that share was answered, or what wasn't enough."""
    value = traffic.latency_ms(share)
    if math.isinf(value):
        edges = [float(edge) for edge in traffic.n_below_us if edge != "+Inf"]
        return f"> {max(edges, default=0.0) / 1e3:g}"
    return _number(value, "g")


def _number(value: float, how: str) -> str:
    return _NONE if math.isnan(value) else format(value, how)


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return _NONE
    return f"{interval.value:.3f} ({interval.lower:.3f} to {interval.upper:.3f})"
