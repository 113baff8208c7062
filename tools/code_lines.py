"""Counts lines of code: blank lines, comments and docstrings do not count.

Example: python -m tools.code_lines mlops_mini --most 11500
"""

import argparse
import ast
import sys
import tokenize
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


def main() -> int:
    """Print the count; fail if the package or one of its modules is too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--most", type=int, required=True, help="lines of code of the package")
    arguments = parser.parse_args()
    files = sorted(arguments.package.rglob("*.py"))
    n_code = sum(map(count_code_lines, files))
    print(f"{arguments.package}: {n_code} lines of code in {len(files)} modules")
    too_long = [
        (path, n) for path in files if (n := len(path.read_text().splitlines())) > LONGEST_MODULE
    ]
    for path, n in too_long:
        print(f"{path} has {n} lines, at most {LONGEST_MODULE}: split it by concept")
    if n_code > arguments.most:
        print(f"more than {arguments.most}: what can go?")
    return 1 if too_long or n_code > arguments.most else 0


if __name__ == "__main__":
    sys.exit(main())
