"""Rules of the words: how many, and what not every viewer shows."""

import ast
import itertools
import re
from collections.abc import Iterator

from tools.notebooks import document, phrases
from tools.notebooks.lesson import Lesson, Rule, Violation

MOST_WORDS_IN_CELL = 180
MOST_WORDS = 3000
MOST_COLUMNS = 88
SUMMARY = "<summary>▸ Solution (click)</summary>"
SOLUTION = re.compile(r"<details>(.*?)</details>", re.DOTALL)
PYTHON_FENCE = re.compile(r"^```python\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)

_FORBIDDEN = (
    ("mermaid", re.compile(r"(?m)^ {0,3}(```|~~~)\s*\{?mermaid"), "a committed SVG"),
    ("admonition", re.compile(r"(?m)^ {0,3}(:::+|```\{\w|>\s*\[!\w+\])"), "`> **Note.**`"),
    ("footnote", re.compile(r"\[\^[^\]]+\]"), "a sentence in the text"),
    ("html", re.compile(r"(?i)<(div|span|style|script|iframe|table|font|center)\b"), "markdown"),
)
_TABLE_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_AMOUNT = re.compile(r"\$\s?\d+([.,]\d+)*(?=[\s.,;:!?)]|$)")


def words(lesson: Lesson) -> Iterator[Violation]:
    """Short cells, a short notebook."""
    if lesson.is_index:
        return
    counts = {cell.name: _n_words(cell.source) for cell in lesson.markdown}
    for cell, count in counts.items():
        if count > MOST_WORDS_IN_CELL:
            what = f"{count} words, at most {MOST_WORDS_IN_CELL}; split it or say less"
            yield Violation(rule="words", what=what, cell_id=cell)
    if (total := sum(counts.values())) > MOST_WORDS:
        yield Violation(rule="words", what=f"{total} words, at most {MOST_WORDS}; say less")


def _n_words(text: str) -> int:
    plain = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", document.without_fences(text))
    return len(re.findall(r"\S*\w\S*", plain))


def forbidden_markdown(lesson: Lesson) -> Iterator[Violation]:
    """What nbviewer, GitHub or an untrusted JupyterLab shows raw or drops."""
    for cell in lesson.markdown:
        prose = document.without_code(cell.source)
        for rule, pattern, instead in _FORBIDDEN:
            # These two may be fences themselves.
            text = cell.source if rule in ("mermaid", "admonition") else prose
            if found := pattern.search(text):
                what = f"`{found[0].strip()}` does not show everywhere; write {instead} instead"
                yield cell.breaks(rule, what)


def spoken(lesson: Lesson) -> Iterator[Violation]:
    """Prose that could be said aloud."""
    for cell in lesson.markdown:
        if found := phrases.first_found(document.without_code(cell.source)):
            yield cell.breaks("phrase", f"`{found[0]}`; say it aloud, such as: {found[1]}")


def rows_of_the_notes(lesson: Lesson) -> Iterator[Violation]:
    """Only the index's table names rows of the course notes; they mean nothing to a reader."""
    for cell in () if lesson.is_index else lesson.markdown:
        if found := re.search(r"\bN\d{1,2}\b", document.without_code(cell.source)):
            yield cell.breaks("rows", f"names the row {found[0]} of the notes; say it in words")


def aligned_tables(lesson: Lesson) -> Iterator[Violation]:
    """Columns of text say that they're left-aligned, or nbviewer aligns them on the right."""
    for cell in lesson.markdown:
        lines = document.without_fences(cell.source).splitlines()
        for n, line in enumerate(lines):
            if not _TABLE_RULE.fullmatch(line.strip()):
                continue
            body = itertools.takewhile(lambda row: row.strip().startswith("|"), lines[n + 1 :])
            columns = itertools.zip_longest(*map(_table_cells, body), fillvalue="")
            for rule, texts in zip(_table_cells(line), columns, strict=False):
                if not rule.startswith(":") and any(re.search("[A-Za-z]", t) for t in texts):
                    what = f"a column of text ruled `{rule}`; write `:---`, which aligns it left"
                    yield cell.breaks("alignment", what)
                    break


def _table_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def dollars(lesson: Lesson) -> Iterator[Violation]:
    """Two amounts in a paragraph become a formula, even escaped."""
    for cell in lesson.markdown:
        for paragraph in re.split(r"\n\s*\n", document.without_code(cell.source)):
            if has_amounts(paragraph):
                yield cell.breaks("dollars", "two $ amounts become a formula; write USD 5")
                break


def has_amounts(paragraph: str) -> bool:
    """Tell whether dollar signs that MathJax would pair stand for money; `$2x$` does not.

    >>> has_amounts("$5 or $6"), has_amounts("$5"), has_amounts("$2x$ and $5$")
    (True, False, False)
    """
    return paragraph.count("$") > 1 and _AMOUNT.search(paragraph) is not None


def solutions(lesson: Lesson) -> Iterator[Violation]:
    """Hidden under a summary that says so, and able to fail when they are run."""
    for cell in lesson.markdown:
        if cell.source.count("<details") != len(SOLUTION.findall(cell.source)):
            yield cell.breaks("solution", "a <details> that is not closed; close it in this cell")
        for body in SOLUTION.findall(cell.source):
            if problem := _solution_problem(body):
                yield cell.breaks("solution", problem)


def _solution_problem(body: str) -> str | None:
    if SUMMARY not in body:
        return f"a <details> without {SUMMARY}; nbviewer shows no triangle"
    fences = PYTHON_FENCE.findall(body)
    if not fences or f"{SUMMARY}\n\n" not in body:
        return "a solution without a python fence after an empty line; add it"
    if any(len(line) > MOST_COLUMNS for code in fences for line in code.splitlines()):
        return f"a solution's line is over {MOST_COLUMNS} columns; break it"
    try:
        nodes = [node for code in fences for node in ast.walk(ast.parse(code))]
    except SyntaxError as exc:
        return f"a solution is not Python ({exc.msg}); mend it"
    if not any(isinstance(node, ast.Assert) for node in nodes):
        return "a solution without an assert, so that nothing tests it; add one"
    return None


RULES: tuple[Rule, ...] = (
    words,
    forbidden_markdown,
    spoken,
    rows_of_the_notes,
    aligned_tables,
    dollars,
    solutions,
)
