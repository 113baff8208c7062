"""The loop: one picture of all its stages, and one for each notebook with its own stages lit."""

from collections.abc import Collection
from pathlib import Path

from tools.figures.svg import ORANGE, PLAIN, Drawing

_PACKAGE = Path(__file__).resolve().parents[2] / "mlops_mini"

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
    "01": tuple(name for name, _ in STAGES),
    "02": ("new data", "validate"),
    "03": ("features",),
    "04": ("train", "evaluate", "gate", "publish"),
    "05": ("evaluate", "gate"),
    "06": ("observe", "trigger"),
    "07": ("publish", "serve"),
    "08": ("publish", "serve"),
    "09": ("serve",),
    "10": ("serve",),
    "11": ("serve", "observe"),
    "12": ("canary",),
    "13": ("canary",),
    "14": ("new data", "evaluate"),
    "15": ("new data", "train"),
    "16": ("new data", "train", "evaluate"),
    "17": tuple(name for name, _ in STAGES),
}
_N_TOP = 6
_WIDTH, _HEIGHT = 900, 216
_BOX_W, _BOX_H, _GAP, _LEFT, _TOP = 122, 58, 28, 14, 22
_BOTTOM = _TOP + _BOX_H + 54


def draw_loop(*, highlighted: Collection[str] = ()) -> str:
    """Draw the loop as SVG text, with some stages, by name, in color."""
    names = ", ".join(name for name, _ in STAGES)
    drawing = Drawing(_WIDTH, _HEIGHT, title=f"The loop: {names}, and again")
    for index, (name, room) in enumerate(STAGES):
        is_there = any(_PACKAGE.glob(room)) or any(_PACKAGE.glob(f"{room}.py"))
        fill = ORANGE if name in highlighted else PLAIN
        place = (*_corner(index), _BOX_W, _BOX_H)
        drawing.box(*place, f"{name}\n{room}", fill=fill, is_dashed=not is_there)
        drawing.arrow(*_way_to_the_next(index))
    return drawing.svg()


def _corner(index: int) -> tuple[int, int]:
    """Left and top of a stage's box: the first six from left to right, then back below them."""
    column = index if index < _N_TOP else 2 * _N_TOP - 1 - index
    return _LEFT + column * (_BOX_W + _GAP), _TOP if index < _N_TOP else _BOTTOM


def _way_to_the_next(index: int) -> list[tuple[int, int]]:
    """Points of the arrow from a stage to the next one, from the last one back to the first."""
    x, y = _corner(index)
    next_x, next_y = _corner((index + 1) % len(STAGES))
    half_w, half_h = _BOX_W // 2, _BOX_H // 2
    if index == len(STAGES) - 1:
        middle = next_x + half_w
        return [(x, y + half_h), (middle, y + half_h), (middle, next_y + _BOX_H + 2)]
    if y != next_y:
        return [(x + half_w, y + _BOX_H), (x + half_w, next_y - 2)]
    if next_x > x:
        return [(x + _BOX_W, y + half_h), (next_x - 2, y + half_h)]
    return [(x, y + half_h), (next_x + _BOX_W + 2, y + half_h)]


def draw_all() -> dict[str, str]:
    """Draw the loop for the index and for each notebook: SVG text by file name."""
    drawn = {"loop.svg": draw_loop()}
    for notebook, stages in NOTEBOOKS.items():
        drawn[f"{notebook}_loop.svg"] = draw_loop(highlighted=stages)
    return drawn
