"""A notebook as the rules see it, and what they say of it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nbformat import NotebookNode

from tools.notebooks import document


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that a notebook breaks.

    Attributes:
        rule: Its name.
        what: What is wrong, and the way out.
        cell_id: Where, as `document.cell_ids` names it; None for the notebook as a whole.
    """

    rule: str
    what: str
    cell_id: str | None = None

    def line(self, path: Path) -> str:
        """Say it, with the notebook's path."""
        place = f"{path} cell {self.cell_id}" if self.cell_id else str(path)
        return f"{place} [{self.rule}]: {self.what}"


@dataclass(frozen=True)
class Cell:
    """A cell, under the name that refresh gives it.

    Attributes:
        node: Of nbformat.
        name: Such as `fit-2`.
    """

    node: NotebookNode
    name: str

    @property
    def source(self) -> str:
        """What the author wrote."""
        return str(self.node.source)

    @property
    def tags(self) -> set[str]:
        """Its tags."""
        return set(self.node.metadata.get("tags", []))

    def breaks(self, rule: str, what: str) -> Violation:
        """Say that this cell breaks a rule."""
        return Violation(rule=rule, what=what, cell_id=self.name)


@dataclass(frozen=True)
class Section:
    """What stands below a heading of level 2, up to the next.

    Attributes:
        heading: Its text.
        markdown: Everything written, without the heading.
        code: The code cells.
    """

    heading: str
    markdown: list[str] = field(default_factory=list)
    code: list[Cell] = field(default_factory=list)


class Lesson:
    """A notebook with its path, its cells named."""

    def __init__(self, path: Path, nb: NotebookNode) -> None:
        """Name the cells of a notebook that `document.read` has read."""
        self.path = path
        self.nb = nb
        names = document.cell_ids(nb)
        self.cells = [Cell(node, name) for node, name in zip(nb.cells, names, strict=True)]

    @property
    def number(self) -> str:
        """The two digits that the file name begins with."""
        return self.path.name[:2]

    @property
    def is_index(self) -> bool:
        """Whether it is the contents page, which has a frame of its own."""
        return self.number == "00"

    @cached_property
    def markdown(self) -> list[Cell]:
        """The markdown cells."""
        return [cell for cell in self.cells if cell.node.cell_type == "markdown"]

    @cached_property
    def code(self) -> list[Cell]:
        """The code cells."""
        return [cell for cell in self.cells if cell.node.cell_type == "code"]

    @cached_property
    def sections(self) -> list[Section]:
        """What headings of level 2 divide it into; what stands above the first is left out."""
        found: list[Section] = []
        for cell in self.cells:
            if cell.node.cell_type == "markdown":
                above, *parts = re.split(r"^## +(.+?) *$", cell.source, flags=re.MULTILINE)
                if found:
                    found[-1].markdown.append(above)
                for heading, text in zip(parts[::2], parts[1::2], strict=True):
                    found.append(Section(heading, [text]))
            elif cell.node.cell_type == "code" and found:
                found[-1].code.append(cell)
        return found


Rule = Callable[[Lesson], Iterator[Violation]]
