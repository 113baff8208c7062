"""Holds notebooks to the rules, without a kernel: outputs, limits, frame, links."""

from collections.abc import Iterator
from pathlib import Path

from mlops_mini.errors import MlopsMiniError
from tools.notebooks import (
    code_rules,
    document,
    file_rules,
    frame_rules,
    link_rules,
    output_rules,
    prose_rules,
)
from tools.notebooks.lesson import Lesson, Rule, Violation

RULES: tuple[Rule, ...] = (
    *file_rules.RULES,
    *frame_rules.RULES,
    *prose_rules.RULES,
    *link_rules.RULES,
    *code_rules.RULES,
    *output_rules.RULES,
)


def violations(path: Path) -> Iterator[Violation]:
    """Hold a notebook to every rule, if it is valid at all.

    Raises:
        MlopsMiniError: It cannot be read.
    """
    nb = document.read(path)
    if problem := document.objection(nb):
        yield Violation(rule="format", what=f"{problem}; refresh it")
        return
    lesson = Lesson(path, nb)
    for rule in RULES:
        yield from rule(lesson)


def main(paths: list[Path]) -> int:
    """Print a line for each rule that a notebook breaks; 1 if there is one."""
    status = 0
    for path in paths:
        try:
            lines = [violation.line(path) for violation in violations(path)]
        except MlopsMiniError as exc:
            lines = [str(exc)]
        for line in dict.fromkeys(lines):
            status = 1
            print(line)
    return status
