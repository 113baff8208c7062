"""What a data folder holds for training besides tables, such as a policy of augmentation."""

import json
from pathlib import Path

from mlops_mini.errors import DataIntegrityError
from mlops_mini.use_case import UseCase


def read(use_case: UseCase, data_folder: Path) -> str:
    """Read the settings of a use case.

    Args:
        use_case: It names the file, if it has any settings.
        data_folder: Where the file is, or isn't.

    Returns:
        JSON on one line; empty if there's no such file.

    Raises:
        DataIntegrityError: The file is no JSON.
    """
    file = data_folder / use_case.settings
    if not use_case.settings or not file.is_file():
        return ""
    try:
        return json.dumps(json.loads(file.read_bytes()))
    except ValueError as exc:
        raise DataIntegrityError(
            f"use case {use_case.name}: {file} is no JSON ({exc}): correct it, or take it away"
        ) from exc
