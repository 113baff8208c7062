"""The record of what ran where, docs/platforms.json, and the page that is made of it.

Each piece keeps what its last run here or elsewhere has measured: a machine on which a piece is
skipped says so when it runs, and takes nothing out of the record that another one has put in.
"""

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.platforms.piece import Piece

RECORD = Path(__file__).resolve().parents[2] / "docs" / "platforms.json"
_HEAD = """\
# Platforms

Each platform that the notes name gets the same objects that run on a laptop, and goes as far as it
can without an account, a cluster or a cloud. This page is generated from
[what was recorded](platforms.json) when each piece last ran; `make platforms` runs all of them and
writes it anew, and the command in a row runs one. What isn't listed here hasn't been run: no piece
has met the real service.

| platform | the notes' tool | our object | command | last run |
|---|---|---|---|---|
"""


def keep(name: str, piece: Piece, *, seconds: float, path: Path = RECORD) -> None:
    """Put what came of a piece on record, and write the page beside it anew.

    Args:
        name: Of the piece's module.
        piece: What came of it; if it was skipped, an earlier run of it stays on record.
        seconds: How long it took.
        path: The record, JSON; the page has the same name with `.md`.
    """
    entries = read(path)
    if piece.state == "ran" or entries.get(name, {}).get("state") != "ran":
        entries[name] = asdict(piece) | {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores,"
            f" Python {platform.python_version()}, load {os.getloadavg()[1]:.0f}",
            "seconds": round(seconds),
        }
    path.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
    path.with_suffix(".md").write_text(page(entries))


def read(path: Path = RECORD) -> dict[str, dict[str, Any]]:
    """Read the record: what is known of each piece by the name of its module."""
    entries: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return entries


def line(name: str, piece: Piece, *, seconds: float) -> str:
    """Say in one line what came of a piece."""
    if piece.state == "skipped":
        return f"{name} was skipped: {piece.reason}"
    facts = "; ".join(f"{what}: {value}" for what, value in piece.facts.items())
    return f"{name} ran in {seconds:.0f} s: {facts}"


def page(entries: dict[str, dict[str, Any]]) -> str:
    """Write the page."""
    rows, parts = [], []
    for entry in entries.values():
        when = f"{entry['date']}, {entry['seconds']} s"
        if entry["state"] == "skipped":
            when = f"skipped: {entry['reason']}"
        cells = (entry["name"], entry["notes_tool"], entry["our_object"])
        rows.append(f"| {' | '.join(cells)} | `{entry['command']}` | {when} |\n")
        if entry["state"] == "ran":
            facts = "".join(f"| {what} | {value} |\n" for what, value in entry["facts"].items())
            parts.append(
                f"\n## {entry['name']}\n\nRun on {entry['date']} ({entry['machine']}), in"
                f" {entry['seconds']} s.\n\n| what | result |\n|---|---|\n{facts}"
            )
    return _HEAD + "".join(rows) + "".join(parts)
