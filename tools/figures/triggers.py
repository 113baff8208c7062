"""Notebook 06: the life of a firing."""

from tools.figures.svg import BLUE, GREEN, ORANGE, PLAIN, RED, Drawing


def draw_ledger() -> str:
    """Draw the states of a firing."""
    drawing = Drawing(900, 250, title="The life of a firing: pending, running, done, or suppressed")
    drawing.box(20, 80, 130, 60, "fire\nkey, reason", fill=BLUE)
    drawing.box(250, 80, 140, 60, "PENDING", fill=PLAIN)
    drawing.box(490, 80, 140, 60, "RUNNING\nbeats", fill=ORANGE)
    drawing.box(730, 30, 150, 50, "DONE\noutcome", fill=GREEN)
    drawing.box(730, 140, 150, 50, "FAILED\nerror", fill=RED)
    drawing.box(250, 180, 140, 50, "SUPPRESSED\nreason", fill=PLAIN)
    drawing.box(250, 12, 140, 40, "DUPLICATE", fill=PLAIN)
    drawing.arrow((150, 110), (246, 110))
    drawing.arrow((150, 95), (246, 40), is_dashed=True)
    drawing.text(40, 52, "the key is known:\nnothing changes")
    drawing.arrow((150, 125), (246, 195))
    drawing.text(40, 188, "too soon, or\nrefused too often")
    drawing.arrow((390, 110), (486, 110))
    drawing.text(438, 100, "claim", anchor="middle")
    drawing.arrow((630, 95), (726, 60))
    drawing.arrow((630, 125), (726, 160))
    drawing.arrow((540, 140), (540, 180), (590, 180), (590, 144))
    drawing.text(500, 204, "silent for too long: another\nworker claims it, same run id")
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw it: SVG text by file name."""
    return {"06_ledger.svg": draw_ledger()}
