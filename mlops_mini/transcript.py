"""Shell lines of a lesson: run where their programs are, else shown as they were recorded.

A notebook about Docker must also be readable, and testable, on a machine without it. So it gives
each line to a `Shell`, which prints the line and what it says, either way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mlops_mini.errors import NotFoundError


class Shell:
    """Runs lines by bash, or replays them from a recording.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> shell = Shell(folder / "lines.json", folder=folder, is_live=True)
    >>> text = shell('echo "hello $USER_NAME"; exit 3', USER_NAME="Ada")
    $ echo "hello $USER_NAME"; exit 3
    hello Ada
    [exit 3]
    """

    def __init__(
        self, recording: Path, *, folder: Path, is_live: bool, is_recording: bool = False
    ) -> None:
        """Read what was recorded.

        Args:
            recording: JSON file with what each line has printed, in order if it ran more than once;
                it need not be there yet.
            folder: Where the lines run.
            is_live: Whether they run at all.
            is_recording: Whether their outputs are written into the recording.
        """
        self.is_live = is_live
        self._recording = recording
        self._folder = folder
        self._is_recording = is_live and is_recording
        self._outputs: dict[str, list[str]] = {}
        self._n_asked: Counter[str] = Counter()
        if recording.exists() and not self._is_recording:
            self._outputs = json.loads(recording.read_text())

    def __call__(self, line: str, *, show: bool = True, **variables: str) -> str:
        """Run or replay a line of shell.

        Args:
            line: The line; what it prints must be the same each time.
            show: Whether to print it, with its output.
            variables: Of its environment, for what must not be printed, such as a free port.

        Returns:
            What it has printed, and its exit status in brackets if that isn't 0.

        Raises:
            NotFoundError: It was never recorded, and can't run here.
        """
        self._n_asked[line] += 1
        if self.is_live:
            said = self._run(line, variables)
        elif outputs := self._outputs.get(line):
            said = outputs[min(self._n_asked[line], len(outputs)) - 1]
        else:
            raise NotFoundError(
                "there's no Docker engine with our image here, and this line wasn't recorded: "
                "install Docker, run `make image`, and begin again"
            )
        if self._is_recording:
            self._outputs.setdefault(line, []).append(said)
            text = json.dumps(self._outputs, indent=1, sort_keys=True)
            self._recording.write_text(f"{text}\n")
        if show:
            sys.stdout.write(f"$ {line}\n{said.rstrip()}\n" if said.strip() else f"$ {line}\n")
        return said

    def _run(self, line: str, variables: Mapping[str, str]) -> str:
        ran = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        status = f"[exit {ran.returncode}]\n" if ran.returncode else ""
        return ran.stdout + status
