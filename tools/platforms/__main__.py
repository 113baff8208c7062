"""Runs each platform's piece, says what ran and what didn't, and writes docs/platforms.md anew.

Each piece is a process of its own, so one that hangs or dies takes none with it. One that fails
leaves what was recorded of it before, and the exit status 1.

Example: python -m tools.platforms --only feast
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mlops_mini.errors import MlopsMiniError
from tools.platforms import record
from tools.platforms.piece import Piece

# The quick ones first, for when time runs out.
PIECES = ("feast", "dataflow", "cloudbuild", "kubeflow", "vertex", "sagemaker", "tfx")
LONGEST_S = 1500.0


def run_piece(name: str, *, longest_s: float = LONGEST_S) -> Piece | str:
    """Run a piece in a process of its own.

    Args:
        name: Of its module.
        longest_s: When to end it with all that it started, seconds.

    Returns:
        What came of it, or why it failed.
    """
    with tempfile.TemporaryDirectory(prefix=f"mlops-mini-{name}-") as text:
        answer = Path(text) / "piece.json"
        work = Path(text) / "work"
        work.mkdir()
        command = [sys.executable, "-m", "tools.platforms", "--alone", name, str(work), str(answer)]
        with (Path(text) / "log.txt").open("w+") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(longest_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if status is None:
                return f"it took longer than {longest_s / 60:.0f} minutes"
            if status:
                log.seek(0)
                return f"it ended with {status}:\n{log.read()[-3000:].strip()}"
        return Piece(**json.loads(answer.read_text()))


def run_alone(name: str, folder: Path, answer: Path) -> int:
    """Run a piece in this process, and write what came of it into a file."""
    try:
        piece = importlib.import_module(f"tools.platforms.{name}").run(folder)
    except MlopsMiniError as exc:
        print(exc)
        return 1
    answer.write_text(json.dumps(asdict(piece)))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pieces one after the other; exit 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    there = [name for name in PIECES if (Path(__file__).with_name(f"{name}.py")).exists()]
    parser.add_argument("--only", action="append", choices=there, help="else all of them")
    parser.add_argument(
        "--until", type=float, default=float("inf"), metavar="EPOCH_S",
        help="start no piece after this instant, seconds since 1970",
    )  # fmt: skip
    parser.add_argument("--record", type=Path, default=record.RECORD, help=argparse.SUPPRESS)
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.alone:
        name, folder, answer = given.alone
        return run_alone(name, Path(folder), Path(answer))
    outcomes = {"ran": [], "skipped": [], "failed": [], "left out for time": []}
    for name in given.only or there:
        if time.time() > given.until:
            outcomes["left out for time"].append(name)
            continue
        print(f"platforms: {name} ...", flush=True)
        began = time.monotonic()
        piece = run_piece(name)
        took_s = time.monotonic() - began
        if isinstance(piece, str):
            outcomes["failed"].append(name)
            print(f"platforms: {name} failed after {took_s:.0f} s: {piece}", flush=True)
            continue
        outcomes[piece.state].append(name)
        record.keep(name, piece, seconds=took_s, path=given.record)
        print(f"platforms: {record.line(name, piece, seconds=took_s)}", flush=True)
    for outcome, names in outcomes.items():
        print(f"platforms: {len(names)} {outcome}" + (f": {', '.join(names)}" if names else ""))
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
