"""Engines know no flight and no shirt: whoever has a table of their own gets all of them."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mlops_mini"
# Those that may name a use case: the use cases themselves, the command, and the notebooks' helper.
TENANTS = {"flights", "photos"}
FRONT = {"cli.py", "cli_loop.py", "notebook.py"}
ENGINES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in TENANTS | FRONT
)
WORDS = re.compile(
    r"\b([cC]arriers?|dest|[fF]lights?|origins?|New York|[cC]loth(es|ing)|[sS]hirts?|Fashion)\b"
)


def named_in(text: str) -> str | None:
    """Find a word of a subject; requests in flight are none, nor is HTTP's Origin, nor Envoy's."""
    spaced = text.replace("_", " ").replace("in flight", "").replace("local origin", "")
    found = WORDS.search(spaced)
    return found.group() if found else None


def words_of_subjects(source: str) -> list[str]:
    """List identifiers and texts of a module, docstrings and doctests too, that name a subject."""
    named = []
    for node in ast.walk(ast.parse(source)):
        texts = [getattr(node, field, None) for field in ("id", "name", "asname", "module")]
        # A module's spec has an attribute and a keyword `origin`.
        texts += [
            text for text in (getattr(node, "attr", 0), getattr(node, "arg", 0)) if text != "origin"
        ]
        texts += [node.value] if isinstance(node, ast.Constant) else []
        named += [
            f"line {getattr(node, 'lineno', 0)}: {word}"
            for text in texts
            if isinstance(text, str) and (word := named_in(text.replace(".", " ")))
        ]
    return named


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_an_engine_names_no_subject(path: Path) -> None:
    named = words_of_subjects(path.read_text())
    of_argo = path.name == "exports.py"  # whose manifests have a field `dest`
    assert [each for each in named if not (of_argo and each.endswith(": dest"))] == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(rows):\n    return rows['origin']",
        "ENTITIES = ('carrier',)",
        "def read(flights):\n    return flights",
        '"""Months of flights."""',
        "from mlops_mini.flights import times",
        "zone = 'America/New_York'",
        "class FlightEvent:\n    dest: str",
        "SLICES = ('condition', 'clothing')",
        "CLASSES = ('T-shirt', 'Coat')",
    ],
)
def test_a_planted_subject_is_found(source: str) -> None:
    assert words_of_subjects(source)


def test_headers_of_http_are_another_word() -> None:
    assert words_of_subjects("allowed = 'Access-Control-Allow-Origin'") == []
