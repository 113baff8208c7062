"""Reads one file of a table, in the columns and types that are wanted."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_mini.errors import DataIntegrityError


def read(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a parquet file as a table of a schema.

    Args:
        path: The file. Other columns than the schema's are left out; wider types of the same kind
            are narrowed, so that files of other makers give the same dtypes.
        schema: Columns and types wanted.

    Returns:
        The schema's columns in its order: instants as `datetime64[ns, UTC]`, strings as objects
        with None for missing, and integers that may be missing always as float64, so that a dtype
        does not depend on the rows. A missing value elsewhere is let through, for the row rules to
        find.

    Raises:
        DataIntegrityError: The file is no readable parquet, lacks a column, has a column of another
            kind or out of the type's range, or holds no rows.
    """
    try:
        with pq.ParquetFile(path) as file:
            stored = file.schema_arrow
            _check_columns(path, stored, schema)
            table = file.read(columns=schema.names)
    except (pa.ArrowException, OSError) as exc:
        raise DataIntegrityError(
            f"{path} is not a readable parquet file ({_first_line(exc)}); get it back with"
            " `git checkout -- data` or write it again"
        ) from exc
    if table.num_rows == 0:
        raise DataIntegrityError(f"{path} holds no rows, expected at least one; write it again")
    table = table.select(schema.names)
    frame: pd.DataFrame = _cast(path, table, schema).to_pandas(coerce_temporal_nanoseconds=True)
    counts = [field.name for field in schema if field.nullable and pa.types.is_integer(field.type)]
    return frame.astype(dict.fromkeys(counts, "float64"))


def _check_columns(path: Path, stored: pa.Schema, wanted: pa.Schema) -> None:
    missing = [name for name in wanted.names if name not in stored.names]
    if missing:
        raise DataIntegrityError(
            f"{path} lacks the columns {missing}; it has {stored.names}: rename or add them"
        )
    for field in wanted:
        found = stored.field(field.name).type
        if not _is_narrowable(found, field.type):
            raise DataIntegrityError(
                f"{path} has column {field.name!r} of type {found}, expected {field.type}:"
                " convert it before writing the file"
            )


def _is_narrowable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether values of one type can stand for another without changing their meaning."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):  # a column that is wholly empty carries no type
        return True
    if pa.types.is_string(wanted):
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(found) and found.tz is not None)
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found))


def _cast(path: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowInvalid as exc:
            raise DataIntegrityError(
                f"{path} has values in column {field.name!r} that do not fit {field.type}"
                f" ({_first_line(exc)}): correct them before writing the file"
            ) from exc
    return pa.Table.from_arrays(columns, schema=schema)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0].rstrip(".")
