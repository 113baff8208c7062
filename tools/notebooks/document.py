"""A notebook file: reading it, naming its cells, the digest of its code, writing it whole."""

import copy
import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mlops_mini.errors import InvalidArgumentError, NotFoundError

LONGEST_SLUG = 40


def read(path: Path) -> NotebookNode:
    """Read a notebook of format 4, valid or not.

    Raises:
        NotFoundError: No such file.
        InvalidArgumentError: Not JSON, or not a notebook.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise NotFoundError(f"{path}: there is no such file") from exc
    except ValueError as exc:
        raise InvalidArgumentError(f"{path}: not JSON ({exc}); take it from git again") from exc
    is_notebook = isinstance(content, dict) and content.get("nbformat") == 4
    is_notebook = is_notebook and isinstance(content.get("metadata", {}), dict)
    cells = content.get("cells") if is_notebook else None
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise InvalidArgumentError(
            f"{path}: JSON, but not a notebook of format 4; open and save it in JupyterLab"
        )
    content.setdefault("metadata", {})
    content.setdefault("nbformat_minor", 0)
    return nbformat.v4.rwbase.rejoin_lines(nbformat.from_dict(content))


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("source"), str | list):
        return False
    cell.setdefault("metadata", {})
    outputs = cell.setdefault("outputs", []) if cell.get("cell_type") == "code" else []
    is_list = isinstance(outputs, list) and all(isinstance(each, dict) for each in outputs)
    return isinstance(cell["metadata"], dict) and is_list


def objection(nb: NotebookNode) -> str | None:
    """Say in one line what makes a notebook invalid; None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about cell ids, which have a rule of their own
            nbformat.validate(copy.deepcopy(nb))  # a copy, for it mends what it warns of
    except nbformat.ValidationError as exc:
        return str(exc).splitlines()[0]
    return None


def write(nb: NotebookNode, path: Path) -> None:
    """Write by rename, so that the file is the old one or the new one at any moment."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(to_text(nb), encoding="utf-8")
    part.replace(path)


def to_text(nb: NotebookNode) -> str:
    """Give the text of the file: keys sorted, one space of indent, a newline at the end."""
    return nbformat.writes(nb).rstrip("\n") + "\n"


def code_digest(nb: NotebookNode) -> str:
    """Digest of all code in order; it changes when the saved outputs may no longer fit."""
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def headings(text: str) -> Iterator[tuple[int, str]]:
    """List level and text of a markdown cell's `#` headings, those in fences left out."""
    for line in without_fences(text).splitlines():
        if found := re.match(r"(#{1,6})\s+(.+?)\s*#*$", line):
            yield len(found[1]), found[2]


def without_fences(text: str) -> str:
    """Leave out fenced code."""
    return re.sub(
        r"^ {0,3}(`{3,}|~{3,}).*?(^ {0,3}\1[`~]*\s*$|\Z)", "", text, flags=re.MULTILINE | re.DOTALL
    )


def without_code(text: str) -> str:
    """Leave out fenced code, and put a letter for code in a line."""
    return re.sub(r"(`+)(?:(?!\n\s*\n)[^`])+?\1", "x", without_fences(text))


def cell_ids(nb: NotebookNode) -> list[str]:
    """Name the cells: the nearest heading above and a counter, such as `fit-2`; unique."""
    slug, counts, ids = "top", Counter[str](), []
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := list(headings(cell.source))):
            words = re.sub(r"[^a-z0-9]+", "-", found[-1][1].lower()).strip("-")
            slug = words[:LONGEST_SLUG].rstrip("-") or "section"
        counts[slug] += 1
        ids.append(f"{slug}-{counts[slug]}")
    return ids


def anchors(nb: NotebookNode) -> set[str]:
    """List what a link to `#...` in this notebook may name: headings as nbviewer does, and ids."""
    found: set[str] = set()
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            plain = (
                re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", t) for _, t in headings(cell.source)
            )
            found.update(text.replace(" ", "-") for text in plain)
            found.update(re.findall(r"<\w+[^>]*\b(?:id|name)=[\"']([^\"']+)", cell.source))
    return found
