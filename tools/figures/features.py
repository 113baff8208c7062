"""Draws the feature store of notebook 03: one definition, computed in two places."""

from tools.figures.svg import ORANGE, Drawing

_TITLE = "A feature store: each feature is defined once, and computed offline and online"
_COLUMNS = ((14, 180), (250, 190), (506, 170), (742, 144))  # left and width
_OFFLINE = (
    "a table of the past\nthree months of flights",
    "offline\nprefix sums",
    "training set\none row per flight",
    "train\na model",
)
_ONLINE = (
    "a stream of events\ndepartures, weather",
    "store\nthe last days",
    "online\none flight, now",
    "predict\nwith the model",
)
_HEIGHT = 64


def draw_feature_store() -> str:
    """Draw both ways from what has happened to the model, as SVG text."""
    drawing = Drawing(900, 362, title=_TITLE)
    for y, texts in ((36, _OFFLINE), (260, _ONLINE)):
        for n, (text, (x, width)) in enumerate(zip(texts, _COLUMNS, strict=True)):
            drawing.box(x, y, width, _HEIGHT, text)
            if n:
                before = sum(_COLUMNS[n - 1])
                drawing.arrow((before, y + _HEIGHT / 2), (x - 2, y + _HEIGHT / 2))
    drawing.text(14, 24, "to train: months at once")
    drawing.text(14, 350, "to serve: one flight at a time")
    drawing.box(250, 148, 190, _HEIGHT, "definitions\neach feature, once", fill=ORANGE)
    drawing.arrow((345, 148), (345, 102))
    drawing.arrow((345, 212), (345, 258))
    drawing.arrow((591, 180), (591, 102), is_dashed=True)
    drawing.arrow((591, 180), (591, 258), is_dashed=True)
    drawing.text(604, 174, "must be equal,\nbit for bit")
    drawing.arrow((814, 100), (814, 258))
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {"03_feature_store.svg": draw_feature_store()}
