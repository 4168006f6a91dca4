"""Opens every Parquet file from outside: checks it against the contract, reads it, and says by name
what cannot be read.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.columns import decoded, plain, plain_schema, times_us, unnest
from nrms.data.mistakes import first, is_mask
from nrms.data.partitions import partition_keys, partition_value
from nrms.data.schema import (
    CLICKS,
    EXPECTED,
    IN_VIEW,
    LISTS,
    Column,
    Families,
    Kind,
    check_columns,
    mask_error,
    near_column,
    schema_error,
)
from nrms.data.unreadable import RULE, cause, looks_like
from nrms.errors import SchemaError

# Enough rows for Arrow to work on whole columns, and few enough when millions of users have long
# histories.
BATCH_ROWS = 16_384
_LOOKED_AT = 20  # so many other columns of lists are tried where clicks are missing


class ParquetReader:
    """One Parquet file whose footer fulfils the contract; made by `open_parquet`.

    Attributes:
        uri: Where the file came from, for messages.
        rows: Number of rows, from the footer.
        size: Bytes of all values before compression, from the footer.
        present: Names of the contract's columns that hold values (an optional column of type null
            is absent).
        zones: The time zone of each column of times that is present; None for a column without.
    """

    def __init__(
        self, file: pq.ParquetFile, info: storage.FileInfo, path: Path, contract: tuple[Column, ...]
    ) -> None:
        self._file, self._info, self._path = file, info, path
        self._contract = {column.name: column for column in contract}
        self._keys: dict[str, pa.Scalar] = {}
        self.uri = info.uri
        self.rows: int = file.metadata.num_rows
        self.size = sum(
            file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
        )
        self.present: set[str] = set()
        self.zones: dict[str, str | None] = {}

    def check(self, families: Families) -> None:
        """Check the footer, and the keys of the folders, against the contract. Raises
        SchemaError.
        """
        for name, text in partition_keys(self.uri).items():
            column = self._contract.get(name)
            if name not in self._file.schema_arrow.names and (
                column is None or column.kind not in LISTS
            ):
                self._keys[name] = self._key(name, text, "text" if column is None else column.kind)
        schema = self._schema()
        try:
            check_columns(
                schema, f"{self.rows:,} rows", self.uri, tuple(self._contract.values()), families
            )
        except SchemaError as error:
            raise self._explained(error) from error
        for column in self._contract.values():
            if column.name not in schema.names:
                continue
            kind = schema.field(column.name).type
            if column.required or not pa.types.is_null(kind):
                self.present.add(column.name)
            values = (
                kind.value_type if column.kind == "times" and not pa.types.is_null(kind) else kind
            )
            if pa.types.is_timestamp(values):
                self.zones[column.name] = values.tz

    def read(self, *names: str) -> dict[str, pa.Array]:
        """The named columns, by default all of the contract, as far as they are `present`."""
        columns = [name for name in names or self.present if name in self.present]
        with self._reading(columns, self._read_whole):
            table = self._file.read(columns=[name for name in columns if name not in self._keys])
            return {name: self._column(name, table) for name in columns}

    def times_beside(self, name: str) -> np.ndarray | None:
        """A column of timestamps beyond the contract, as `times_us` gives it; None where there is
        no such column.
        """
        schema = self._file.schema_arrow
        if schema.names.count(name) != 1 or not pa.types.is_timestamp(schema.field(name).type):
            return None
        try:
            return times_us(self._file.read(columns=[name]).column(0).combine_chunks())
        except pa.ArrowInvalid:
            return None  # a time is out of range; nothing depends on these columns

    def batches(self, *names: str) -> Iterator[dict[str, pa.Array]]:
        """The same as `read`, `BATCH_ROWS` rows at a time."""
        columns = [name for name in names if name in self.present]
        with self._reading(columns, self._read_batches):
            for batch in self._file.iter_batches(
                BATCH_ROWS, columns=[name for name in columns if name not in self._keys]
            ):
                yield {name: self._column(name, batch) for name in columns}

    def tables(self, *names: str) -> Iterator[pa.Table]:
        """The named columns, which the file itself must have, or all columns and the folders' keys,
        unchanged but for `plain` types: first a table without rows, then `BATCH_ROWS` rows at a
        time.
        """
        schema = self._schema()
        columns = list(names) or self._file.schema_arrow.names
        keys = {} if names else self._keys
        if names:
            schema = pa.schema([schema.field(name) for name in names])
        with self._reading(columns, self._read_batches):
            yield schema.empty_table()
            for batch in self._file.iter_batches(BATCH_ROWS, columns=list(names) or None):
                batch = batch.select(names) if names else batch
                arrays = [
                    column.cast(kind)
                    for column, kind in zip(batch.columns, schema.types, strict=False)
                ]
                repeated = [pa.repeat(value, len(batch)) for value in keys.values()]
                yield pa.Table.from_arrays([*arrays, *repeated], schema=schema)

    def hints(self) -> dict[str, str]:
        """Hints by optional column: which other column of the file is most likely meant to be the
        missing one.
        """
        schema, contract, found = self._schema(), tuple(self._contract.values()), {}
        for column in contract:
            if column.required or column.name in schema.names:
                continue
            if (near := near_column(column, contract, schema)) is not None:
                found[column.name] = (
                    f"there is no column `{column.name}`, but `{near}`, which is not read. Rename "
                    f"it if that is it."
                )
            elif column.name == CLICKS and (mask := self._mask(schema)) is not None:
                found[column.name] = (
                    f"there is no column `{column.name}`, but `{mask}` holds 0/1 masks of the "
                    "candidates, which are not read. If these are the clicks, write the ids of the "
                    f"candidates whose mask is 1 as `{column.name}`."
                )
        return found

    def _explained(self, error: SchemaError) -> SchemaError:
        """The error about a column, which says what its values most likely are."""
        column = re.match("Column `(.*?)` must (hold)?", error.parts["rule"])
        if column is None or column[1] in self._keys:
            return error
        if column[1] == CLICKS and (lists := self._lists(CLICKS)) is not None and is_mask(*lists):
            return mask_error(len(lists[0]), self.uri)
        if (
            column[2] is None
            or (batch := next(self._file.iter_batches(BATCH_ROWS, columns=[column[1]]), None))
            is None
        ):
            return error
        ids = self._column(column[1], batch)
        ids = (unnest(ids)[1] if _is_list(ids.type) else ids).drop_null()
        parts = error.parts
        received = f"{parts['received']}; its ids begin {first(ids)}"
        return schema_error(parts["rule"], received, parts["where"], parts["todo"])

    def _mask(self, schema: pa.Schema) -> str | None:
        """A column beyond the contract whose lists look like 0/1 masks of the candidates."""
        lists = [
            field.name
            for field in schema
            if field.name not in self._contract and _is_list(field.type)
        ]
        for name in lists[:_LOOKED_AT]:
            # Nothing else reads these columns, so an error in one of them does not matter.
            with suppress(pa.ArrowException, OSError, UnicodeDecodeError):
                if (found := self._lists(name)) is not None and is_mask(*found):
                    return name
        return None

    def _lists(self, name: str) -> tuple[pa.Array, pa.Array] | None:
        """The first rows of a column and of the in-view lists; None where one of them is not a
        column of lists.
        """
        schema = self._file.schema_arrow
        if any(
            schema.names.count(each) != 1 or not _is_list(schema.field(each).type)
            for each in (name, IN_VIEW)
        ):
            return None
        batch = next(self._file.iter_batches(BATCH_ROWS, columns=[name, IN_VIEW]), None)
        return None if batch is None else (batch.column(name), batch.column(IN_VIEW))

    def _schema(self) -> pa.Schema:
        keys = [pa.field(name, value.type) for name, value in self._keys.items()]
        schema = plain_schema(self._file.schema_arrow)
        return pa.schema([*schema, *keys], schema.metadata)

    def _key(self, name: str, text: str | None, kind: Kind) -> pa.Scalar:
        try:
            return partition_value(text, kind)
        except ValueError:
            raise schema_error(
                f"Column `{name}` must be {EXPECTED[kind]}.",
                f"the folder {name}={text}",
                self.uri,
                "Rename the folder, or put the column into the file.",
            ) from None

    def _column(self, name: str, table: pa.Table | pa.RecordBatch) -> pa.Array:
        if name in self._keys:
            return pa.repeat(self._keys[name], len(table))
        array = table.column(name)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        # Arrow reads text without checking that it is UTF-8.
        array.validate(full=True)
        array = decoded(array)
        if array.type != (kind := plain(array.type)):
            array = array.cast(kind)
        return self._in_range(self._contract[name], array)

    def _in_range(self, column: Column, array: pa.Array) -> pa.Array:
        """Times as microseconds; ids as they are. Raises SchemaError for those that int64 cannot
        hold.
        """
        nested = column.kind in LISTS and not pa.types.is_null(array.type)
        values = array.type.value_type if nested else array.type
        if values == pa.uint64() and column.names in ("article", "user"):
            largest = pc.max(array.flatten() if nested else array).as_py()
            if largest is not None and largest >= 2**63:
                raise schema_error(
                    f"Column `{column.name}` must hold integers below 2^63, or strings.",
                    f"{largest} ({array.type})",
                    self.uri,
                    f"Cast all {column.names} ids to strings.",
                )
        if pa.types.is_timestamp(values) and values.unit != "us":
            try:
                # Nanoseconds may lose digits.
                return array.cast(_microseconds(array.type), safe=values.unit != "ns")
            except pa.ArrowInvalid as error:
                raise schema_error(
                    f"Column `{column.name}` must hold times that fit in microseconds.",
                    f"'{error}' ({array.type})",
                    self.uri,
                    "Write null for what is no time, and times between the years 1 and 9999.",
                ) from error
        return array

    @contextmanager
    def _reading(self, columns: list[str], again: Callable[[str], None]) -> Iterator[None]:
        """Name the column that the block cannot read: the first that `again` cannot read alone."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            bad = None
            for name in [] if isinstance(error, MemoryError) else columns:
                try:
                    again(name)
                except (pa.ArrowException, OSError, UnicodeDecodeError):
                    bad = name
                    break
            raise _unreadable(error, self._info, self._path, bad) from error

    def _read_whole(self, name: str) -> None:
        if name not in self._keys:
            self._column(name, self._file.read(columns=[name]))

    def _read_batches(self, name: str) -> None:
        if name not in self._keys:
            for batch in self._file.iter_batches(BATCH_ROWS, columns=[name]):
                batch.validate(full=True)


@contextmanager
def open_parquet(
    info: storage.FileInfo, cache: Path, contract: tuple[Column, ...], families: Families
) -> Iterator[ParquetReader]:
    """Open one pinned generation of a file and check its footer before any data is read.

    Args:
        info: The file, as `storage.stat` or `storage.list_files` described it.
        cache: Folder for the local copy of a `gs://` object.
        contract: `ARTICLES`, `BEHAVIORS` or `HISTORY`, or one of them with more columns.
        families: int64 or string for each thing whose ids were seen before. Those that first occur
            in this file are added.

    Raises:
        SchemaError: not Parquet, cut short, a column missing, of the wrong type or there twice;
            also when the data turns out to be unreadable inside the `with` block.
        StorageError: the file could not be fetched, or changed since `info`.
    """
    path = storage.fetch(info, cache)
    try:
        # Older Spark and Hive write times as INT96 without a unit. As nanoseconds it would wrap
        # after the year 2262.
        with pq.ParquetFile(
            path, coerce_int96_timestamp_unit="us", page_checksum_verification=True
        ) as file:
            reader = ParquetReader(file, info, path, contract)
            reader.check(families)
            yield reader
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(error, info, path) from error


def _unreadable(
    error: BaseException, info: storage.FileInfo, path: Path, column: str | None = None
) -> SchemaError:
    if (found := looks_like(path)) is not None:
        name, todo = found
        return schema_error(
            RULE, f"{info.size:,} bytes that look like {name}, not Parquet", info.uri, todo
        )
    rule, todo = cause(error)
    where = f" in column `{column}`" if column else ""
    return schema_error(
        rule, f"{info.size:,} bytes that fail{where} with '{error}'", info.uri, todo
    )


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    inner = _microseconds(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)
