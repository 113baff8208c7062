"""Digest what a task's result depends on: contents, reachable code, installed packages.

A component's own source is thin and calls a library, so the source alone does not say what the task
does. Its key must also cover every module that it can reach, found by reading the imports, those
inside functions included, without running any. A module whose name is made up only at run time, for
`importlib.import_module`, is not found.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIBRARY = "mlops_mini"
_STDLIB = Path(sysconfig.get_path("stdlib"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """What a component's source can import.

    Attributes:
        digest: sha256 of all files of our library, and of the user's own modules, within reach.
        modules: The digest of each of them, by its name.
        installed: Names of the installed packages within reach, such as `tensorflow`.
        at_once: Those of `installed` that the component imports itself, or that its imports import
            at the top of a module. The others are imported in functions that may never be called.
    """

    digest: str
    modules: Mapping[str, str]
    installed: frozenset[str]
    at_once: frozenset[str]


def content_digest(path: Path, metadata: Mapping[str, Any] | None = None) -> str:
    """Digest a file or a folder by its relative names and bytes, wherever it lies.

    Args:
        path: Symbolic links are followed.
        metadata: Stands for the content where there is no file: metrics may be metadata only.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a", "b"):
    ...     (folder / name).mkdir()
    ...     _ = (folder / name / "rows.csv").write_text("1,2")
    >>> content_digest(folder / "a") == content_digest(folder / "b") != content_digest(folder)
    True
    """
    digest = hashlib.sha256()
    if not path.exists():
        digest.update(json.dumps(metadata or {}, sort_keys=True).encode())
    within = (
        Path(folder, name)
        for folder, folders, files in os.walk(path, followlinks=True)
        for name in (*folders, *files)
    )
    for file in sorted(within) if path.is_dir() else [path] if path.exists() else []:
        name = os.fsencode(file.relative_to(path))
        if file.is_file():
            with file.open("rb") as stream:
                of_file = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(b"%b\0%b\0" % (name, of_file.encode()))
        else:
            digest.update(b"%b/\0" % name)
    return digest.hexdigest()


def key_of(parts: Mapping[str, Any]) -> str:
    """Digest plain values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def installed() -> Mapping[str, Any]:
    """List the Python version, and the names and versions of all installed packages."""
    names = {entry.name for folder in sys.path for entry in Path(folder).glob("*.*-info")}
    return {"python": sys.version, "packages": sorted(names)}


@functools.cache
def installed_digest() -> str:
    """Digest what `installed` lists."""
    return key_of(installed())


def git_commit() -> str:
    """Tell the commit of the current folder, with `-dirty` if it was changed since.

    Returns:
        As `git describe` says it; empty outside of a checkout, and without git.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip()


def reach(source: str) -> Reach:
    r"""Follow the imports of a component's source.

    Modules of installed packages are named but not followed: their versions are in
    `installed_digest`. Modules found elsewhere, such as a user's own beside a notebook, are
    followed like those of our library, and what else lies in a package counts, such as schemas.

    >>> within_reach = reach("def f():\n    from mlops_mini.data import rules")
    >>> "pandas" in within_reach.installed, "tensorflow" in within_reach.installed
    (True, False)
    >>> sorted({"pandas", "pandera"} & within_reach.at_once)
    ['pandas']
    """
    for cached_lookup in (_roots_of, _is_own):
        cached_lookup.cache_clear()  # A module may have been written since.
    parts: dict[str, str] = {}
    installed: dict[str, bool] = {}
    at_once, later = [name for name, _ in _imports(source.encode(), "")], list[str]()
    while at_once or later:
        # What is imported at once comes first, so that nothing is taken for later that is not.
        is_at_once = bool(at_once)
        name = (at_once or later).pop()
        top = name.partition(".")[0]
        if name in parts or top in sys.stdlib_module_names:
            continue
        if not _is_own(top):
            installed.setdefault(top, is_at_once)
        elif file := _file_of(name):
            code = file.read_bytes()
            parts[name] = hashlib.sha256(code).hexdigest()
            is_package = _is_init(file)
            for other, is_at_top in _imports(code, name if is_package else name.rpartition(".")[0]):
                (at_once if is_at_once and is_at_top else later).append(other)
            for data in _data_in(file.parent) if is_package else ():
                parts[f"{name}/{data.name}"] = content_digest(data)
    return Reach(
        digest=key_of(parts),
        modules=parts,
        installed=frozenset(installed),
        at_once=frozenset(top for top, is_at_once in installed.items() if is_at_once),
    )


@functools.cache
def _roots_of(top: str) -> tuple[Path, ...]:
    """Find a top-level module without importing it: its file, or its `__init__.py`, there or not.

    A package without `__init__.py` may have several folders.
    """
    try:
        module = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if module and module.submodule_search_locations is not None:
        return tuple(Path(folder) / "__init__.py" for folder in module.submodule_search_locations)
    return (Path(module.origin),) if module and module.origin and module.has_location else ()


@functools.cache
def _is_own(top: str) -> bool:
    return top == _LIBRARY or any(
        not {"site-packages", "dist-packages"} & {*root.parts} and not root.is_relative_to(_STDLIB)
        for root in _roots_of(top)
    )


def _file_of(name: str) -> Path | None:
    """Find the file of a module of our own; None for what is a name inside a module."""
    top, *rest = name.split(".")
    for root in _roots_of(top):
        path = root.parent.joinpath(*rest)
        within = (path / "__init__.py", path.with_suffix(".py")) if _is_init(root) else ()
        for file in within if rest else (root,):
            if file.is_file():
                return file
    return None


def _is_init(file: Path) -> bool:
    return file.name == "__init__.py"


def _data_in(package: Path) -> Iterator[Path]:
    """List what is no code in a package's folder; subfolders that are packages list their own."""
    for other in package.iterdir():
        is_code = other.suffix in {".py", ".pyc"} or (other / "__init__.py").exists()
        if not is_code and other.name != "__pycache__" and not other.name.startswith("."):
            yield other


@functools.lru_cache(maxsize=4096)
def _imports(source: bytes, package: str) -> tuple[tuple[str, bool], ...]:
    """List what a source imports, every parent package and every imported name as a module.

    Returns:
        Names, each with whether it is imported as soon as the source is.
    """
    try:
        nodes = list(_statements(ast.parse(source)))
    except (SyntaxError, ValueError):
        # No Python, such as an extension module, or broken: whoever imports it gets the error then.
        return ()
    imports = []
    for node, is_at_top in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            imports += [(".".join(parts[: i + 1]), is_at_top) for i in range(len(parts))]
    return tuple(imports)


def _statements(tree: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """Walk a syntax tree; with each node comes whether it is run as soon as the source is.

    No expression is looked at, for none can import.
    """
    todo = [(tree, True)]
    while todo:
        node, is_at_top = todo.pop()
        yield node, is_at_top
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            is_at_top = False
        elif is_at_top and isinstance(node, ast.If):
            is_at_top = not ast.unparse(node.test).endswith("TYPE_CHECKING")
        todo += [
            (child, is_at_top)
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.expr)
        ]
