"""Boxes, arrows and words as SVG text: the same bytes on every machine.

A drawing has a white ground of its own, so that it reads in light and dark themes, and text of at
least 14 px in the reader's own sans-serif font.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from mlops_mini.errors import InvalidArgumentError

INK, LINE, PLAIN, WHITE = "#222222", "#555555", "#f2f2f2", "#ffffff"
ORANGE, BLUE, GREEN, RED = "#e69f00", "#56b4e9", "#8fcfb5", "#f3c4a5"
MOST_WIDTH = 900
FONT_PX = 14
_LINE_PX = 19


class Drawing:
    """An SVG picture that grows with each call; x and y are pixels from the top left.

    >>> drawing = Drawing(200, 60, title="A box")
    >>> drawing.box(10, 10, 80, 40, "train", fill=ORANGE)
    >>> drawing.svg().count("<rect")
    2
    """

    def __init__(self, width: int, height: int, *, title: str) -> None:
        """Begin with a white ground.

        Args:
            width: At most 900, or viewers would shrink the text.
            height: Of the whole picture.
            title: What it shows, for those who can't see it.

        Raises:
            InvalidArgumentError: It's too wide.
        """
        if width > MOST_WIDTH:
            raise InvalidArgumentError(f"{width} px are too wide, at most {MOST_WIDTH}")
        self._parts = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
                f' viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif"'
                f' font-size="{FONT_PX}">'
            ),
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="{WHITE}"/>',
            (
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6"'
                f' markerHeight="6" orient="auto"><path d="M0 0 10 5 0 10z" fill="{LINE}"/>'
                "</marker></defs>"
            ),
        ]

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str = "",
        *,
        fill: str = PLAIN,
        is_dashed: bool = False,
        is_bold: bool = True,
        corner: int = 8,
    ) -> None:
        """Draw a box with lines of text in its middle, the first one bold unless told otherwise."""
        dashes = ' stroke-dasharray="5 4"' if is_dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner}"'
            f' fill="{fill}" stroke="{LINE}"{dashes}/>'
        )
        lines = text.splitlines()
        first = y + height / 2 - _LINE_PX * (len(lines) - 1) / 2 + 5
        for n, line in enumerate(lines):
            bold = is_bold and n == 0
            self.text(x + width / 2, first + n * _LINE_PX, line, anchor="middle", is_bold=bold)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        is_bold: bool = False,
        color: str = INK,
        size: int = FONT_PX,
        is_code: bool = False,
    ) -> None:
        """Write lines of text; y is the foot of the first one.

        Args:
            x: Where the lines begin, or their middle or end.
            y: Foot of the first line.
            text: Lines.
            anchor: start, middle or end.
            is_bold: Whether the lines are bold.
            color: Of the letters.
            size: In pixels, at least 14.
            is_code: Whether the letters all have the same width.
        """
        weight = ' font-weight="600"' if is_bold else ""
        family = ' font-family="ui-monospace, monospace"' if is_code else ""
        for n, line in enumerate(text.splitlines()):
            foot = y + n * _LINE_PX * size / FONT_PX
            self._parts.append(
                f'<text x="{x:g}" y="{foot:g}" font-size="{size}"{weight}{family}'
                f' text-anchor="{anchor}" fill="{color}">{escape(line)}</text>'
            )

    def line(
        self,
        *points: tuple[float, float],
        has_head: bool = False,
        is_dashed: bool = False,
        color: str = LINE,
        width: float = 2,
    ) -> None:
        """Draw a line through points, with an arrow head at the last one if wanted."""
        path = "M" + " ".join(f"{x:g} {y:g}" for x, y in points)
        more = ' stroke-dasharray="5 4"' if is_dashed else ""
        more += ' marker-end="url(#head)"' if has_head else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"{more}/>'
        )

    def arrow(self, *points: tuple[float, float], is_dashed: bool = False) -> None:
        """Draw an arrow through points."""
        self.line(*points, has_head=True, is_dashed=is_dashed)

    def dot(self, x: float, y: float, *, radius: float = 5, fill: str = INK) -> None:
        """Draw a filled circle."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}"/>')

    def cells(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        texts: Sequence[str],
        *,
        fill: str = WHITE,
    ) -> None:
        """Draw boxes without gaps, from left to right, such as a row of numbers."""
        for n, text in enumerate(texts):
            place = (x + n * width, y, width, height)
            self.box(*place, text, is_bold=False, corner=0, fill=fill)

    def svg(self) -> str:
        """Write the text of the file."""
        return "\n".join([*self._parts, "</svg>", ""])
