"""Refreshes, checks, tests, renders notebooks, or writes copies with their solutions as cells.

Example: python -m tools.notebooks refresh notebooks/08_serve_without_docker.ipynb
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mlops_mini.errors import MlopsMiniError


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the first argument says.

    Returns:
        0; 1 if a notebook failed or broke a rule.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("refresh", help="run notebooks and save their outputs, then check them")
    verb.add_argument("--cell-timeout", type=float, default=180.0, help="seconds for one cell")
    verb.add_argument("notebooks", type=Path, nargs="+")
    verb = verbs.add_parser("check", help="hold notebooks to the rules; runs nothing")
    verb.add_argument("notebooks", type=Path, nargs="+")
    verb = verbs.add_parser("solutions", help="write copies in which solutions are cells")
    verb.add_argument("folder", type=Path)
    verb.add_argument("notebooks", type=Path, nargs="+")
    verb = verbs.add_parser("test", help="run notebooks and solutions, compare their outputs")
    verb.add_argument("--folder", type=Path, default=Path("runs/test"))
    verb.add_argument(
        "--all-passes", action="store_true", help="every notebook, under all arithmetic there is"
    )
    verb.add_argument("notebooks", type=Path, nargs="+")
    verb = verbs.add_parser("render", help="write HTML as nbviewer would, and check it")
    verb.add_argument("--folder", type=Path, default=Path("runs/html"))
    verb.add_argument("notebooks", type=Path, nargs="+")
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments)
    except MlopsMiniError as exc:
        print(exc, file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    # Each verb loads only what it needs: check has no use for a kernel's client. And jsonschema,
    # below nbformat, does without its grammar of URIs, which no notebook has and which takes 1 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    notebooks: list[Path] = arguments.notebooks
    match arguments.verb:
        case "refresh":
            from tools.notebooks import check, refresh

            refreshed = refresh.main(notebooks, cell_timeout_s=arguments.cell_timeout)
            return max(check.main(refreshed), int(refreshed != notebooks))
        case "check":
            from tools.notebooks import check

            return check.main(notebooks)
        case "solutions":
            from tools.notebooks import solutions

            return solutions.main(notebooks, arguments.folder)
        case "test":
            from tools.notebooks import passes

            return passes.main(notebooks, arguments.folder, all_passes=arguments.all_passes)
        case _:
            from tools.notebooks import render

            return render.main(notebooks, arguments.folder)


if __name__ == "__main__":
    sys.exit(main())
