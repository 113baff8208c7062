"""What is made once for a whole test run, whichever of its workers asks first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Give the folder of that name, which `make` fills the first time; never change it.

    Without workers of pytest-xdist this is a folder in the session's own. A maker that fails or is
    killed leaves nothing that counts: the next who asks empties the folder and makes it anew.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder of its own in the run's
        base = base.parent
    folder, complete = base / f"once_{name}", base / f"once_{name}.complete"
    with (base / f"once_{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # falls with the process, however it ends
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
