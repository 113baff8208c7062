"""The index: every line of the course notes, every notebook, every term."""

import json
import re
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
INDEX = "00_index.ipynb"


def markdown(name: str) -> str:
    cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def lessons() -> list[str]:
    return sorted(path.name for path in NOTEBOOKS.glob("*.ipynb") if path.name != INDEX)


def trace_rows() -> dict[str, str]:
    """Where each row of the notes runs."""
    rows = re.findall(r"^\| (N\d+) \| .+ \| (.+) \|$", markdown(INDEX), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a row stands twice"
    return dict(rows)


def test_every_row_of_the_notes_is_traced_in_order() -> None:
    assert list(trace_rows()) == [f"N{number}" for number in range(1, 34)]


def test_a_row_runs_in_a_section_that_exists_or_in_a_planned_notebook() -> None:
    written = {name[:2] for name in lessons()}
    for row, where in trace_rows().items():
        links = re.findall(r"\]\(([^)#]+)#([^)]+)\)", where)
        planned = re.findall(r"\((\d\d)\)", where)
        assert links or planned, row
        assert not written.intersection(planned), row
        for name, anchor in links:
            headings = re.findall(r"^#+ (.+)$", markdown(name), re.MULTILINE)
            assert anchor in {heading.strip().replace(" ", "-") for heading in headings}, row


def test_every_notebook_is_listed_with_its_title_and_runtime() -> None:
    listed = {
        link: (title, runtime)
        for title, link, runtime in re.findall(
            r"^\| \d\d \| \[(.+?)\]\((\S+?)\) \| .+ \| (.+?) \|$", markdown(INDEX), re.MULTILINE
        )
    }
    found = {}
    for name in lessons():
        text = markdown(name)
        title = re.search(r"^# \d\d · (.+)$", text, re.MULTILINE)
        runtime = re.search(r"^\*runtime (~\d+ s) ·", text, re.MULTILINE)
        assert title, name
        assert runtime, name
        found[name] = (title[1], runtime[1])

    assert listed == found


def test_every_term_set_in_bold_is_in_the_glossary() -> None:
    glossary = markdown(INDEX).partition("glossary\n")[2]
    terms = re.findall(r"^\| ([^|]+?) \| ", glossary, re.MULTILINE)
    known = {form for term in terms for form in _forms(term.lower())}
    for name in lessons():
        body = markdown(name).partition("## Check yourself")[0]
        bold = {term.lower() for term in re.findall(r"\*\*([^*]+)\*\*", body)}
        bold = {term for term in bold if term[-1] not in ".?"}  # whole sentences are no terms
        assert bold <= known, name


def _forms(term: str) -> set[str]:
    """Singular and plural."""
    return {term, f"{term}s", f"{term.removesuffix('y')}ies"}
