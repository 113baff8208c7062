"""Arrays as pictures that a browser shows."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Write a gray picture as a PNG file.

    Args:
        image: uint8 of shape [height, width], 0 is black.

    Raises:
        InvalidArgumentError: It has another type or shape.

    Source:
        PNG (Portable Network Graphics) Specification, 3rd edition, W3C 2025, sections 5 and 11.

    >>> png(np.zeros((28, 28), np.uint8))[1:4]
    b'PNG'
    """
    if image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        raise InvalidArgumentError(
            f"a picture is uint8 of [height, width], got {image.dtype} of {list(image.shape)}"
        )
    height, width = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, gray
    rows = np.column_stack([np.zeros(height, np.uint8), image])  # each begins with its filter: none
    body = zlib.compress(rows.tobytes())
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
