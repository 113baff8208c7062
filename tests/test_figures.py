"""The committed figures are what their source draws."""

from xml.etree import ElementTree as ET

from tools import diagrams, figures


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


def test_the_committed_diagrams_are_the_drawn_ones():
    drawn = diagrams.draw_all()

    assert {name: (diagrams.FIGURES / name).read_text() for name in drawn} == drawn


def test_a_diagram_is_white_below_fits_its_width_and_has_no_small_type():
    for svg in diagrams.draw_all().values():
        root = ET.fromstring(svg)
        rects = list(root.iter("{http://www.w3.org/2000/svg}rect"))
        sizes = [
            int(text.get("font-size", 0)) for text in root.iter("{http://www.w3.org/2000/svg}text")
        ]

        assert rects[0].get("fill") == "#ffffff"
        assert all(float(r.get("x", 0)) + float(r.get("width")) <= 900 for r in rects)
        assert min(sizes) >= 14
