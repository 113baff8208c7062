"""Rules of the file: format, kernel, cell ids, freshness, numbers of cells and bytes."""

import re
from collections.abc import Iterator

from tools.notebooks import document
from tools.notebooks.lesson import Lesson, Rule, Violation

MOST_KB = 500
MOST_CELLS = 50
MARKDOWN_PER_CODE = (0.8, 2.2)
TAGS = {"nbval-ignore-output", "raises-exception", "nbval-skip"}
_REFRESH = "refresh it"


def name(lesson: Lesson) -> Iterator[Violation]:
    """`05_gate_the_model.ipynb`."""
    if not re.fullmatch(r"\d\d(_[a-z0-9]+)+\.ipynb", lesson.path.name):
        what = "the file name is not like 05_gate_the_model.ipynb; rename it"
        yield Violation(rule="name", what=what)


def minor_format(lesson: Lesson) -> Iterator[Violation]:
    """The first format that has cell ids."""
    if lesson.nb.nbformat_minor != 5:
        what = f"format 4.{lesson.nb.nbformat_minor}, not 4.5; {_REFRESH}"
        yield Violation(rule="format", what=what)


def kernel(lesson: Lesson) -> Iterator[Violation]:
    """Names the kernel that every reader has, and no Python version."""
    metadata = lesson.nb.metadata
    if metadata.get("kernelspec", {}).get("name") != "python3":
        yield Violation(rule="kernel", what=f"no kernelspec named python3; {_REFRESH}")
    elif metadata.get("language_info", {}).get("name") != "python":
        yield Violation(rule="kernel", what=f"language_info is not that of Python; {_REFRESH}")
    elif "version" in metadata["language_info"]:
        yield Violation(rule="kernel", what=f"language_info has a Python version; {_REFRESH}")


def ids(lesson: Lesson) -> Iterator[Violation]:
    """Each cell is named after its heading."""
    others = [cell for cell in lesson.cells if cell.node.get("id") != cell.name]
    if others:
        what = f"{len(others)} cells are not named by heading and counter, this one the first"
        yield others[0].breaks("id", f"{what}; {_REFRESH}")


def metadata_is_tags(lesson: Lesson) -> Iterator[Violation]:
    """Cells have tags, outputs have no metadata."""
    for cell in lesson.cells:
        outputs = cell.node.get("outputs", [])
        if set(cell.node.metadata) - {"tags"} or any(output.get("metadata") for output in outputs):
            yield cell.breaks("metadata", f"metadata besides tags; {_REFRESH}")


def tags(lesson: Lesson) -> Iterator[Violation]:
    """Only the three tags that nbval acts on."""
    for cell in lesson.cells:
        for tag in sorted(cell.tags - TAGS):
            yield cell.breaks("tag", f"unknown tag {tag!r}; there are {', '.join(sorted(TAGS))}")


def fresh(lesson: Lesson) -> Iterator[Violation]:
    """Saved outputs are those of the code."""
    saved = lesson.nb.metadata.get("mlops_mini", {}).get("code")
    if saved != document.code_digest(lesson.nb):
        what = f"code has changed since the outputs were saved; {_REFRESH}"
        yield Violation(rule="stale", what=what)


def execution_counts(lesson: Lesson) -> Iterator[Violation]:
    """Run once, from top to bottom; nbval compares nothing where the count is missing."""
    for expected, cell in enumerate(lesson.code, start=1):
        count = cell.node.get("execution_count")
        if count != expected:
            yield cell.breaks("count", f"its number is {count}, not {expected}; {_REFRESH}")
            return


def cell_types(lesson: Lesson) -> Iterator[Violation]:
    """Markdown and code, none empty."""
    for cell in lesson.cells:
        if cell.node.cell_type not in ("markdown", "code"):
            what = f"a {cell.node.cell_type} cell, which no reader sees; make it markdown or code"
            yield cell.breaks("cell-type", what)
        elif not cell.source.strip():
            yield cell.breaks("empty", "an empty cell; delete it")


def size(lesson: Lesson) -> Iterator[Violation]:
    """Small enough for every viewer."""
    kb = lesson.path.stat().st_size / 1000
    if kb > MOST_KB:
        kb_of = {cell.name: len(str(cell.node)) / 1000 for cell in lesson.cells}
        largest = max(kb_of, key=kb_of.__getitem__, default="none")
        yield Violation(
            rule="size",
            what=f"{kb:,.0f} KB, at most {MOST_KB}; the most is in cell {largest}"
            f" ({kb_of.get(largest, 0):,.0f} KB): print less, or draw a smaller figure",
        )


def cell_numbers(lesson: Lesson) -> Iterator[Violation]:
    """Few cells, prose and code in balance."""
    if lesson.is_index:
        return
    if len(lesson.cells) > MOST_CELLS:
        what = f"{len(lesson.cells)} cells, at most {MOST_CELLS}; move code to the package"
        yield Violation(rule="cells", what=what)
    low, high = MARKDOWN_PER_CODE
    ratio = len(lesson.markdown) / max(len(lesson.code), 1)
    if not low <= ratio <= high:
        what = f"{ratio:.2f} markdown cells per code cell, not {low} to {high}; split or join some"
        yield Violation(rule="balance", what=what)


RULES: tuple[Rule, ...] = (
    name,
    minor_format,
    kernel,
    ids,
    metadata_is_tags,
    tags,
    fresh,
    execution_counts,
    cell_types,
    size,
    cell_numbers,
)
