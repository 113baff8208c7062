"""What an exported model takes and answers, by signature."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError

DEFAULT = "serving_default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What a model takes and answers, by name.

    Attributes:
        inputs: Type of each input, such as `float32`, `string` or `uint8[28,28]`.
        outputs: Type of each output.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]


def read(version_folder: Path) -> dict[str, Signature]:
    """Read what callers of an exported model may send, and what they get, by signature.

    Args:
        version_folder: A SavedModel with the signature `serving_default`.

    Raises:
        NotFoundError: There's no SavedModel in the folder.
        DataIntegrityError: Its files are damaged.
        InvalidArgumentError: It has no such signature.
    """
    return {
        name: Signature(
            inputs={
                alias: type_of(spec)
                for alias, spec in function.structured_input_signature[1].items()
            },
            outputs={alias: type_of(spec) for alias, spec in function.structured_outputs.items()},
        )
        for name, function in load(version_folder).signatures.items()
    }


def type_of(values: Any) -> str:
    """Name dtype and shape of each row, as the kind of a tensor column does: `uint8[28,28]`."""
    name = "string" if values.dtype == object else values.dtype.name
    lengths = ",".join(map(str, values.shape[1:]))
    return f"{name}[{lengths}]" if lengths else str(name)


def load(version_folder: Path) -> Any:
    """Load a model that answers `probability`.

    Args:
        version_folder: A SavedModel.

    Raises:
        NotFoundError: There is no SavedModel in the folder.
        DataIntegrityError: Its files are damaged.
        InvalidArgumentError: It has no signature `serving_default` that answers `probability`.
    """
    import tensorflow as tf

    if not (version_folder / "saved_model.pb").is_file():
        raise NotFoundError(f"no SavedModel in {version_folder}: export or publish one there first")
    try:
        loaded = tf.saved_model.load(str(version_folder))
    except (tf.errors.OpError, OSError, ValueError, RuntimeError, LookupError) as exc:
        raise DataIntegrityError(
            f"{version_folder} does not load ({str(exc).splitlines()[0]}): export the model again"
        ) from exc
    function = loaded.signatures.get(DEFAULT)
    if function is None or "probability" not in function.structured_outputs:
        raise InvalidArgumentError(
            f"{version_folder} answers no `probability` in a signature `serving_default`: "
            "export it with training.export"
        )
    return loaded
