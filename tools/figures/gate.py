"""Draws what two models learn from and are judged on, in notebook 05."""

from tools.figures.svg import ORANGE, PLAIN, Drawing

_LEFT, _DAY = 150, 10  # pixels: where day 0 is, and a day
_HEIGHT = 40
# Title, then what the baseline and the candidate learn from and what judges: first and last day.
_PROTOCOLS = (
    ("retrained weekly, judged on the newest week: one model, twice", (0, 49), (0, 49), (49, 56)),
    ("days that neither has seen, and models that differ", (0, 28), (0, 49), (49, 63)),
)


def draw_holdout() -> str:
    """Draw a comparison of a model with itself, and one of two models."""
    title = (
        "A comparison of a model with itself, and one of two models on days that both haven't seen"
    )
    drawing = Drawing(900, 304, title=title)
    for n, (text, baseline, candidate, judges) in enumerate(_PROTOCOLS):
        top = 34 + 164 * n
        drawing.text(14, top - 12, text, is_bold=True)
        for row, (name, (start, end)) in enumerate(
            (("baseline", baseline), ("candidate", candidate))
        ):
            y = top + row * (_HEIGHT + 12)
            drawing.text(14, y + 26, name)
            x, width = _LEFT + start * _DAY, (end - start) * _DAY
            drawing.box(x, y, width, _HEIGHT, f"learns from {end} days", fill=PLAIN)
        x, width = _LEFT + judges[0] * _DAY, (judges[1] - judges[0]) * _DAY
        height = 2 * _HEIGHT + 12
        drawing.box(x, top, width, height, f"{judges[1] - judges[0]} days\njudge", fill=ORANGE)
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {"05_holdout.svg": draw_holdout()}
