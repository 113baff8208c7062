"""Draws the model server of notebook 08, and the way of a request through it."""

from tools.figures.svg import ORANGE, WHITE, Drawing

_RED = "#b34700"  # dark enough for letters
# What each step is called, what it makes, and what a client hears when it fails.
_STEPS = (
    ("1 path", "POST …:predict", "400 Malformed\nrequest"),
    ("2 parse", '{"instances": …}', "400 JSON\nParse error"),
    ("3 find", "clothes, version 1", "404 Servable\nnot found"),
    ("4 convert", "float [1, 28, 28]", "400 … is not of\nexpected type"),
    ("5 run", "float [1, 10]", "400, in the\nmodel's words"),
    ("6 write", '{"predictions": …}', "400 Failed to\nwrite JSON"),
)


def draw_model_server() -> str:
    """Draw clients, the server with its versions, and the folder that it watches."""
    title = "Clients ask a model server, which takes versions of a model from a folder"
    drawing = Drawing(900, 312, title=title)
    clients = (
        (82, "a web page\nor curl", "REST", "JSON", "port 8501"),
        (222, "another service\nin any language", "gRPC", "binary", "port 8500"),
    )
    drawing.box(300, 24, 300, 264)
    drawing.text(450, 46, "model server", anchor="middle", is_bold=True)
    drawing.box(690, 24, 196, 180)
    drawing.text(788, 46, "folder models/clothes", anchor="middle", is_bold=True)
    for y, client, edge, form, port in clients:
        drawing.box(14, y - 32, 150, 64, client)
        drawing.box(320, y - 24, 80, 48, edge, fill=WHITE)
        drawing.arrow((164, y - 7), (318, y - 7))
        drawing.arrow((320, y + 7), (166, y + 7))
        drawing.text(232, y - 17, form, anchor="middle")
        drawing.text(232, y + 27, port, anchor="middle")
        drawing.arrow((400, y), (438, 116 + (y - 152) / 7))
    drawing.box(440, 84, 140, 64, "version 1\nanswers", fill=ORANGE)
    drawing.box(440, 184, 140, 64, "version 2\nis loading", fill=WHITE, is_dashed=True)
    for row, version_y in enumerate((116, 216)):
        drawing.box(710, 62 + 64 * row, 156, 46, f"{row + 1}/", fill=WHITE)
        drawing.arrow((708, 85 + 64 * row), (582, version_y))
    drawing.text(656, 244, "looks for\nnew ones\nevery second", anchor="middle")
    drawing.box(710, 244, 156, 44, "publish")
    drawing.arrow((788, 244), (788, 206))
    return drawing.svg()


def draw_request_path() -> str:
    """Draw the six steps of a request, what each makes, and how each may refuse it."""
    drawing = Drawing(900, 236, title="Six steps of a request, and what each may answer instead")
    width, gap, left = 126, 24, 12
    drawing.text(left, 24, "what comes out of each step")
    for index, (name, made, refusal) in enumerate(_STEPS):
        x = left + index * (width + gap)
        middle = x + width / 2
        drawing.text(middle, 56, made, anchor="middle")
        drawing.box(x, 70, width, 48, name, fill=ORANGE if name == "5 run" else WHITE)
        drawing.arrow((middle, 118), (middle, 152), is_dashed=True)
        drawing.text(middle, 172, refusal, anchor="middle", color=_RED)
        if index:
            drawing.arrow((x - gap, 94), (x - 2, 94))
    drawing.text(left, 224, "what the client gets if the step fails")
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {
        "08_model_server.svg": draw_model_server(),
        "08_request_path.svg": draw_request_path(),
    }
