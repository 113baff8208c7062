"""Columns that hold an array in each row, such as the pixels of an image.

They're columns of Arrow lists of fixed length, one level for each axis. So dtype and shape belong
to the column, in a frame as in a parquet file, and any reader of Arrow understands them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_mini.errors import InvalidArgumentError


def arrow_type(kind: str) -> pa.DataType | None:
    """Read the kind of a tensor column, such as `uint8[28,28]`; None if it's another kind.

    >>> arrow_type("uint8[2,3]")
    FixedSizeListType(fixed_size_list<item: fixed_size_list<item: uint8>[3]>[2])
    """
    parts = re.fullmatch(r"(u?int\d+|float\d+)\[([1-9]\d*(?:,[1-9]\d*)*)\]", kind)
    if not parts:
        return None
    nested = pa.type_for_alias(parts[1])
    for length in reversed(parts[2].split(",")):
        nested = pa.list_(nested, int(length))
    return nested


def kind(stored: pa.DataType) -> str:
    """Say what a type is, a tensor such as `uint8[28,28]`, any other in Arrow's words."""
    lengths: list[str] = []
    innermost = stored
    while pa.types.is_fixed_size_list(innermost):
        lengths.append(str(innermost.list_size))
        innermost = innermost.value_type
    if not lengths or not pa.types.is_primitive(innermost):
        return str(stored)
    return f"{np.dtype(innermost.to_pandas_dtype()).name}[{','.join(lengths)}]"


def kind_of(values: "pd.Series[Any]") -> str:
    """Say what a column is: a tensor such as `uint8[28,28]`, or its dtype."""
    dtype = values.dtype
    return kind(dtype.pyarrow_dtype) if isinstance(dtype, pd.ArrowDtype) else str(dtype)


def is_tensor(dtype: Any) -> bool:
    """Tell whether a column of this dtype holds an array in each row."""
    return isinstance(dtype, pd.ArrowDtype) and pa.types.is_fixed_size_list(dtype.pyarrow_dtype)


def column(values: npt.NDArray[Any]) -> "pd.Series[Any]":
    """Make a tensor column.

    Args:
        values: Numbers of shape [n_rows, ...], with at least two axes.

    Returns:
        A column with one array for each row, rows numbered from 0.

    Raises:
        InvalidArgumentError: There's no second axis, or the values are no numbers.

    >>> pixels = column(np.zeros((5, 28, 28), np.uint8))
    >>> len(pixels), kind_of(pixels)
    (5, 'uint8[28,28]')
    """
    if values.ndim < 2 or values.dtype.kind not in "iuf" or not all(values.shape[1:]):
        raise InvalidArgumentError(
            "a tensor column is made of numbers of shape [n_rows, ...]; got"
            f" {values.dtype} of {list(values.shape)}"
        )
    nested = pa.array(np.ascontiguousarray(values).ravel())
    for length in reversed(values.shape[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, length)
    return pd.Series(pd.arrays.ArrowExtensionArray(nested))


def to_numpy(values: "pd.Series[Any]") -> npt.NDArray[Any]:
    """Turn a column into an array, shape [n_rows], or [n_rows, ...] of a tensor column.

    Args:
        values: Of any dtype. A missing tensor counts as zeros.

    >>> to_numpy(column(np.eye(2))[::-1])
    array([[0., 1.],
           [1., 0.]])
    """
    if not is_tensor(values.dtype):
        return values.to_numpy()
    nested = pa.array(values.array)
    nested = nested.combine_chunks() if isinstance(nested, pa.ChunkedArray) else nested
    is_missing = values.isna().to_numpy()
    shape = [len(nested)]
    while pa.types.is_fixed_size_list(nested.type):
        length = nested.type.list_size
        shape.append(length)
        every = nested.values  # noqa: PD011, of Arrow's list, those of missing rows too
        nested = every.slice(nested.offset * length, len(nested) * length)
    array: npt.NDArray[Any] = nested.to_numpy(zero_copy_only=False).reshape(shape)
    return np.where(is_missing.reshape(-1, *[1] * (array.ndim - 1)), 0, array).astype(array.dtype)


def mapper(stored: pa.DataType) -> pd.ArrowDtype | None:
    """Tell pandas which of Arrow's types stay: `to_pandas(types_mapper=mapper)`."""
    return pd.ArrowDtype(stored) if pa.types.is_fixed_size_list(stored) else None


def write_parquet(
    frame: pd.DataFrame, file: Path, *, notes: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a frame, tensor columns or not, without its index.

    Pandas makes objects of tensor columns when it reads the file, and `read_parquet` such columns.

    Args:
        frame: The frame.
        file: Where to.
        notes: Texts for the metadata of the file's schema.
    """
    if not notes and not any(map(is_tensor, frame.dtypes)):
        frame.to_parquet(file, index=False)
        return
    # With its own notes on such columns in the file, pandas couldn't read it.
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(dict(notes)), file)


def read_parquet(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a file; tensor columns stay such."""
    frame: pd.DataFrame = pq.read_table(file, columns=list(columns)).to_pandas(types_mapper=mapper)
    return frame
