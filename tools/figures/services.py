"""Draws a service around a model, and its swap by two processes, for notebook 10."""

from tools.figures.svg import BLUE, GREEN, ORANGE, PLAIN, RED, WHITE, Drawing


def draw_service() -> str:
    """Draw what a request passes on its way to the model, and what each step refuses."""
    title = "A request passes three steps before the model; each refuses some, and says why"
    drawing = Drawing(900, 214, title=title)
    drawing.box(14, 62, 110, 60, "a client", fill=WHITE)
    steps = (
        ("limit and count", "bytes, status, time", BLUE, "413: too large"),
        ("ready?", "a version is loaded", GREEN, "503: what's missing"),
        ("schema", "types, ranges, rows", BLUE, "400: which field"),
        ("the model", "one version", ORANGE, ""),
    )
    for n, (name, detail, fill, refusal) in enumerate(steps):
        x = 164 + 186 * n
        drawing.box(x, 56, 146, 72, f"{name}\n{detail}", fill=fill)
        drawing.arrow((x - 40 if n else 124, 84), (x - 2, 84))
        if refusal:
            drawing.arrow((x + 73, 128), (x + 73, 162))
            drawing.box(x - 2, 164, 150, 36, refusal, fill=RED, is_bold=False)
    drawing.line((795, 56), (795, 26), (69, 26), (69, 60), has_head=True)
    drawing.text(432, 20, "predictions, and the version that made them", anchor="middle")
    return drawing.svg()


def draw_swap() -> str:
    """Draw how a router moves requests from one process to another."""
    title = "A swap by two processes: start the new one, move the traffic, stop the old one"
    drawing = Drawing(900, 236, title=title)
    panels = (
        ("1. start version 2 beside it", (True, True), 0),
        ("2. move the traffic", (True, True), 1),
        ("3. stop version 1", (False, True), 1),
    )
    for n, (name, alive, target) in enumerate(panels):
        x = 14 + 298 * n
        drawing.box(x, 10, 276, 214, fill=WHITE)
        drawing.text(x + 138, 36, name, anchor="middle", is_bold=True)
        drawing.box(x + 16, 98, 88, 56, "Envoy", fill=BLUE)
        for version, is_alive in enumerate(alive):
            y = 56 + 92 * version
            drawing.box(
                x + 152, y, 108, 56, f"process\nversion {version + 1}",
                fill=(ORANGE if version == target else GREEN) if is_alive else PLAIN,
                is_dashed=not is_alive,
            )  # fmt: skip
        drawing.arrow((x + 104, 126), (x + 150, 84 + 92 * target))
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {"10_service.svg": draw_service(), "10_swap.svg": draw_swap()}
