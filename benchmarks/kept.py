"""What a long measurement has found so far, so that one that was ended goes on where it was."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd

from mlops_mini import files


def kept(
    folder: Path, name: str, measure: Callable[[], pd.DataFrame], *, made_by: tuple[ModuleType, ...]
) -> pd.DataFrame:
    """Read what an earlier run has measured, or measure it now and keep it.

    Args:
        folder: Where results are kept; made if it isn't there.
        name: Of the result.
        measure: Makes a table of numbers and texts, if none is kept yet.
        made_by: Modules that the result depends on: once one of them is edited, it's measured anew.

    Returns:
        The table, read from its file in any case.
    """
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in made_by)
    file = folder / f"{name}-{hashlib.sha256(sources).hexdigest()[:12]}.csv"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        table = measure()
        with files.whole_file(file) as unfinished:
            table.to_csv(unfinished, index=False)
    return pd.read_csv(file, float_precision="round_trip")
