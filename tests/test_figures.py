"""The committed figures are what their source draws."""

from xml.etree import ElementTree as ET

from tools import figures


def test_the_committed_figures_are_the_drawn_ones():
    committed = {path.name: path.read_text() for path in figures.FIGURES.glob("*loop.svg")}

    assert committed == figures.draw_all()


def test_the_loop_names_every_stage_on_a_white_ground():
    root = ET.fromstring(figures.draw_loop(highlighted={"serve"}))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    fills = [element.get("fill") for element in root.iter("{http://www.w3.org/2000/svg}rect")]

    assert [name for name, _ in figures.STAGES] == texts[::2]
    assert fills[0] == "#ffffff"
    assert fills.count("#e69f00") == 1
