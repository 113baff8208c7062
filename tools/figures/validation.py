"""Notebook 02: what a network gets instead of a flight, and how a schema comes to be."""

from tools.figures.svg import BLUE, GREEN, LINE, ORANGE, RED, WHITE, Drawing


def draw_inputs() -> str:
    """Draw how distance, origin and destination become numbers, and where an unseen one ends up."""
    drawing = Drawing(
        900,
        400,
        title="Three columns of a flight become numbers: scaled, one-hot, an embedding row",
    )
    drawing.text(20, 26, "what the table holds", is_bold=True)
    drawing.text(330, 26, "what our code makes of it", is_bold=True)
    drawing.text(660, 26, "what the network gets", is_bold=True)

    drawing.box(20, 46, 150, 50, "distance\n733 miles", fill=BLUE)
    drawing.arrow((170, 71), (326, 71))
    drawing.text(330, 66, "subtract January's mean,\ndivide by its standard deviation")
    drawing.arrow((560, 71), (656, 71))
    drawing.cells(660, 56, 60, 30, ["-0.38"], fill=WHITE)
    drawing.text(730, 76, "a number near zero")

    drawing.box(20, 126, 150, 50, "origin\nJFK", fill=BLUE)
    drawing.arrow((170, 151), (326, 151))
    drawing.text(330, 156, "one column for each airport")
    drawing.arrow((560, 151), (656, 151))
    for n, (airport, value) in enumerate((("EWR", "0"), ("JFK", "1"), ("LGA", "0"))):
        drawing.text(690 + 60 * n, 130, airport, anchor="middle")
        drawing.cells(660 + 60 * n, 136, 60, 30, [value], fill=ORANGE if value == "1" else WHITE)

    drawing.box(20, 216, 150, 50, "dest\nORD", fill=BLUE)
    drawing.arrow((170, 241), (326, 241))
    drawing.text(330, 246, "look it up in a list: number 60")
    drawing.box(20, 316, 150, 50, "dest\nACK", fill=RED)
    drawing.arrow((170, 341), (326, 341), is_dashed=True)
    drawing.text(330, 336, "not in the list: pandas says -1,\nand Python takes that for the last")
    labels = ("0  ALB", "...", "60  ORD", "...", "93  XNA")
    for n, label in enumerate(labels):
        top = 206 + 34 * n
        fill = {2: ORANGE, 4: RED}.get(n, WHITE)
        drawing.box(660, top, 90, 34, label, is_bold=False, corner=0)
        drawing.box(750, top, 130, 34, "· · · · · ·", is_bold=False, corner=0, fill=fill)
    drawing.arrow((560, 241), (610, 241), (610, 291), (656, 291))
    drawing.arrow((580, 359), (656, 359), is_dashed=True)
    drawing.text(880, 396, "one row of learned numbers for each destination", anchor="end")
    return drawing.svg()


def draw_schema() -> str:
    """Draw how a schema is inferred from one month, reviewed once, and asked about every other."""
    drawing = Drawing(
        900, 190, title="January is turned into a schema, a person reviews it, it judges each month"
    )
    drawing.box(14, 60, 120, 60, "January\nas it arrived", fill=BLUE)
    drawing.arrow((134, 90), (204, 90))
    drawing.text(169, 80, "infer", anchor="middle")
    drawing.box(208, 60, 150, 60, "literal schema\n“month is 1 to 1”")
    drawing.arrow((358, 90), (438, 90))
    drawing.text(398, 80, "review", anchor="middle")
    drawing.box(442, 60, 160, 60, "reviewed schema\n“month is 1 to 12”", fill=ORANGE)
    drawing.arrow((602, 90), (684, 90))
    drawing.text(643, 80, "judge", anchor="middle")
    drawing.box(688, 14, 198, 40, "February … pass", fill=GREEN)
    drawing.box(688, 70, 198, 40, "July … 1 error", fill=RED)
    drawing.box(688, 126, 198, 40, "December … pass", fill=GREEN)
    drawing.line((684, 34), (684, 146), color=LINE)
    drawing.text(398, 150, "a person, once", anchor="middle")
    drawing.text(670, 178, "a program, every month", anchor="end")
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw the figures of notebook 02: SVG text by file name."""
    return {"02_inputs.svg": draw_inputs(), "02_schema.svg": draw_schema()}
