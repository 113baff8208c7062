"""Rules of the frame that all notebooks but the index share, and of the way between them."""

import re
from collections.abc import Iterator
from pathlib import Path

from mlops_mini.errors import MlopsMiniError
from tools.notebooks import document
from tools.notebooks.code_rules import YOUR_TURN, is_your_turn
from tools.notebooks.lesson import Lesson, Rule, Section, Violation

OPENING = ("You will build", "You will learn", "Set up")
CLOSING = ("What you built", "On a cluster", "Next")
CHECK = "Check yourself"  # for exercises that don't stand where their idea is fresh
N_SECTIONS = (4, 6)
N_BULLETS = (3, 5)
N_EXERCISES = 2
MOST_SET_UP_LINES = 12
_TITLE = re.compile(r"# (\d\d) · (.+)")
_RUNTIME = re.compile(r"\*runtime ~\d+ (s|min)( · [^*]+)?\*")


def title(lesson: Lesson) -> Iterator[Violation]:
    """`# 08 · Serve without Docker`, then how long it runs."""
    first = lesson.markdown[0].source if lesson.markdown else ""
    found = _TITLE.match(first)
    if not lesson.is_index and (found is None or found[1] != lesson.number):
        what = f"does not open with a title like `# {lesson.number} · Serve without Docker`"
        yield Violation(rule="title", what=what)
    elif not lesson.is_index and not any(map(_RUNTIME.fullmatch, first.splitlines())):
        what = "the first cell has no line like `*runtime ~40 s · needs TF · after 07*`; add it"
        yield Violation(rule="runtime", what=what)


def headings(lesson: Lesson) -> Iterator[Violation]:
    """The fixed headings in their order, and some sections between them."""
    if lesson.is_index:
        return
    found = [section.heading for section in lesson.sections]
    missing = [heading for heading in (*OPENING, *CLOSING) if heading not in found]
    if missing:
        yield Violation(rule="headings", what=f"no heading `## {missing[0]}`; add it")
        return
    own = found[len(OPENING) : -len(CLOSING)]
    n_own = len(own) - (CHECK in own[-1:])
    fixed = (*found[: len(OPENING)], *found[-len(CLOSING) :])
    if fixed != (*OPENING, *CLOSING) or CHECK in own[:-1]:
        fixed = ", ".join((*OPENING, "your sections", *CLOSING))
        yield Violation(rule="headings", what=f"the headings are not in order: {fixed}")
    elif not N_SECTIONS[0] <= n_own <= N_SECTIONS[1]:
        low, high = N_SECTIONS
        what = f"{n_own} sections between Set up and {CLOSING[0]}, not {low} to {high}"
        yield Violation(rule="headings", what=f"{what}; split or join some")


def build(lesson: Lesson) -> Iterator[Violation]:
    """The loop is drawn where the end product is named."""
    section = _section(lesson, "You will build")
    if section and "![" not in "\n".join(section.markdown):
        what = "You will build has no image of the loop; add ![...](figures/...svg)"
        yield Violation(rule="build", what=what)


def learn(lesson: Lesson) -> Iterator[Violation]:
    """Some skills."""
    section = _section(lesson, "You will learn")
    bullets = _bullets(section) if section else []
    if section and not N_BULLETS[0] <= len(bullets) <= N_BULLETS[1]:
        what = f"You will learn has {len(bullets)} bullets, not 3 to 5; write one for each skill"
        yield Violation(rule="learn", what=what)


def set_up(lesson: Lesson) -> Iterator[Violation]:
    """One short cell, which begins the notebook."""
    section = _section(lesson, "Set up")
    if section is None:
        return
    n_lines = [len(cell.source.splitlines()) for cell in section.code]
    call = rf"\bbegin\(['\"]{lesson.number}['\"]\)"
    if len(n_lines) != 1 or n_lines[0] > MOST_SET_UP_LINES:
        what = f"Set up has code cells of {n_lines} lines, not one of at most {MOST_SET_UP_LINES}"
        yield Violation(rule="set-up", what=what)
    elif not re.search(call, section.code[0].source):
        what = f'no nb = mlops_mini.notebook.begin("{lesson.number}"); add it'
        yield section.code[0].breaks("set-up", what)


def exercises(lesson: Lesson) -> Iterator[Violation]:
    """Two exercises, each with an empty cell to write in and its solution."""
    if lesson.is_index:
        return
    n_solutions = sum(cell.source.count("<details>") for cell in lesson.markdown)
    n_empty = sum(map(is_your_turn, lesson.code))
    if n_solutions != N_EXERCISES or n_empty != N_EXERCISES:
        what = f"{n_solutions} solutions and {n_empty} cells `{YOUR_TURN}`, not {N_EXERCISES} each"
        yield Violation(rule="exercises", what=what)


def recap(lesson: Lesson) -> Iterator[Violation]:
    """Some numbers obtained."""
    section = _section(lesson, CLOSING[0])
    n_bullets = len(_bullets(section)) if section else N_BULLETS[0]
    if not N_BULLETS[0] <= n_bullets <= N_BULLETS[1]:
        what = f"{CLOSING[0]} has {n_bullets} bullets, not 3 to 5; write one for each result"
        yield Violation(rule="recap", what=what)


def navigation(lesson: Lesson) -> Iterator[Violation]:
    """The way to the neighbors, in the first and the last markdown cell."""
    if lesson.is_index or not lesson.markdown:
        return
    expected = _navigation_line(lesson)
    for cell in dict.fromkeys((lesson.markdown[0].name, lesson.markdown[-1].name)):
        source = next(each.source for each in lesson.markdown if each.name == cell)
        if expected not in map(str.strip, source.splitlines()):
            what = f"no navigation line; it is: {expected}"
            yield Violation(rule="navigation", what=what, cell_id=cell)


def _navigation_line(lesson: Lesson) -> str:
    others = [
        path for path in lesson.path.parent.glob("[0-9][0-9]_*.ipynb") if path.name[:2] > "00"
    ]
    before = max((path for path in others if path.name < lesson.path.name), default=None)
    after = min((path for path in others if path.name > lesson.path.name), default=None)
    parts = [f"← {_link(before)}"] if before else []
    parts.append("[Contents](00_index.ipynb)")
    parts += [f"{_link(after)} →"] if after else []
    return " · ".join(parts)


def _link(path: Path) -> str:
    try:
        cells = document.read(path).cells
    except MlopsMiniError:  # its own check says more
        cells = []
    found = _TITLE.match(cells[0].source) if cells else None
    text = f"{found[1]} {found[2]}" if found else path.stem
    return f"[{text}]({path.name})"


def _section(lesson: Lesson, heading: str) -> Section | None:
    if lesson.is_index:
        return None
    return next((each for each in lesson.sections if each.heading == heading), None)


def _bullets(section: Section) -> list[str]:
    """The bullets of the outermost level, each with the lines that continue it."""
    text = "\n".join(section.markdown)
    return re.findall(r"^[-*] .+(?:\n[ \t]+\S.*)*", text, flags=re.MULTILINE)


RULES: tuple[Rule, ...] = (
    title,
    headings,
    build,
    learn,
    set_up,
    exercises,
    recap,
    navigation,
)
