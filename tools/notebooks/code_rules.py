"""Rules of the code: short cells, and nothing that nbval runs differently from Jupyter."""

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator

from tools.notebooks.lesson import Cell, Lesson, Rule, Violation

MOST_LINES = 15
MOST_MEDIAN_LINES = 8
MOST_COLUMNS = 88
MOST_EXEMPT = 2
MOST_SLEEP_S = 1.0
OWN_HOST = "127.0.0.1"
_FILTERS = {"filterwarnings", "simplefilter", "catch_warnings"}
_MAGIC = re.compile(r"^\s*(%|!|\?)|^[^#]*=\s*(!|%)|^\s*[\w.]+\?{1,2}\s*$", re.MULTILINE)
_NBVAL_COMMENT = re.compile(r"^\s*#\s*(NBVAL_\w+|PYTEST_VALIDATE_\w+)", re.MULTILINE)
# What a reader doesn't need to see, and what to call instead.
_PLUMBING = {
    "inspect": "nb.source",
    "pytest": "nb.run_tests",
    "textwrap": "nb.message",
}
YOUR_TURN = "# Your turn"
_HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|Out|In")
_URL_HOST = re.compile(r"\b(?:https?|wss?|ftp|grpc)://([^/:\s\"'{}<>]+)")
_BARE_HOST = re.compile(r"(localhost|0\.0\.0\.0)(?::\d+)?|([\w-]+(?:\.[\w-]+)+):\d+")


def length(lesson: Lesson) -> Iterator[Violation]:
    """One idea a cell."""
    for cell in lesson.code:
        lines = cell.source.splitlines()
        if len(lines) > MOST_LINES:
            what = f"{len(lines)} lines of code, at most {MOST_LINES}; move some to the package"
            yield cell.breaks("lines", what)
        if (widest := max(map(len, lines), default=0)) > MOST_COLUMNS:
            what = f"a line of {widest} columns, at most {MOST_COLUMNS}; break it"
            yield cell.breaks("columns", what)
    n_lines = [len(cell.source.splitlines()) for cell in lesson.code if not is_your_turn(cell)]
    if (median := statistics.median(n_lines or [0])) > MOST_MEDIAN_LINES:
        what = f"the median code cell has {median:g} lines, at most {MOST_MEDIAN_LINES}"
        yield Violation(rule="median", what=f"{what}; split cells, move plumbing to the package")


def is_your_turn(cell: Cell) -> bool:
    """Tell whether a cell is the empty one below an exercise."""
    return cell.source.strip() == YOUR_TURN


def plumbing(lesson: Lesson) -> Iterator[Violation]:
    """Readers see public names, and no wrapping, slicing or starting of test programs."""
    for cell in lesson.code:
        tree = _tree(cell)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
                what = f"reads `{ast.unparse(node)}`, a private name; give the package a public one"
                yield cell.breaks("private", what)
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name in (getattr(node, "module", None), *(each.name for each in node.names)):
                    if helper := _PLUMBING.get(name or ""):
                        yield cell.breaks("plumbing", f"imports {name}; call {helper} instead")


def syntax(lesson: Lesson) -> Iterator[Violation]:
    """Plain Python: no magics, no shell."""
    for cell in lesson.code:
        if _tree(cell) is not None:
            continue
        if found := _MAGIC.search(cell.source):
            line = found[0].strip()
            what = f"`{line}` begins a magic or a shell command; write plain Python"
            yield cell.breaks("magic", what)
        elif "raises-exception" not in cell.tags:
            yield cell.breaks("syntax", "not Python; mend it")


def _tree(cell: Cell) -> ast.Module | None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = compile(cell.source, cell.name, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError):  # the latter for null characters
        return None
    return tree if isinstance(tree, ast.Module) else None


def semicolons(lesson: Lesson) -> Iterator[Violation]:
    """Under nbval a trailing semicolon hides nothing."""
    for cell in lesson.code:
        if _tree(cell) is not None and _has_trailing_semicolon(cell.source):
            yield cell.breaks("semicolon", "a trailing `;`; write _ = ax.plot(...)")


def _has_trailing_semicolon(source: str) -> bool:
    last = ""
    for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline):
        if token.type in (tokenize.NEWLINE, tokenize.NL) and last == ";":
            return True
        if token.type != tokenize.COMMENT:
            last = token.string
    return False


def forbidden_names(lesson: Lesson) -> Iterator[Violation]:
    """What shows something else under nbval, or reaches into the reader's machine."""
    for cell in lesson.code:
        tree = _tree(cell)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                if _HISTORY.fullmatch(node.id):
                    what = f"reads `{node.id}`, which nbval does not keep; give the value a name"
                    yield cell.breaks("history", what)
                elif node.id == "get_ipython":
                    yield cell.breaks("magic", "calls get_ipython; write plain Python")
            named = _name(node)
            if named in ("clear_output", "update_display"):
                yield cell.breaks(
                    "display", f"{named}, which nbval ignores; print once, at the end"
                )
            elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
                yield cell.breaks("sys-path", "sys.path; the package is installed")


def _name(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
            return str(name)
        case _:
            return None


def forbidden_calls(lesson: Lesson) -> Iterator[Violation]:
    """Hidden warnings and long sleeps."""
    for cell in lesson.code:
        tree = _tree(cell)
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, ast.Call):
                continue
            called = _name(node.func)
            parts = [part for argument in _arguments(node) for part in ast.walk(argument)]
            values = [part.value for part in parts if isinstance(part, ast.Constant)]
            if called in _FILTERS and "ignore" in values:
                yield cell.breaks("warnings", f'{called}("ignore"); mend what warns')
            longest = max((v for v in values if isinstance(v, int | float)), default=0)
            if called == "sleep" and longest > MOST_SLEEP_S:
                what = f"sleeps {longest:g} s; wait for a condition, with a deadline"
                yield cell.breaks("sleep", what)


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def hosts(lesson: Lesson) -> Iterator[Violation]:
    """Nothing leaves the machine."""
    for cell in lesson.code:
        tree = _tree(cell)
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            found = _URL_HOST.findall(node.value)
            if bare := _BARE_HOST.fullmatch(node.value):
                found.append(bare[1] or bare[2])
            for host in found:
                if host != OWN_HOST:
                    what = f"the host {host}; notebooks reach only {OWN_HOST}"
                    yield cell.breaks("host", what)


def exempt_cells(lesson: Lesson) -> Iterator[Violation]:
    """Few outputs that are not compared, each held to a range instead; by tags, not by comments."""
    exempt = [cell for cell in lesson.code if "nbval-ignore-output" in cell.tags]
    for cell in exempt[MOST_EXEMPT:]:
        what = f"{len(exempt)} exempt cells, at most {MOST_EXEMPT}; print what does not vary"
        yield cell.breaks("exempt", what)
    for cell in exempt:
        tree = _tree(cell)
        asserts = [node for node in ast.walk(tree or ast.Module([], [])) if _is_range(node)]
        if not asserts:
            yield cell.breaks("exempt", "exempt without an assert; add assert low < x < high")
    for cell in lesson.code:
        if found := _NBVAL_COMMENT.search(cell.source):
            yield cell.breaks("nbval-comment", f"the comment {found[1]}; use a tag")


def _is_range(node: ast.AST) -> bool:
    """Tell whether a node asserts a comparison."""
    return isinstance(node, ast.Assert) and any(
        isinstance(part, ast.Compare) for part in ast.walk(node.test)
    )


RULES: tuple[Rule, ...] = (
    length,
    plumbing,
    syntax,
    semicolons,
    forbidden_names,
    forbidden_calls,
    hosts,
    exempt_cells,
)
