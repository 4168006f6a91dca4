"""The Parquet contract: the columns of each file, their types, and the door every file comes through.

Ids are integers of any width or strings; inside they are int64 or string, one of the two for all ids of one
thing (article, user, impression). A list is a list, a large_list or a fixed_size_list. Columns beyond the
contract may be of any type: they are never read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.columns import decoded
from nrms.data.mistakes import is_mask
from nrms.errors import SchemaError

Kind = Literal["id", "ids", "text", "time", "times", "integer", "numbers"]
Thing = Literal["article", "user", "impression"]
Families = dict[Thing, pa.DataType]

# Enough for Arrow to work on whole columns, few enough for a file of millions of long histories.
BATCH_ROWS = 16_384


@dataclass(frozen=True)
class Column:
    """One column of the contract. `names` is the thing whose ids it holds."""

    name: str
    kind: Kind
    required: bool = True
    names: Thing | None = None


ARTICLES = (Column("article_id", "id", names="article"), Column("title", "text"))
BEHAVIORS = (
    Column("impression_id", "id", names="impression"),
    Column("user_id", "id", names="user"),
    Column("article_ids_inview", "ids", names="article"),
    Column("article_ids_clicked", "ids", required=False, names="article"),
    Column("impression_time", "time", required=False),
    Column("device_type", "integer", required=False),
    Column("oracle_scores", "numbers", required=False),
)
HISTORY = (
    Column("user_id", "id", names="user"),
    Column("article_id_fixed", "ids", names="article"),
    Column("impression_time_fixed", "times", required=False),
)

CLICKS = "article_ids_clicked"
STRINGS = (pa.string(), pa.large_string(), pa.string_view())
EXPECTED: dict[Kind, str] = {
    "id": "an integer or a string",
    "ids": "a list of integers or of strings",
    "text": "a string",
    "time": "a timestamp",
    "times": "a list of timestamps",
    "integer": "an integer",
    "numbers": "a list of floats",
}


def schema_error(rule: str, received: str, uri: str, todo: str) -> SchemaError:
    """The one line a user reads: the rule, what arrived, where, what to do."""
    # What arrived may come from a hostile file: newlines, a thousand column names.
    received = shorten(received, 400, placeholder=" ...")
    parts = {"rule": rule, "received": received, "where": uri, "todo": todo}
    return SchemaError(f"{rule} Received: {received}, in {uri}. {todo}", parts)


class ParquetReader:
    """One Parquet file whose footer keeps the contract; made by `open_parquet`.

    Attributes:
        uri: Where the file came from, for messages.
        rows: Number of rows, from the footer.
        size: Bytes of all values before compression, from the footer.
        present: Names of the contract's columns that hold values (an optional column of type null is absent).
    """

    def __init__(self, file: pq.ParquetFile, uri: str, contract: tuple[Column, ...]) -> None:
        self._file = file
        self.uri = uri
        self.rows: int = file.metadata.num_rows
        self.size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        schema = file.schema_arrow
        self.present = {
            column.name
            for column in contract
            if column.name in schema.names and (column.required or not pa.types.is_null(schema.field(column.name).type))
        }

    def read(self, *names: str) -> dict[str, pa.Array]:
        """The named columns, by default all of the contract; a name that is not `present` is left out."""
        columns = [name for name in names or self.present if name in self.present]
        table = self._file.read(columns=columns)
        return {name: _checked(table.column(name).combine_chunks()) for name in columns}

    def batches(self, *names: str) -> Iterator[dict[str, pa.Array]]:
        """The same, `BATCH_ROWS` rows at a time."""
        columns = [name for name in names if name in self.present]
        for batch in self._file.iter_batches(BATCH_ROWS, columns=columns):
            yield {name: _checked(batch.column(name)) for name in columns}


@contextmanager
def open_parquet(
    info: storage.FileInfo, cache: Path, contract: tuple[Column, ...], families: Families
) -> Iterator[ParquetReader]:
    """Open one pinned generation of a file and check its footer before any data is read.

    Args:
        info: The file, as `storage.stat` or `storage.list_files` described it.
        cache: Folder for the local copy of a `gs://` object.
        contract: `ARTICLES`, `BEHAVIORS` or `HISTORY`.
        families: int64 or string for each thing already seen. Things first met in this file are added.

    Raises:
        SchemaError: not Parquet, cut short, a column missing, of the wrong type or there twice; also when the
            data turns out to be unreadable inside the `with` block.
        StorageError: the file could not be fetched, or changed since `info`.
    """
    path = storage.fetch(info, cache)
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file, info.uri, contract, families)
            yield ParquetReader(file, info.uri, contract)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise schema_error(
            "A file must be whole Parquet with readable values.",
            f"{info.size:,} bytes that fail with '{error}'",
            info.uri,
            "Write or copy the file again.",
        ) from error


def _check_columns(file: pq.ParquetFile, uri: str, contract: tuple[Column, ...], families: Families) -> None:
    schema, rows = file.schema_arrow, f"{file.metadata.num_rows:,} rows"
    for column in contract:
        found = schema.names.count(column.name)
        if found > 1:
            raise schema_error(
                f"Column `{column.name}` must be there once.",
                f"{found} of that name ({rows})",
                uri,
                "Rename or drop the others.",
            )
        if not found and column.required:
            raise schema_error(
                f"Column `{column.name}` ({EXPECTED[column.kind]}) is required.",
                f"{rows} of columns {', '.join(schema.names) or '(none)'}",
                uri,
                "Add or rename the column.",
            )
        if not found:
            continue
        arrived = schema.field(column.name).type
        family = _family(arrived, column.kind)
        if family is None:
            raise schema_error(
                f"Column `{column.name}` must be {EXPECTED[column.kind]}.",
                f"{arrived} ({rows})",
                uri,
                "Cast the column to that type.",
            )
        if column.names is None or pa.types.is_null(family):
            continue
        if families.setdefault(column.names, family) != family:
            raise schema_error(
                f"Column `{column.name}` must hold {column.names} ids of the same type as the other files "
                f"({families[column.names]}).",
                f"{arrived} ({rows})",
                uri,
                "Cast one of them.",
            )


def _family(arrived: pa.DataType, kind: Kind) -> pa.DataType | None:
    """The type these values take inside, null for a column without values; None for the wrong type."""
    types = pa.types
    if kind in ("ids", "times", "numbers") and not types.is_null(arrived):
        if not (types.is_list(arrived) or types.is_large_list(arrived) or types.is_fixed_size_list(arrived)):
            return None
        arrived = arrived.value_type
    if types.is_dictionary(arrived):
        arrived = arrived.value_type
    if types.is_null(arrived):
        return arrived
    if types.is_integer(arrived) and kind in ("id", "ids", "integer"):
        return pa.int64()
    if arrived in STRINGS and kind in ("id", "ids", "text"):
        return pa.string()
    if types.is_timestamp(arrived) and kind in ("time", "times"):
        return arrived
    if types.is_floating(arrived) and kind == "numbers":
        return pa.float32()
    return None


def _checked(array: pa.Array) -> pa.Array:
    # Arrow reads text without looking whether it is UTF-8.
    array.validate(full=True)
    return decoded(array)


@contextmanager
def set_aside(info: storage.FileInfo, bad: dict[str, SchemaError] | None) -> Iterator[None]:
    """Note a SchemaError about a file in `bad`, by uri, instead of raising it; with None it is raised."""
    try:
        yield
    except SchemaError as error:
        if bad is None:
            raise
        bad[info.uri] = error


def refuse_nulls(name: str, array: pa.Array, uri: str) -> None:
    """Raise SchemaError when an id column holds nulls, with their count and the first row."""
    if array.null_count:
        first = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise schema_error(
            f"Column `{name}` must not be null.",
            f"null in {array.null_count:,} of {len(array):,} rows, first in row {first} (from 0)",
            uri,
            "Give these rows an id or remove them.",
        )


def refuse_masks(clicks: pa.Array, in_view: pa.Array, uri: str) -> None:
    """Raise SchemaError when the lists of clicks are 0/1 masks of the candidates, as many tools write labels."""
    if is_mask(clicks, in_view):
        raise schema_error(
            f"Column `{CLICKS}` must hold the ids of the clicked articles.",
            f"0/1 masks, as long as the candidates in all {len(clicks):,} rows",
            uri,
            "Write the ids of those candidates whose mask is 1.",
        )


def first_duplicate(ids: pa.Array) -> tuple[int, object] | None:
    """How many ids repeat an earlier one, and the first id that does; None when all differ."""
    repeated = len(ids) - pc.count_distinct(ids).as_py()
    if not repeated:
        return None
    counts = pc.value_counts(ids)
    return repeated, counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
