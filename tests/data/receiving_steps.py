"""Receives while senders are at work, and killed at each step; prints what came of it as JSON.

A step is whatever the receiver asks of the file system about a path in the folder: Python tells of
it just before, to an audit hook, and the hook acts for the sender or kills the process. Each trial
is a process of its own, so a kill is a real one.

Example: python -m tests.data.receiving_steps kill FOLDER FIRST.parquet SECOND.parquet
"""

import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mlops_mini import files
from mlops_mini.data import partitions
from mlops_mini.errors import AlreadyExistsError

NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)
NAME = "flights-2013-03.parquet"
MANIFEST = f"{NAME}.manifest.json"
STEPS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir"}
Act = Callable[[], object]


def at_steps(inbox: Path, arrived: Path, acts: dict[int, list[Act]]) -> Callable[[], int]:
    """Do something before the receiver's steps of these numbers.

    Returns:
        What does the rest, where there were fewer steps, and tells how many there were.
    """
    n_steps, is_acting = 0, False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal n_steps, is_acting
        if is_acting or event not in STEPS:
            return
        if not {inbox, arrived} & {*Path(str(arguments[0])).parents}:
            return
        n_steps += 1
        is_acting = True
        for act in acts.pop(n_steps, []):
            act()
        is_acting = False

    def end() -> int:
        nonlocal is_acting
        is_acting = True
        for number in sorted(acts):
            for act in acts[number]:
                act()
        return n_steps

    sys.addaudithook(hook)
    return end


class Trial:
    """A folder in which the first file waits, and what senders may do there."""

    def __init__(self, folder: Path, first: Path, second: Path) -> None:
        self.folder, self.second = folder, second
        self.send(first)

    def send(self, file: Path) -> partitions.Manifest:
        return partitions.send(file, self.folder, name=NAME, period="2013-03")

    def send_second(self) -> None:
        """As our sender does, who leaves alone what waits."""
        with contextlib.suppress(AlreadyExistsError):
            self.send(self.second)
            (self.folder / "sent").touch()

    def prepare_second(self) -> tuple[Act, Act]:
        """As another sender may, who asks for nothing: gives what puts the file, then its manifest.

        Both replace what is there by rename.
        """
        partitions.send(self.second, self.folder / "other", name=NAME, period="2013-03")
        from_, to = self.folder / "other" / "inbox", self.folder / "inbox"
        (self.folder / "sent").touch()
        return (
            lambda: (from_ / NAME).replace(to / NAME),
            lambda: (from_ / MANIFEST).replace(to / MANIFEST),
        )

    def receive(self, acts: dict[int, list[Act]]) -> int:
        """Receive in a child; returns how many steps that took, 0 if it was killed."""
        if not (pid := os.fork()):
            code = 255
            try:
                end = at_steps(self.folder / "inbox", self.folder / "arrived", acts)
                partitions.receive(self.folder, now=NOW)
                code = end()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 255:
            raise SystemExit(f"the receiver has failed, with {acts} still to come")
        return max(code, 0)

    def outcome(self) -> dict[str, object]:
        """Look twice more, and tell what is there."""
        partitions.receive(self.folder, now=NOW)
        again = partitions.receive(self.folder, now=NOW)
        arrived = partitions.arrived(self.folder)
        return {
            "was_sent": (self.folder / "sent").exists(),
            "arrived": [one.sha256 for one in arrived],
            "numbers": [one.arrival for one in arrived],
            "are_whole": all(files.file_sha256(one.path) == one.sha256 for one in arrived),
            "inbox": sorted(path.name for path in (self.folder / "inbox").iterdir()),
            "is_quiet": again == partitions.Receipt(),
        }


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Try every step, or every two in order, and print the outcomes."""
    what, (folder, first, second) = sys.argv[1], map(Path, sys.argv[2:])
    n_steps = Trial(folder / "plain", first, second).receive({})
    numbers = range(1, n_steps + 1)
    pairs = itertools.combinations_with_replacement(numbers, 2)
    found = []
    for n, later in pairs if what in {"replace", "send and kill"} else ((n, n) for n in numbers):
        trial = Trial(folder / f"{n}-{later}", first, second)
        acts: dict[int, list[Act]] = {n: [], later: []}
        match what:
            case "kill":
                acts[n] += [kill]
            case "send":
                acts[n] += [trial.send_second]
            case "send and kill":
                acts[n] += [trial.send_second]
                acts[later] += [kill]
            case "replace":
                put_file, put_manifest = trial.prepare_second()
                acts[n] += [put_file]
                acts[later] += [put_manifest]
        trial.receive(acts)
        found.append({"steps": [n, later], **trial.outcome()})
    print(json.dumps({"n_steps": n_steps, "trials": found}))  # noqa: T201 - for the test


if __name__ == "__main__":
    main()
