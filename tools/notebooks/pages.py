"""Rules of a rendered page: what nbviewer's readers would see broken, raw or missing."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from html.parser import HTMLParser
from urllib.parse import unquote

from tools.notebooks.lesson import Violation
from tools.notebooks.prose_rules import has_amounts

MOST_KB = 900
_CODE = {"pre", "code", "script", "style"}
_BLOCKS = {"p", "li", "td", "th", "blockquote", "div", "summary", *(f"h{n}" for n in range(1, 7))}
_RAW = re.compile(r":::+\s*\{?\w*|\[!\w+\]|\{(?:note|tip|warning|figure|admonition)\}|\[\^[^\]]+\]")
_STDERR = "application/vnd.jupyter.stderr"
_ACTIVE = re.compile(r"application/(javascript|vnd\.jupyter\.widget|vnd\.plotly|vnd\.vega).*")

FindAnchors = Callable[[str], set[str] | None]


class Page(HTMLParser):
    """What a page holds below `<main>`.

    Attributes:
        anchors: Every id, as links name it.
        links: Cell and target of each link.
        images: Cell, source and alternative text of each image.
        texts: Cell and words of each block, code left out.
        active: Cell and name of each script, widget or mermaid diagram.
        stderr: The cell of each block of stderr, or of an error.
        n_bytes: Of the page.
    """

    def __init__(self, html: str) -> None:
        """Read a page written by nbconvert."""
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.images: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.active: list[tuple[str, str]] = []
        self.stderr: list[str] = []
        self.n_bytes = len(html.encode())
        self._cell, self._n_code, self._is_main = "", 0, False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag brings."""
        self._is_main |= tag == "main"
        if not self._is_main:
            return
        values = {name: value or "" for name, value in attrs}
        self._cell = values.get("id", "").partition("cell-id=")[2] or self._cell
        self.anchors.update(unquote(values[name]) for name in ("id", "name") if name in values)
        self._n_code += tag in _CODE
        if tag == "a" and "href" in values:
            self.links.append((self._cell, values["href"]))
        if tag == "img":
            self.images.append((self._cell, values.get("src", ""), values.get("alt", "")))
        if tag in ("script", "iframe") or "mermaid" in values.get("class", "").lower().split():
            self.active.append((self._cell, "mermaid" if tag == "pre" else f"<{tag}>"))
        mime = values.get("data-mime-type", "")
        if mime == _STDERR:
            self.stderr.append(self._cell)
        if _ACTIVE.fullmatch(mime):
            self.active.append((self._cell, mime))
        if tag in _BLOCKS:
            self.texts.append((self._cell, ""))

    def handle_endtag(self, tag: str) -> None:
        """Leave code, or a block."""
        self._is_main &= tag != "main"
        self._n_code -= tag in _CODE and self._n_code > 0
        if tag in _BLOCKS and self._is_main:
            self.texts.append((self._cell, ""))

    def handle_data(self, data: str) -> None:
        """Add words to the block."""
        if self._is_main and not self._n_code and self.texts:
            cell, text = self.texts[-1]
            self.texts[-1] = (cell, text + data)


def violations(
    page: Page, *, anchors_of: FindAnchors, failing: Collection[str] = ()
) -> Iterator[Violation]:
    """Hold a page to the rules.

    Args:
        page: The page.
        anchors_of: Gives the anchors of the file at a path relative to the notebook, "" being the
            notebook itself; none for a file without anchors, None where there is no file.
        failing: Cells that fail on purpose; nbconvert shows an error as it shows stderr.
    """
    if page.n_bytes > MOST_KB * 1000:
        what = f"a page of {page.n_bytes / 1000:,.0f} KB, at most {MOST_KB}; show less"
        yield Violation(rule="page-size", what=what)
    yield from _targets(page, anchors_of)
    for cell, count in Counter(page.stderr).items():
        if count > (cell in failing):
            yield Violation(rule="page-stderr", what="a block of stderr", cell_id=cell)
    for cell, name in page.active:
        what = f"{name}, which some viewers drop or draw wrong"
        yield Violation(rule="page-active", what=what, cell_id=cell)
    for cell, text in page.texts:
        if found := _RAW.search(text):
            what = f"`{found[0]}` is shown raw; write plain markdown"
            yield Violation(rule="page-raw", what=what, cell_id=cell)
        if has_amounts(text):
            what = f"`{text.strip()[:60]}` becomes a formula; write USD 5"
            yield Violation(rule="page-dollars", what=what, cell_id=cell)


def _targets(page: Page, anchors_of: FindAnchors) -> Iterator[Violation]:
    for cell, target in page.links:
        if problem := _problem(target, anchors_of):
            yield Violation(rule="page-link", what=f"`{target}` {problem}", cell_id=cell)
    for cell, source, alternative in page.images:
        if not source.startswith("data:") and anchors_of(unquote(source)) is None:
            what = f"the image `{source}` is no file beside the notebook"
            yield Violation(rule="page-image", what=what, cell_id=cell)
        if not alternative.strip():
            what = f"the image `{source[:60]}` has no alternative text"
            yield Violation(rule="page-image", what=what, cell_id=cell)


def _problem(target: str, anchors_of: FindAnchors) -> str | None:
    if re.match(r"(https?|mailto):", target):
        return None
    name, _, anchor = unquote(target).partition("#")
    anchors = anchors_of(name)
    if anchors is None or name.startswith("/"):
        return "leads to no file beside the notebook"
    if anchor and anchor not in anchors:
        return "leads to no heading"
    return None
