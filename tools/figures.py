"""Draws the loop from the stages named here: one picture of all, and one for each notebook.

Plain SVG, written as text: the same bytes on every machine, a white ground of its own so that it
reads in light and dark themes, and text in the reader's own sans-serif font.

Example: python -m tools.figures
"""

from collections.abc import Collection
from pathlib import Path
from xml.sax.saxutils import escape

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "mlops_mini"
FIGURES = _ROOT / "notebooks" / "figures"

# The loop in order, each stage with the room of the package that does it; dashed while that room is
# not there yet.
STAGES = (
    ("new data", "data"),
    ("validate", "data"),
    ("features", "features"),
    ("train", "pipeline"),
    ("evaluate", "pipeline"),
    ("gate", "pipeline"),
    ("publish", "pipeline"),
    ("serve", "serving"),
    ("canary", "rollout"),
    ("observe", "monitoring"),
    ("trigger", "triggers"),
)
# The stages that a notebook is about.
NOTEBOOKS = {
    "02": ("new data", "validate"),
    "03": ("features",),
    "04": ("train", "evaluate", "gate", "publish"),
    "08": ("publish", "serve"),
}
_N_TOP = 6
_WIDTH, _HEIGHT = 900, 216
_BOX_W, _BOX_H, _GAP, _LEFT, _TOP = 122, 58, 28, 14, 22
_BOTTOM = _TOP + _BOX_H + 54
_INK, _LINE, _PLAIN, _LIT = "#222222", "#555555", "#f2f2f2", "#e69f00"


def draw_loop(*, highlighted: Collection[str] = ()) -> str:
    """Draw the loop as SVG text, with some stages, by name, in color."""
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
            f' viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif">'
        ),
        f"<title>The loop: {escape(', '.join(name for name, _ in STAGES))}, and again</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        (
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6"'
            f' markerHeight="6" orient="auto"><path d="M0 0 10 5 0 10z" fill="{_LINE}"/></marker>'
            "</defs>"
        ),
    ]
    for index, (name, room) in enumerate(STAGES):
        parts += _box(*_corner(index), name, room, is_lit=name in highlighted)
        parts.append(_arrow(index))
    return "\n".join([*parts, "</svg>", ""])


def _corner(index: int) -> tuple[int, int]:
    """Left and top of a stage's box: the first six from left to right, then back below them."""
    column = index if index < _N_TOP else 2 * _N_TOP - 1 - index
    return _LEFT + column * (_BOX_W + _GAP), _TOP if index < _N_TOP else _BOTTOM


def _box(x: int, y: int, name: str, room: str, *, is_lit: bool) -> list[str]:
    middle = x + _BOX_W // 2
    is_there = any(_PACKAGE.glob(room)) or any(_PACKAGE.glob(f"{room}.py"))
    dashes = "" if is_there else ' stroke-dasharray="5 4"'
    return [
        (
            f'<rect x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}" rx="8"'
            f' fill="{_LIT if is_lit else _PLAIN}" stroke="{_LINE}"{dashes}/>'
        ),
        (
            f'<text x="{middle}" y="{y + 25}" font-size="14" font-weight="600" text-anchor="middle"'
            f' fill="{_INK}">{escape(name)}</text>'
        ),
        (
            f'<text x="{middle}" y="{y + 44}" font-size="12" text-anchor="middle"'
            f' fill="{_INK}">{escape(room)}</text>'
        ),
    ]


def _arrow(index: int) -> str:
    """Draw the arrow from a stage to the next one, the last one back to the first."""
    x, y = _corner(index)
    next_x, next_y = _corner((index + 1) % len(STAGES))
    half_w, half_h = _BOX_W // 2, _BOX_H // 2
    if index == len(STAGES) - 1:
        path = f"M{x} {y + half_h} H{next_x + half_w} V{next_y + _BOX_H + 2}"
    elif y != next_y:
        path = f"M{x + half_w} {y + _BOX_H} V{next_y - 2}"
    elif next_x > x:
        path = f"M{x + _BOX_W} {y + half_h} H{next_x - 2}"
    else:
        path = f"M{x} {y + half_h} H{next_x + _BOX_W + 2}"
    return (
        f'<path d="{path}" fill="none" stroke="{_LINE}" stroke-width="2" marker-end="url(#head)"/>'
    )


def draw_all() -> dict[str, str]:
    """Draw every figure: SVG text by file name."""
    drawn = {"loop.svg": draw_loop()}
    for notebook, stages in NOTEBOOKS.items():
        drawn[f"{notebook}_loop.svg"] = draw_loop(highlighted=stages)
    return drawn


def main() -> None:
    """Write the figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, svg in draw_all().items():
        (FIGURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
