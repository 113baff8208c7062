import math
from html.parser import HTMLParser

from mlops_mini import page


class _Checked(HTMLParser):
    """Collects what a page would load, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]
        if tag in ("script", "link", "img"):
            self.loads.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parsed(text: str) -> _Checked:
    parser = _Checked()
    parser.feed(text)
    parser.close()
    return parser


def test_a_page_needs_nothing_else() -> None:
    text = page.page(
        "A title",
        page.heading("Section"),
        page.paragraph("Words."),
        page.table(("a", "b"), [("x", "1,000"), ("y", "2 %")]),
        page.lines(
            [page.Line(name="one", values=[0, 1, math.nan, 3])],
            caption="It rises",
            x_label="week",
            y_label="losses",
            alarm=2,
        ),
    )

    parsed = _parsed(text)

    assert not parsed.loads
    assert not parsed.open
    assert 'name="viewport"' in text


def test_what_is_not_ours_is_escaped_everywhere() -> None:
    evil = "<script>alert(1)</script>"
    text = page.page(
        evil,
        page.heading(evil),
        page.paragraph(evil),
        page.table((evil,), [(evil,)]),
        page.lines([page.Line(name=evil, values=[1])], caption=evil, x_label=evil, y_label=evil),
    )

    assert not _parsed(text).loads


def test_only_columns_of_numbers_stand_to_the_right() -> None:
    text = page.table(("n", "reason"), [("1,000", "12 canary requests"), ("20 %", "none")])

    assert text.count('<td class="number">') == 2


def test_a_line_of_one_value_and_equal_values_can_be_drawn() -> None:
    for values in ([0.0], [5.0, 5.0], [-3.0, -3.0]):
        drawn = page.lines(
            [page.Line(name="x", values=values, is_step=True)],
            caption="c", x_label="x", y_label="y",
        )  # fmt: skip
        assert "nan" not in drawn
        assert "polyline" in drawn
