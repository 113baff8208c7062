"""Draws images and containers for notebook 09."""

from tools.figures.svg import BLUE, GREEN, ORANGE, RED, WHITE, Drawing


def draw_container() -> str:
    """Draw an image in layers, a container of it, and the two holes in its wall."""
    title = "An image is a stack of layers; a container runs in it, behind a wall with two holes"
    drawing = Drawing(900, 290, title=title)
    drawing.box(14, 30, 230, 244)
    drawing.text(129, 54, "image: files, never changed", anchor="middle", is_bold=True)
    layers = (
        ("our code", ORANGE),
        ("TensorFlow and libraries", BLUE),
        ("Debian with Python", GREEN),
    )
    for n, (name, color) in enumerate(layers):
        drawing.box(34, 72 + 64 * n, 190, 50, name, fill=color, is_bold=False)
    drawing.arrow((246, 150), (318, 150))
    drawing.text(282, 140, "run", anchor="middle")
    drawing.box(320, 30, 270, 244, fill=WHITE)
    drawing.text(455, 54, "container: a process", anchor="middle", is_bold=True)
    drawing.box(345, 72, 220, 54, "the model server\nuser 10001", fill=ORANGE)
    drawing.box(345, 142, 220, 50, "/ of the image, read-only", is_bold=False)
    drawing.box(345, 208, 220, 50, "/models/half_plus_two", is_bold=False)
    drawing.box(700, 66, 186, 60, "a client", fill=WHITE)
    drawing.box(700, 204, 186, 60, "a folder\nof your machine", fill=WHITE)
    drawing.arrow((698, 98), (568, 98))
    drawing.text(644, 88, "port (-p)", anchor="middle")
    drawing.arrow((698, 234), (568, 234))
    drawing.text(644, 224, "mount (-v)", anchor="middle")
    return drawing.svg()


def draw_two_versions() -> str:
    """Draw two components in one environment, and in an image each."""
    title = "Two components that need two versions of a library: one environment, two images"
    drawing = Drawing(900, 250, title=title)
    drawing.text(200, 26, "one environment", anchor="middle", is_bold=True)
    drawing.box(14, 40, 372, 196)
    drawing.box(34, 60, 150, 52, "prepare\nneeds fares 1", fill=RED)
    drawing.box(214, 60, 150, 52, "charge\nneeds fares 2", fill=ORANGE)
    drawing.box(114, 166, 172, 52, "fares 2", fill=WHITE)
    drawing.arrow((109, 112), (170, 164), is_dashed=True)
    drawing.arrow((289, 112), (230, 164))
    drawing.text(88, 146, "TypeError", anchor="middle", color="#b34700")
    drawing.text(664, 26, "an image each", anchor="middle", is_bold=True)
    for n, (name, version) in enumerate((("prepare", 1), ("charge", 2))):
        x = 440 + 240 * n
        drawing.box(x, 40, 206, 132)
        drawing.box(x + 24, 56, 158, 44, name, fill=ORANGE)
        drawing.box(x + 24, 114, 158, 44, f"fares {version}", fill=WHITE)
    drawing.box(560, 196, 206, 40, "a file, the only way", fill=WHITE, is_bold=False)
    drawing.arrow((543, 172), (620, 194))
    drawing.arrow((706, 194), (783, 174))
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {
        "09_container.svg": draw_container(),
        "09_two_versions.svg": draw_two_versions(),
    }
