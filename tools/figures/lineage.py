"""Notebook 07: the way back from a prediction to the rows behind it."""

from tools.figures.svg import BLUE, GREEN, ORANGE, PLAIN, RED, Drawing


def draw_walk_back() -> str:
    """Draw what leads from a prediction to its data, and where each link is written down."""
    drawing = Drawing(
        900, 236, title="From a prediction back to its data: each link is written down somewhere"
    )
    links = (
        ("prediction", "request log", "What was said?", ORANGE),
        ("version", "its folder", "Who said it?", PLAIN),
        ("verdict", "the gate's file", "Why was it\nlet through?", PLAIN),
        ("run", "runner's records", "Which code,\nwhich parameters?", GREEN),
        ("partition", "its digest", "Which data?", BLUE),
        ("row", "quarantine", "Which rows\nwere left out?", RED),
    )
    for n, (name, place, question, fill) in enumerate(links):
        x = 14 + 148 * n
        drawing.box(x, 84, 130, 58, f"{name}\n{place}", fill=fill)
        drawing.text(x + 65, 172, question, anchor="middle")
        if n + 1 < len(links):
            drawing.arrow((x + 130, 113), (x + 146, 113))
    drawing.text(14, 30, "walk this way when something went wrong", is_bold=True)
    drawing.arrow((14, 52), (884, 52))
    drawing.text(14, 222, "Bold: what it is. Below it: where that is written down.")
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw the figure of notebook 07: SVG text by file name."""
    return {"07_walk_back.svg": draw_walk_back()}
