"""Notebook 04: what cells and components share, and what the key of a cached result is made of."""

from tools.figures.svg import BLUE, GREEN, LINE, ORANGE, RED, WHITE, Drawing


def draw_components() -> str:
    """Draw cells around one memory, and components between which only files pass."""
    drawing = Drawing(
        900, 300, title="Cells share one memory; components pass files and get parameters"
    )
    drawing.text(20, 26, "a notebook: everything can touch everything", is_bold=True)
    for n, cell in enumerate(("In [7]: load", "In [3]: limit = 30", "In [5]: count")):
        top = 56 + 74 * n
        drawing.box(20, top, 150, 46, cell, is_bold=False)
        drawing.line((170, top + 15), (236, top + 15), has_head=True)
        drawing.line((236, top + 31), (174, top + 31), has_head=True)
    drawing.box(240, 56, 130, 194, "memory\nlimit_min\ndelays\nshare\n...", fill=RED)
    drawing.line((420, 20), (420, 280), color=LINE, width=1)

    drawing.text(450, 26, "a pipeline: only files and parameters pass", is_bold=True)
    for x, name, parameter in ((450, "pick", "month"), (726, "share_late", "limit_min")):
        drawing.box(x, 126, 150, 70, "", is_dashed=True, fill=WHITE)
        drawing.box(x + 14, 138, 122, 46, name, fill=ORANGE)
        drawing.arrow((x + 75, 84), (x + 75, 134))
        drawing.text(x + 75, 76, parameter, anchor="middle", is_code=True)
    drawing.arrow((600, 161), (624, 161))
    drawing.box(626, 138, 74, 46, "delays\na file", fill=BLUE)
    drawing.arrow((700, 161), (722, 161))
    drawing.arrow((801, 196), (801, 240))
    drawing.text(801, 260, "23%", anchor="middle", is_bold=True)
    drawing.text(450, 222, "dashed: a process of its own,\non a cluster a container")
    return drawing.svg()


def draw_cache_key() -> str:
    """Draw what a task's key is made of, and what is done with it."""
    drawing = Drawing(
        900, 290, title="All that a result depends on becomes one key; a known key means: don't run"
    )
    parts = (
        "source of the component",
        "its image",
        "values of its parameters",
        "contents of its input files",
        "modules that it imports",
        "installed packages",
    )
    drawing.text(20, 24, "all that the result depends on", is_bold=True)
    for n, part in enumerate(parts):
        top = 38 + 41 * n
        drawing.box(20, top, 220, 32, part, is_bold=False, fill=BLUE)
        drawing.line((240, top + 16), (290, top + 16))
    drawing.line((290, 54), (290, 259))
    drawing.arrow((290, 156), (346, 156))
    drawing.box(350, 130, 140, 52, "key\na digest", fill=ORANGE)
    drawing.arrow((490, 156), (546, 156))
    drawing.box(550, 126, 120, 60, "seen\nbefore?")
    drawing.arrow((610, 126), (610, 70), (696, 70))
    drawing.text(600, 100, "yes", anchor="end")
    drawing.box(700, 40, 186, 60, "take that result\nif its files are unchanged", fill=GREEN)
    drawing.arrow((610, 186), (610, 242), (696, 242))
    drawing.text(600, 220, "no", anchor="end")
    drawing.box(700, 212, 186, 60, "run the task\nand remember the key", fill=RED)
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw the figures of notebook 04: SVG text by file name."""
    return {"04_components.svg": draw_components(), "04_cache_key.svg": draw_cache_key()}
