"""The committed figures are what their source draws."""

import re
from xml.etree import ElementTree as ET

import pytest

from tools.figures import __main__ as figures
from tools.figures import loop, svg

TEXT = "{http://www.w3.org/2000/svg}text"


def test_the_committed_figures_are_the_drawn_ones():
    committed = {path.name: path.read_text() for path in figures.FIGURES.glob("*.svg")}

    assert committed == figures.draw_all()


@pytest.mark.parametrize("name", sorted(figures.draw_all()))
def test_a_figure_fits_a_page_and_its_text_is_large_enough(name):
    root = ET.fromstring(figures.draw_all()[name])

    assert int(root.get("width", "0")) <= svg.MOST_WIDTH
    assert min(int(text.get("font-size", "0")) for text in root.iter(TEXT)) >= svg.FONT_PX
    assert re.search("<title>.+</title>", figures.draw_all()[name])


def test_the_loop_names_every_stage_on_a_white_ground():
    root = ET.fromstring(loop.draw_loop(highlighted={"serve"}))
    texts = [element.text for element in root.iter(TEXT)]
    fills = [element.get("fill") for element in root.iter("{http://www.w3.org/2000/svg}rect")]

    assert [name for name, _ in loop.STAGES] == texts[::2]
    assert fills[0] == "#ffffff"
    assert fills.count("#e69f00") == 1
