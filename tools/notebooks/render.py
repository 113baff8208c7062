"""Renders notebooks as nbviewer does, with its own nbconvert, and checks the pages.

That nbconvert is older than the working environment's: it lives in an environment of its own, made
once from `environments/render.txt` and kept until that lock changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from mlops_mini.errors import FailedPreconditionError, InternalError, MlopsMiniError
from tools.notebooks import document, pages
from tools.notebooks.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "environments" / "render.txt"


def environment() -> Path:
    """Find the environment with nbviewer's nbconvert, or make it, which takes a network once.

    Raises:
        FailedPreconditionError: It cannot be made; the set-up has said why.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / "environments" / f"render-{digest}"
    set_up = [sys.executable, str(ROOT / "tools/set_up.py"), str(folder), "--lock", str(LOCK)]
    if subprocess.run(set_up, check=False).returncode:
        raise FailedPreconditionError(f"no environment for {LOCK.name}: see the line above")
    return folder


def convert(paths: list[Path], folder: Path) -> None:
    """Write an HTML page for each notebook, all by one process.

    Raises:
        InternalError: nbconvert fails; the message has its last words.
    """
    python = str(environment() / "bin" / "python")
    options = ["--log-level=ERROR", "--to", "html", "--output-dir", str(folder)]
    done = subprocess.run(
        [python, "-m", "nbconvert", *options, *(str(path.resolve()) for path in paths)],
        env={**os.environ, "JUPYTER_NO_CONFIG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise InternalError(f"nbconvert failed: {' '.join(last)}")


def main(paths: list[Path], folder: Path) -> int:
    """Render into a folder, with the figures beside the pages, and print what is wrong there."""
    # Reading them first says in one line what nbconvert would say in fifty.
    failing = {path: _failing(path) for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    convert(paths, folder.resolve())
    for figures in {path.parent / "figures" for path in paths}:
        if figures.is_dir():
            shutil.copytree(figures, folder / "figures", dirs_exist_ok=True)
    rendered = {
        path.resolve(): Page((folder / f"{path.stem}.html").read_text(encoding="utf-8"))
        for path in paths
    }
    status = 0
    for path in paths:
        anchors_of = partial(_anchors, path, rendered)
        page = rendered[path.resolve()]
        for violation in pages.violations(page, anchors_of=anchors_of, failing=failing[path]):
            status = 1
            print(violation.line(path))
    print(f"{len(paths)} pages in {folder}")
    return status


def _failing(path: Path) -> set[str]:
    cells = document.read(path).cells
    return {cell.get("id") for cell in cells if "raises-exception" in cell.metadata.get("tags", [])}


def _anchors(path: Path, rendered: dict[Path, Page], name: str) -> set[str] | None:
    """Find what a link to a file beside a notebook may name; None where there is no file."""
    file = (path.parent / name if name else path).resolve()
    if file in rendered:
        return rendered[file].anchors
    if not file.exists():
        return None
    try:
        return document.anchors(document.read(file))
    except MlopsMiniError:  # no notebook
        return set()
