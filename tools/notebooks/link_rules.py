"""Rules of links and images: they lead somewhere, on nbviewer too."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from mlops_mini.errors import MlopsMiniError
from tools.notebooks import document
from tools.notebooks.lesson import Lesson, Rule, Violation

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\)")
_OTHER_LINK = re.compile(r"^\[[^\]^]+\]:\s*(\S+)|<a\s[^>]*href=[\"']([^\"']+)", re.MULTILINE)
_SERVED_RAW = {".md", ".py"}


def links(lesson: Lesson) -> Iterator[Violation]:
    """Files and anchors exist."""
    for cell in lesson.markdown:
        text = document.without_code(cell.source)
        targets = [target for bang, _, target in _LINK.findall(text) if not bang]
        targets += [first or second for first, second in _OTHER_LINK.findall(text)]
        for target in targets:
            if problem := _problem(lesson, target):
                yield cell.breaks("link", f"`{target}` {problem}")


def _problem(lesson: Lesson, target: str) -> str | None:
    if re.match(r"(https?|mailto):", target):
        return None
    if re.match(r"/|[a-z]+:", target, re.IGNORECASE):
        return "is no relative link; link to a notebook or to a public page"
    name, _, anchor = unquote(target).partition("#")
    file = lesson.path.parent / name
    if name and not file.exists():
        return "leads to no file; mend it"
    if file.suffix in _SERVED_RAW:
        return "is shown raw by nbviewer; link to its page on GitHub"
    if anchor and anchor not in _anchors(lesson, file if name else None):
        return "leads to no heading; write the heading's text with - for spaces"
    return None


def _anchors(lesson: Lesson, file: Path | None) -> set[str]:
    if file is None:
        return document.anchors(lesson.nb)
    try:
        return document.anchors(document.read(file))
    except MlopsMiniError:  # no notebook, so without anchors of ours
        return set()


def images(lesson: Lesson) -> Iterator[Violation]:
    """Files beside the notebook, with words for those who cannot see them."""
    for cell in lesson.markdown:
        text = document.without_code(cell.source)
        if cell.node.get("attachments"):
            yield cell.breaks("image", "an attachment; save it in figures/ and link to it")
        if re.search(r"<(img|svg)\b", text, re.IGNORECASE):
            yield cell.breaks("image", "a raw <img> or <svg>; write ![words](figures/x.svg)")
        for alternative, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]*)", text):
            if re.match(r"/|[a-z]+:", target, re.IGNORECASE):
                what = f"`{target}` is no relative path; save it in figures/ and link to it"
                yield cell.breaks("image", what)
            elif not (lesson.path.parent / unquote(target)).is_file():
                yield cell.breaks("image", f"`{target}` is no file; draw it or mend the path")
            elif not alternative.strip():
                yield cell.breaks("image", f"`{target}` has no alternative text; say what it shows")


RULES: tuple[Rule, ...] = (links, images)
