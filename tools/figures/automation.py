"""Draws the three circles of notebook 01: integration, delivery, training."""

from tools.figures.svg import BLUE, GREEN, ORANGE, WHITE, Drawing

_LEFT, _STEP, _WIDTH, _HEIGHT = 172, 244, 190, 52


def draw_circles() -> str:
    """Draw three rows that each come round again: what goes in, what comes out, who's told."""
    title = "Three circles: a change is tested, a pipeline is delivered, a model is trained again"
    drawing = Drawing(900, 376, title=title)
    rows = (
        (
            "CI\nat each change", BLUE, 1,
            ("a change\nof code or data", "tests\ncode, data, model", "a package\nand its digest"),
            "a test fails: the author mends it",
        ),
        (
            "CD\nfor each package", GREEN, 1,
            ("a package\nand its digest", "the pipeline\nin production", "a version\nis served"),
            "the digest differs: nothing is delivered",
        ),
        (
            "CT\nfor each reason", ORANGE, 2,
            ("a trigger\nsuch as new data", "the pipeline\nas delivered", "a version\ntakes over"),
            "the world changes: the next trigger fires",
        ),
    )  # fmt: skip
    for n, (name, fill, last, boxes, back) in enumerate(rows):
        y = 14 + 128 * n
        foot, turn = y + _HEIGHT, y + _HEIGHT + 24
        drawing.text(14, y + 24, name, is_bold=True)
        for column, text in enumerate(boxes):
            x = _LEFT + _STEP * column
            drawing.box(x, y, _WIDTH, _HEIGHT, text, fill=fill if column == 1 else WHITE)
            if column:
                drawing.arrow((x - _STEP + _WIDTH, y + 26), (x - 2, y + 26))
        first = _LEFT + _WIDTH / 2
        end = first + _STEP * last
        drawing.arrow((end, foot), (end, turn), (first, turn), (first, foot + 2))
        drawing.text((first + end) / 2, turn + 19, back, anchor="middle")
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {"01_circles.svg": draw_circles()}
