"""The committed figures are what their source draws."""

from xml.etree import ElementTree as ET

from tools import figures


def test_the_committed_loop_is_the_drawn_one():
    assert (figures.FIGURES / "loop.svg").read_text() == figures.draw_loop()


def test_the_loop_names_every_stage_on_a_white_ground():
    root = ET.fromstring(figures.draw_loop(highlighted={"serve"}))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    fills = [element.get("fill") for element in root.iter("{http://www.w3.org/2000/svg}rect")]

    assert [name for name, _ in figures.STAGES] == texts[::2]
    assert fills[0] == "#ffffff"
    assert fills.count("#e69f00") == 1
