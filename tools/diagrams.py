"""Draws the boxes and arrows of single notebooks: where data goes, what a server does.

Plain SVG like the loop of `tools.figures`: the same bytes on every machine, on a white ground, in
the reader's own sans-serif font, no text below 14 px.

Example: python -m tools.diagrams
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

FIGURES = Path(__file__).resolve().parents[1] / "notebooks" / "figures"
WIDTH = 900
_INK, _LINE, _RED = "#222222", "#555555", "#b34700"
_FILLS = {"plain": "#f2f2f2", "lit": "#e69f00", "white": "#ffffff"}
_LINE_H = 19


@dataclass(frozen=True)
class Box:
    """A rounded box with centered lines of text.

    Attributes:
        x: Left edge, px.
        y: Top edge, px.
        w: Width, px.
        h: Height, px.
        lines: The first one is bold.
        fill: One of "plain", "lit" and "white".
        is_frame: Whether others lie in it: its text then stands at the top.
    """

    x: int
    y: int
    w: int
    h: int
    lines: Sequence[str]
    fill: str = "plain"
    is_frame: bool = False

    def svg(self) -> list[str]:
        """Draw it."""
        middle = self.x + self.w / 2
        first = self.y + (self.h - _LINE_H * len(self.lines)) / 2 + 14
        first = self.y + 22 if self.is_frame else first
        return [
            (
                f'<rect x="{self.x}" y="{self.y}" width="{self.w}" height="{self.h}" rx="8"'
                f' fill="{_FILLS[self.fill]}" stroke="{_LINE}"/>'
            ),
            *(
                _text(middle, first + _LINE_H * row, line, weight=400 if row else 600)
                for row, line in enumerate(self.lines)
            ),
        ]


@dataclass(frozen=True)
class Arrow:
    """An arrow through points, with a head at its end."""

    points: Sequence[tuple[int, int]]
    is_dashed: bool = False
    has_two_heads: bool = False

    def svg(self) -> list[str]:
        """Draw it."""
        path = "M" + " L".join(f"{x} {y}" for x, y in self.points)
        dashes = ' stroke-dasharray="5 4"' if self.is_dashed else ""
        start = ' marker-start="url(#head)"' if self.has_two_heads else ""
        line = f'fill="none" stroke="{_LINE}" stroke-width="2"{dashes}{start}'
        return [f'<path d="{path}" {line} marker-end="url(#head)"/>']


@dataclass(frozen=True)
class Note:
    """Lines of text without a box."""

    x: int
    y: int
    lines: Sequence[str]
    anchor: str = "middle"
    color: str = _INK

    def svg(self) -> list[str]:
        """Draw it."""
        return [
            _text(self.x, self.y + _LINE_H * row, line, anchor=self.anchor, color=self.color)
            for row, line in enumerate(self.lines)
        ]


Part = Box | Arrow | Note


def _text(
    x: float, y: float, text: str, *, weight: int = 400, anchor: str = "middle", color: str = _INK
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="14" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="{color}">{escape(text)}</text>'
    )


def draw(title: str, height: int, parts: Sequence[Part]) -> str:
    """Draw parts, the first at the bottom, as SVG text."""
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
                f' viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">'
            ),
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            (
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6"'
                ' markerHeight="6" orient="auto-start-reverse">'
                f'<path d="M0 0 10 5 0 10z" fill="{_LINE}"/></marker></defs>'
            ),
            *(line for part in parts for line in part.svg()),
            "</svg>",
            "",
        ]
    )


def feature_store() -> str:
    """Draw one definition, computed twice: for training and for serving."""
    parts: list[Part] = [
        Note(14, 24, ["to train: months at once"], anchor="start"),
        Box(14, 36, 180, 64, ["a table of the past", "three months of flights"]),
        Box(250, 36, 190, 64, ["offline", "prefix sums"]),
        Box(506, 36, 170, 64, ["training set", "one row per flight"]),
        Box(742, 36, 144, 64, ["train", "a model"]),
        Box(250, 148, 190, 64, ["definitions", "each feature, once"], fill="lit"),
        Box(14, 260, 180, 64, ["a stream of events", "departures, weather"]),
        Box(250, 260, 190, 64, ["store", "the last days"]),
        Box(506, 260, 170, 64, ["online", "one flight, now"]),
        Box(742, 260, 144, 64, ["predict", "with the model"]),
        Note(14, 350, ["to serve: one flight at a time"], anchor="start"),
        Arrow([(194, 68), (248, 68)]),
        Arrow([(440, 68), (504, 68)]),
        Arrow([(676, 68), (740, 68)]),
        Arrow([(345, 148), (345, 102)]),
        Arrow([(345, 212), (345, 258)]),
        Arrow([(194, 292), (248, 292)]),
        Arrow([(440, 292), (504, 292)]),
        Arrow([(676, 292), (740, 292)]),
        Arrow([(814, 100), (814, 258)]),
        Arrow([(591, 102), (591, 258)], is_dashed=True, has_two_heads=True),
        Note(604, 174, ["must be equal,", "bit for bit"], anchor="start"),
    ]
    return draw(
        "A feature store: definitions in the middle, computed offline and online", 362, parts
    )


def model_server() -> str:
    """Draw clients, the server with its versions, and the folder that it watches."""
    parts: list[Part] = [
        Box(14, 50, 150, 64, ["a web page", "or curl"]),
        Box(14, 190, 150, 64, ["another service", "in any language"]),
        Box(300, 24, 300, 256, ["model server"], is_frame=True),
        Box(320, 58, 80, 48, ["REST"], fill="white"),
        Box(320, 198, 80, 48, ["gRPC"], fill="white"),
        Box(440, 84, 140, 64, ["version 1", "answers"], fill="lit"),
        Box(440, 172, 140, 64, ["version 2", "is loading"], fill="white"),
        Box(690, 24, 196, 190, ["folder models/clothes"], is_frame=True),
        Box(710, 60, 156, 42, ["1/"], fill="white"),
        Box(710, 112, 156, 42, ["2/"], fill="white"),
        Box(690, 250, 196, 48, ["publish"]),
        Arrow([(164, 82), (318, 82)], has_two_heads=True),
        Note(231, 72, ["JSON"]),
        Note(231, 104, ["port 8501"]),
        Arrow([(164, 222), (318, 222)], has_two_heads=True),
        Note(231, 212, ["binary messages"]),
        Note(231, 244, ["port 8500"]),
        Arrow([(400, 82), (438, 106)]),
        Arrow([(400, 222), (438, 130)]),
        Arrow([(582, 116), (708, 82)], is_dashed=True),
        Arrow([(582, 204), (708, 134)], is_dashed=True),
        Note(645, 66, ["looks once", "a second"]),
        Arrow([(788, 250), (788, 216)]),
        Note(800, 198, ["3/ comes next"]),
    ]
    return draw("Clients ask a model server, which takes versions from a folder", 312, parts)


def request_path() -> str:
    """Draw the six steps of a request, what passes between them, and what each may refuse."""
    steps = (
        ("1 path", "POST …:predict", ("400 Malformed", "request")),
        ("2 parse", '{"instances": …}', ("400 JSON", "Parse error")),
        ("3 find", "clothes, version 1", ("404 Servable", "not found")),
        ("4 convert", "float [1, 28, 28]", ("400 … is not of", "expected type")),
        ("5 run", "float [1, 10]", ("400, in the", "model's words")),
        ("6 write", '{"predictions": …}', ("400 Failed to", "write JSON value")),
    )
    width, gap, left = 126, 24, 12
    parts: list[Part] = [Note(left, 24, ["what comes out of each step"], anchor="start")]
    for index, (name, made, refusal) in enumerate(steps):
        x = left + index * (width + gap)
        middle = x + width // 2
        parts += [
            Note(middle, 56, [made]),
            Box(x, 70, width, 48, [name], fill="lit" if name == "5 run" else "plain"),
            Note(middle, 172, refusal, color=_RED),
            Arrow([(middle, 118), (middle, 152)], is_dashed=True),
        ]
        if index < len(steps) - 1:
            parts.append(Arrow([(x + width, 94), (x + width + gap - 2, 94)]))
    parts.append(Note(left, 226, ["what the client gets if the step fails"], anchor="start"))
    return draw("The six steps of a request, and how each may refuse it", 240, parts)


def draw_all() -> dict[str, str]:
    """Draw every diagram: SVG text by file name."""
    return {
        "03_feature_store.svg": feature_store(),
        "08_model_server.svg": model_server(),
        "08_request_path.svg": request_path(),
    }


def main() -> None:
    """Write the diagrams."""
    for name, svg in draw_all().items():
        (FIGURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
