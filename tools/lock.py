"""Compiles requirements.txt, one lock for all supported platforms, from pyproject.toml.

Runs uv in an environment of its own under .cache, so that the working environment stays as it is.
"""

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

HEADER = """\
# Made by `make lock` from pyproject.toml, not by hand: one exact set for Python 3.11 to 3.13 on
# Linux (x86-64, arm64) and macOS 15 (Apple silicon). `pip install -r requirements.txt` works too.
"""


def main() -> int:
    """Write the lock, or leave the old one when there is no solution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", required=True, help="version of uv")
    uv_version = parser.parse_args().uv
    tools = Path(".cache/lock")
    if not (tools / "bin" / "uv").exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(tools)])
    pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.check_call([*pip, "--disable-pip-version-check", f"uv=={uv_version}"])
    resolved = subprocess.run(
        [
            str(tools / "bin" / "uv"), "pip", "compile", "--quiet", "--universal", "--upgrade",
            "--python-version", "3.11", "--extra", "notebooks", "--extra", "dev", "--no-header",
            "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "pyproject.toml",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )  # fmt: skip
    if resolved.returncode:
        print("lock: no set of versions fits; requirements.txt is as it was")
        return 1
    wanted = resolved.stdout.splitlines()
    # Most lines carry one marker, that of all supported platforms; it says nothing, so it goes.
    markers = Counter(line.partition(" ; ")[2] for line in wanted)
    everywhere = " ; " + markers.most_common(1)[0][0]
    wanted = [line.removesuffix(everywhere) for line in wanted]
    Path("requirements.txt").write_text("\n".join([HEADER.rstrip(), *wanted, "-e .", ""]))
    print(f"lock: requirements.txt holds {len(wanted)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
