"""Pages that need nothing else: HTML with tables and drawn lines, without a network or a script."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --faint: #5c6b7a; --line: #d5dce3;
  --paper: #fff; --a: #0b62a8; --b: #c0571a; --c: #3f7d3a; --d: #7a4fa3; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9ef; --faint: #9aa8b5; --line: #3a4650;
  --paper: #14191e; --a: #6db3ee; --b: #f0a273; --c: #8fcf88; --d: #c3a1e6; --alarm: #ff897d; } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p { max-width: 44rem; } figure { margin: 1.5rem 0; max-width: 40rem; }
figcaption { font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
th { color: var(--faint); font-weight: 600; } th.number, td.number { text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 36rem) { .told, .told tbody { display: block; } .told thead { display: none; }
  .told tr { display: flex; flex-wrap: wrap; border-bottom: 1px solid var(--line); }
  .told td { border: 0; } .told td:last-child { flex-basis: 100%; padding-top: 0;
    overflow-wrap: anywhere; } }
svg { width: 100%; height: auto; }
svg text { fill: var(--faint); font: 13px system-ui, sans-serif; }
.axis { stroke: var(--line); } .alarm { stroke: var(--alarm); stroke-dasharray: 5 4; }
polyline { fill: none; stroke-width: 2; }
.s0 { stroke: var(--a); } .s1 { stroke: var(--b); }
.s2 { stroke: var(--c); } .s3 { stroke: var(--d); }
.f0 { fill: var(--a); } .f1 { fill: var(--b); } .f2 { fill: var(--c); } .f3 { fill: var(--d); }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: 1.2rem; border-top: 3px solid; margin-right: .4rem;
  vertical-align: middle; }
.legend .s0 { border-color: var(--a); } .legend .s1 { border-color: var(--b); }
.legend .s2 { border-color: var(--c); } .legend .s3 { border-color: var(--d); }
"""
_NUMBER = re.compile(r"[-+.\d][\d,.^]*( ?%)?")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 440, 190, 48, 28, 14
_ROW, _NAMES = 22, 150  # of the drawing of events: height of a row, width of the names


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a drawing.

    Attributes:
        name: For the legend.
        values: One per place on the x axis; NaN where there is none.
        is_step: Whether a value holds until the next one, as a setting does.
    """

    name: str
    values: Sequence[float]
    is_step: bool = False


def page(title: str, *parts: str) -> str:
    """Put a page together.

    Args:
        title: What the page is about; it's escaped.
        parts: HTML, as the other functions here give it.
    """
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{_STYLE}</style></head>\n<body><main><h1>{name}</h1>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def heading(text: str) -> str:
    """Begin a section."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Say something."""
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table; columns of numbers stand to the right.

    If the last column is text, a phone shows it below the others.
    """
    css = [
        ' class="number"' if rows and all(_NUMBER.fullmatch(row[i]) for row in rows) else ""
        for i in range(len(header))
    ]
    head = "".join(
        f"<th scope=col{c}>{html.escape(name)}</th>" for name, c in zip(header, css, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{c}>{html.escape(cell)}</td>" for cell, c in zip(row, css, strict=True))
        + "</tr>\n"
        for row in rows
    )
    is_told = not css[-1] and len(header) > 2
    return (
        f'<div class="wide"><table{" class=told" if is_told else ""}>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def lines(
    drawn: Sequence[Line],
    *,
    caption: str,
    x_label: str,
    y_label: str,
    x: Sequence[float] | None = None,
    alarm: float | None = None,
) -> str:
    """Draw up to four lines.

    Args:
        drawn: The lines, each with a value per place.
        caption: What the drawing shows: its finding.
        x_label: What the x axis counts, with its unit.
        y_label: What the y axis is, with its unit.
        x: Places on the x axis, rising; 1, 2, ... by default.
        alarm: Height of a line that must not be crossed.

    Returns:
        HTML with an SVG, which is as wide as the page.
    """
    places = list(x) if x is not None else list(range(1, max(len(d.values) for d in drawn) + 1))
    finite = [v for line in drawn for v in line.values if math.isfinite(v)]
    low = min([0.0, *finite])
    high = max([*finite, alarm if alarm is not None else 0.0, low + 1e-9])
    step = _round_step((high - low) / 2)
    ticks = [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
    low, high = ticks[0], ticks[-1]
    left, right = (places[0], places[-1]) if places else (0, 1)

    def at(place: float, value: float) -> str:
        share_x = (place - left) / ((right - left) or 1)
        share_y = (value - low) / (high - low)
        px = _LEFT + share_x * (_WIDTH - _LEFT - 10)
        return f"{px:.1f},{_HEIGHT - _BOTTOM - share_y * (_HEIGHT - _BOTTOM - _TOP):.1f}"

    def level(value: float, css: str) -> str:
        (x1, y1), (x2, y2) = (at(place, value).split(",") for place in (left, right))
        return f'<line class="{css}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'

    marks = [level(low, "axis")]
    for value in ticks:
        y = float(at(left, value).split(",")[1]) + 4
        marks.append(f'<text x="{_LEFT - 8}" y="{y:.1f}" text-anchor="end">{value:,.3g}</text>')
    for place, anchor in ((left, "start"), (right, "end")):
        px = at(place, low).split(",")[0]
        marks.append(f'<text x="{px}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{place:.3g}</text>')
    marks.append(
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}'
        "</text>"
    )
    if alarm is not None:
        marks.append(level(alarm, "alarm"))
    for i, line in enumerate(drawn):
        marks.append(f'<polyline class="s{i % 4}" points="{_points(line, places, at)}"/>')
    legend = "".join(
        f'<span><i class="s{i % 4}"></i>{html.escape(line.name)}</span>'
        for i, line in enumerate(drawn)
    )
    return (
        f'<figure><figcaption>{html.escape(caption)}</figcaption><svg role="img" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-label="{html.escape(caption)}">{"".join(marks)}'
        f'</svg><div class="legend">{legend} ({html.escape(y_label)})</div></figure>'
    )


def marks(rows: Sequence[tuple[str, Sequence[int]]], *, names: Sequence[str], caption: str) -> str:
    """Draw what happened when: a row for each kind of event, a dot for each time.

    Args:
        rows: Name of a kind, and the places where it happened, from 0.
        names: Of the places, for the axis and for whoever points at a dot.
        caption: What the drawing shows.

    Returns:
        HTML with an SVG, which is as wide as the page.
    """
    height = _TOP + _ROW * len(rows) + _BOTTOM
    step = (_WIDTH - _NAMES - 12) / max(len(names) - 1, 1)
    drawn = []
    for i, (name, places) in enumerate(rows):
        y = _TOP + _ROW * i + _ROW / 2
        drawn.append(f'<line class="axis" x1="{_NAMES}" y1="{y}" x2="{_WIDTH - 8}" y2="{y}"/>')
        drawn.append(
            f'<text x="{_NAMES - 10}" y="{y + 4}" text-anchor="end">{html.escape(name)}</text>'
        )
        drawn += [
            f'<circle class="f{i % 4}" cx="{_NAMES + 2 + place * step:.1f}" cy="{y}" r="4">'
            f"<title>{html.escape(f'{names[place]}: {name}')}</title></circle>"
            for place in places
        ]
    ends = ((0, "start", _NAMES), (len(names) - 1, "end", _WIDTH - 8)) if names else ()
    for place, anchor, x in ends:
        drawn.append(
            f'<text x="{x}" y="{height - 8}" text-anchor="{anchor}">{html.escape(names[place])}'
            "</text>"
        )
    return (
        f'<figure><figcaption>{html.escape(caption)}</figcaption><svg role="img" '
        f'viewBox="0 0 {_WIDTH} {height}" aria-label="{html.escape(caption)}">{"".join(drawn)}'
        "</svg></figure>"
    )


def _round_step(step: float) -> float:
    """Round a step up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * size for size in (1, 2, 5, 10) if power * size >= step * 0.999)


def _points(line: Line, places: Sequence[float], at: Callable[[float, float], str]) -> str:
    points: list[str] = []
    before: float | None = None
    for place, value in zip(places, line.values, strict=True):
        if not math.isfinite(value):
            continue
        if line.is_step and before is not None:
            points.append(at(place, before))
        points.append(at(place, value))
        before = value
    return " ".join(points)
