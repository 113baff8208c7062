"""Rules of the outputs: short, shown by every viewer, and the same on every run and machine."""

import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from tools.notebooks import passes
from tools.notebooks.lesson import Cell, Lesson, Rule, Violation

MOST_LINES = 20
MOST_LISTING_LINES = 25
MOST_ROWS = 12
MOST_COLUMNS = 8
N_FIGURES = (2, 7)
LONGEST_CELL = 40  # characters; a longer text is prose, which must not be right-aligned
SHOWN = {"text/plain", "text/html", "text/markdown", "text/latex", "image/png"}

_ROOTS = "home|root|Users|tmp|private|var/folders|work|srv|builds|Volumes|usr/l"
_INSTALLED = r"\b(?:site|dist)-packages/|/lib/python3"
_PATH = rf"(?<![\w.:/])/(?:{_ROOTS})[\w.-]*/[\w./-]+|\b[A-Z]:\\\w+|{_INSTALLED}"
_HOST_PORT = r"(?:127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1?\]):\d{2,5}"
_FREE_PORT = r"\bport\W{1,3}(?:3[3-9]\d|[45]\d\d|6[0-5]\d)\d\d\b"
_TODAY = r"\b20[2-9]\d-[01]\d-[0-3]\d"
_CLOCK = r"(?<!201\d-\d\d-\d\d[ T])(?<!days )\b[0-2]\d:[0-5]\d:[0-5]\d\b"
_VARYING = (
    ("address", r"\b0x[0-9a-fA-F]{6,}", "show a value instead of the object"),
    (
        "path",
        rf"{_PATH}|{re.escape(str(Path(__file__).resolve().parents[2]))}",
        "print the name, or the path relative to nb.workspace",
    ),
    ("port", rf"{_HOST_PORT}|{_FREE_PORT}", "do not print it"),
    ("uuid", r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "take ids from a counter"),
    ("clock", rf"{_TODAY}|{_CLOCK}", "pass a fixed clock"),
    ("progress", r"\r(?!\n)|[█━▏▎▍▌▋▊▉]|\bit/s\b|[mun\u00b5]?s/(?:step|it)\b", "pass verbose=0"),
    ("ansi", r"\x1b\[", "print plain text"),
)
# Metrics and probabilities lie between 0 and 1; versions such as 0.1.0 are no numbers.
_THIRD_DECIMAL = re.compile(r"(?<![\w.])-?0?\.\d{3,}(?![\w.])")
_ACTIVE_HTML = re.compile(
    r"<(script|iframe|svg|object|embed|video|audio)\b|<style type|\bid=\"T_|\bon(load|click)=",
    re.IGNORECASE,
)


def streams(lesson: Lesson) -> Iterator[Violation]:
    """Nothing on stderr."""
    for cell, output in _outputs(lesson):
        if output.get("name") == "stderr":
            first = output.text.strip().partition("\n")[0][:60]
            yield cell.breaks("stderr", f"writes to stderr (`{first}`); mend what it says")


def errors(lesson: Lesson) -> Iterator[Violation]:
    """Errors where, and only where, they are on purpose."""
    failed = {cell.name for cell, output in _outputs(lesson) if output.output_type == "error"}
    for cell in lesson.code:
        if cell.name in failed and "raises-exception" not in cell.tags:
            yield cell.breaks("error", "an error without the tag raises-exception; mend or tag it")
        if cell.name not in failed and "raises-exception" in cell.tags:
            yield cell.breaks("error", "tagged raises-exception, but raises none; drop the tag")


def mime_types(lesson: Lesson) -> Iterator[Violation]:
    """Only what every viewer shows."""
    for cell, output in _outputs(lesson):
        for mime in sorted(set(output.get("data", {})) - SHOWN):
            yield cell.breaks("mime", f"an output of type {mime}; print text, a table or a PNG")
        html = str(output.get("data", {}).get("text/html", ""))
        if found := _ACTIVE_HTML.search(html):
            what = f"`{found[0]}` in an output is dropped by some viewers; show a plain table"
            yield cell.breaks("html-output", what)


def varying_text(lesson: Lesson) -> Iterator[Violation]:
    """Nothing that the next run or another machine prints differently."""
    for cell, output in _outputs(lesson):
        for text in _texts(output):
            for rule, pattern, way_out in _VARYING:
                if found := re.search(pattern, text):
                    yield cell.breaks(rule, f"prints {found[0][:60]!r}; {way_out}")


def digits(lesson: Lesson) -> Iterator[Violation]:
    """No third decimal of what may have been trained: it differs between processors."""
    if not passes.trains(lesson.nb):
        return
    for cell, output in _outputs(lesson):
        for text in _texts(output):
            if found := _THIRD_DECIMAL.search(text):
                what = f"prints {found[0]} in a notebook that trains; show two decimals at most"
                yield cell.breaks("digits", what)


def lines(lesson: Lesson) -> Iterator[Violation]:
    """Outputs that fit a page."""
    for cell in lesson.code:
        n_lines = sum(
            len(text.splitlines())
            for output in cell.node.outputs
            if not {"text/html", "image/png"} & set(output.get("data", {}))
            for text in _texts(output)
        )
        most = MOST_LISTING_LINES if re.search(r"\.source\(", cell.source) else MOST_LINES
        if n_lines > most:
            yield cell.breaks(
                "output-lines", f"{n_lines} lines of output, at most {most}; show less"
            )


def tables(lesson: Lesson) -> Iterator[Violation]:
    """Tables that fit a page."""
    for cell, output in _outputs(lesson):
        html = str(output.get("data", {}).get("text/html", ""))
        for table in re.findall(r"(?s)<table.*?</table>", html):
            rows = [row for row in table.split("<tr") if "<td" in row]
            n_columns = max((row.count("<td") for row in rows), default=0)
            if len(rows) > MOST_ROWS or n_columns > MOST_COLUMNS:
                size = f"{len(rows)} rows and {n_columns} columns"
                what = f"a table of {size}, at most {MOST_ROWS} and {MOST_COLUMNS}; show less"
                yield cell.breaks("table", what)


def prose_columns(lesson: Lesson) -> Iterator[Violation]:
    """Sentences in a DataFrame are right-aligned by every viewer."""
    for cell, output in _outputs(lesson):
        html = str(output.get("data", {}).get("text/html", ""))
        longest = max(re.findall(r"<td[^>]*>([^<]*)</td>", html), key=len, default="")
        if len(longest) > LONGEST_CELL:
            what = f"a right-aligned column of prose (`{longest[:40]}`); show it by nb.table"
            yield cell.breaks("alignment", what)


def figures(lesson: Lesson) -> Iterator[Violation]:
    """Ideas are drawn: a few figures, plotted by a cell or committed as a file."""
    if lesson.is_index:
        return
    plotted = sum("image/png" in output.get("data", {}) for _, output in _outputs(lesson))
    images = re.findall(
        r"!\[[^]]*\]\(([^)]+)\)", "\n".join(cell.source for cell in lesson.markdown)
    )
    drawn = sum(not source.endswith("loop.svg") for source in images)
    fewest, most = N_FIGURES
    if not fewest <= plotted + drawn <= most:
        what = f"{plotted + drawn} figures besides the loop, not {fewest} to {most}"
        yield Violation(rule="figures", what=f"{what}; draw a concept, or drop the weakest")


def _outputs(lesson: Lesson) -> Iterator[tuple[Cell, NotebookNode]]:
    for cell in lesson.code:
        for output in cell.node.outputs:
            yield cell, output


def _texts(output: NotebookNode) -> list[str]:
    """What an output shows in words."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return list(dict.fromkeys((f"{output.ename}: {output.evalue}", *output.traceback)))
    data = output.get("data", {})
    return [str(text) for mime, text in data.items() if mime.startswith("text/")]


RULES: tuple[Rule, ...] = (
    streams,
    errors,
    mime_types,
    varying_text,
    digits,
    lines,
    tables,
    prose_columns,
    figures,
)
