"""Compiles requirements.txt from pyproject.toml, and each environments/NAME.txt from its NAME.in.

Runs uv in an environment of its own under .cache, so that the working environment stays as it is.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

HEADER = """\
# Made by `make lock` from pyproject.toml, not by hand: one exact set for Python 3.11 to 3.13 on
# Linux (x86-64, arm64) and macOS 15 (Apple silicon). `pip install -r requirements.txt` works too.
"""


def compile_lock(uv: Path, source: str, *options: str) -> list[str] | None:
    """Resolve a source for all supported platforms: a line a package, None if nothing fits."""
    command = [
        str(uv), "pip", "compile", "--quiet", "--universal", "--upgrade", "--python-version",
        "3.11", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
        *options, source,
    ]  # fmt: skip
    resolved = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if resolved.returncode:
        print(f"lock: no set of versions fits {source}; its lock is as it was")
        return None
    lines = resolved.stdout.splitlines()
    # Most lines carry one marker, that of all supported platforms; it says nothing, so it goes.
    markers = Counter(line.partition(" ; ")[2] for line in lines)
    return [line.removesuffix(" ; " + markers.most_common(1)[0][0]) for line in lines]


def write_lock(path: Path, header: str, lines: Sequence[str]) -> None:
    """Write a lock by rename, so that it is never half there."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("\n".join([header.rstrip(), *lines, ""]))
    unfinished.rename(path)
    print(f"lock: {path} holds {len(lines)} lines")


def main() -> int:
    """Write all locks; one without a solution stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", required=True, help="version of uv")
    uv_version = parser.parse_args().uv
    tools = Path(".cache/lock")
    if not (tools / "bin" / "uv").exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(tools)])
    pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "-qq"]
    subprocess.check_call([*pip, "--disable-pip-version-check", f"uv=={uv_version}"])
    uv = tools / "bin" / "uv"
    extras = ("--extra", "data-centric", "--extra", "notebooks", "--extra", "dev")
    found = {Path("requirements.txt"): compile_lock(uv, "pyproject.toml", *extras)}
    for source in sorted(Path("environments").glob("*.in")):
        found[source.with_suffix(".txt")] = compile_lock(uv, str(source))
    for path, lines in found.items():
        if lines is not None and path.name == "requirements.txt":
            write_lock(path, HEADER, [*lines, "-e ."])
        elif lines is not None:
            write_lock(path, f"# Made by `make lock` from {path.stem}.in, not by hand.", lines)
    return 1 if None in found.values() else 0


if __name__ == "__main__":
    sys.exit(main())
