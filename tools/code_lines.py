"""Counts lines of code: blank lines, comments and docstrings do not count.

The budgets stand in pyproject.toml.

Example: python -m tools.code_lines mlops_mini
"""

import argparse
import ast
import statistics
import sys
import tokenize
import tomllib
from collections.abc import Mapping
from pathlib import Path

LONGEST_MODULE = 500
_IGNORED = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def count_code_lines(path: Path) -> int:
    """Count the lines of a Python file that hold code."""
    with tokenize.open(path) as file:
        source = file.read()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if token.type not in _IGNORED:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def count_by_room(package: Path) -> dict[str, int]:
    """Count the lines of code of each folder of a package; what lies beside them is `(top)`."""
    counts: dict[str, int] = {}
    for path in sorted(package.rglob("*.py")):
        room = (path.relative_to(package).parts[:-1] or ("(top)",))[0]
        counts[room] = counts.get(room, 0) + count_code_lines(path)
    return counts


def report(counts: Mapping[str, int], budgets: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Lay the counts out, one line for each room, and say which are above their budget.

    Args:
        counts: Lines of code by room.
        budgets: The most that each may have; `other` is for rooms that are not named, `package`
            for all together.
    """
    lines, problems = [], []
    rows = {**counts, "package": sum(counts.values())}
    for room, n_lines in rows.items():
        budget = budgets.get(room, budgets["other"])
        lines.append(f"{room:<12}{n_lines:>7,} of {budget:,}")
        if n_lines > budget:
            problems.append(
                f"{room} has {n_lines:,} lines of code, at most {budget:,}: what can go?"
            )
    return lines, problems


def main() -> int:
    """Print the lines of each room; fail if one of them or a module is too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    package = parser.parse_args().package
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["code_lines"]
    lines, problems = report(count_by_room(package), settings["budgets"])
    print("\n".join(lines))
    n_lines = {path: len(path.read_text().splitlines()) for path in package.rglob("*.py")}
    print(
        f"{'median module':<14}{statistics.median(n_lines.values()):>5.0f} lines, comments and all"
    )
    problems += [
        f"{path} has {n} lines, at most {LONGEST_MODULE}: split it by concept"
        for path, n in sorted(n_lines.items())
        if n > LONGEST_MODULE
    ]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
