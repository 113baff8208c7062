"""What components of the tests do: say a line, wait until the test lets them go on, meet others.

The environment variable MLOPS_MINI_TEST_LINES names the file of the lines; gates are files beside.
"""

import os
import time
from pathlib import Path


def lines_file() -> Path:
    return Path(os.environ["MLOPS_MINI_TEST_LINES"])


def say(line: object) -> None:
    """Append a line by one write."""
    with lines_file().open("ab", buffering=0) as lines:
        lines.write(f"{line}\n".encode())


def said(*, beginning: str = "") -> list[str]:
    """The lines so far, those alone that begin so."""
    text = lines_file().read_text() if lines_file().exists() else ""
    return [line for line in text.splitlines() if line.startswith(beginning)]


def open_gates(*names: str) -> None:
    """Let through who waits at these gates, or will."""
    for name in names:
        lines_file().with_name(f"gate-{name}").touch()


def is_open(name: str) -> bool:
    return lines_file().with_name(f"gate-{name}").exists()


def wait_at(name: str) -> None:
    """Wait until the test opens the gate."""
    deadline = time.monotonic() + 120
    while not is_open(name):
        assert time.monotonic() < deadline, f"waited 120 s at gate {name}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """True while the process lives; one that waits to be collected (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def company(name: str, *, wait_s: float) -> str:
    """Say who is there, and look for others that have come and not yet gone.

    Returns:
        "together" as soon as somebody else is there, "alone" if nobody comes in time.
    """
    say(f"{name} comes")
    deadline, found = time.monotonic() + wait_s, "alone"
    while found == "alone" and time.monotonic() < deadline:
        there = {line.split()[0] for line in said() if line.endswith("comes")}
        gone = {line.split()[0] for line in said() if line.endswith("goes")}
        found = "together" if there - gone - {name} else "alone"
        time.sleep(0.01)
    say(f"{name} goes")
    return found
