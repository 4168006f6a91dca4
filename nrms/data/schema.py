"""The Parquet contract: the columns of each file, their types, and the error of a file that breaks
it.

Ids are integers of any width or strings; inside they are int64 or string, one of the two for all
ids of one thing (article, user, impression). A list is a list, a large_list or a fixed_size_list.
Columns beyond the contract may be of any type: they are never read. A column that the file lacks
may be the key of a folder `key=value` that the file lies in; where the file has it, the file's own
counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms import storage
from nrms.data.columns import is_list, plain
from nrms.data.mistakes import near_name
from nrms.errors import SchemaError

Kind = Literal["id", "ids", "text", "label", "time", "times", "integer", "numbers"]
Thing = Literal["article", "user", "impression"]
Families = dict[Thing, pa.DataType]


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
    Column("article_id", "id", required=False, names="article"),
)
HISTORY = (
    Column("user_id", "id", names="user"),
    Column("article_id_fixed", "ids", names="article"),
    Column("impression_time_fixed", "times", required=False),
)

# Columns of articles.parquet that some models read, by what they hold vectors of.
VECTORS = {"vector": "document_vector", "entities": "entity_vector"}
IN_VIEW, CLICKS = "article_ids_inview", "article_ids_clicked"
LISTS = ("ids", "times", "numbers")
STRINGS = (pa.string(), pa.large_string())
EXPECTED: dict[Kind, str] = {
    "id": "an integer or a string",
    "ids": "a list of integers or of strings",
    "text": "a string",
    "label": "a string or an integer, or a list of them",
    "time": "a timestamp",
    "times": "a list of timestamps",
    "integer": "an integer",
    "numbers": "a list of floats",
}


def schema_error(rule: str, received: str, uri: str, todo: str) -> SchemaError:
    """The one line a user reads: the rule, what arrived, where, what to do."""
    # What arrived may come from a hostile file, with newlines or a thousand column names.
    received = shorten(received, 400, placeholder=" ...")
    parts = {"rule": rule, "received": received, "where": uri, "todo": todo}
    return SchemaError(f"{rule} Received: {received}, in {uri}. {todo}", parts)


def check_columns(
    schema: pa.Schema, rows: str, uri: str, contract: tuple[Column, ...], families: Families
) -> None:
    """Check a footer's columns against the contract; `families` are those of `open_parquet`. Raises
    SchemaError.
    """
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
            near = near_column(column, contract, schema)
            raise schema_error(
                f"Column `{column.name}` ({EXPECTED[column.kind]}) is required.",
                f"{rows} of columns {', '.join(schema.names) or '(none)'}",
                uri,
                "Add or rename the column."
                if near is None
                else f"Rename `{near}` if that is it, or add the column.",
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
                f"Column `{column.name}` must hold {column.names} ids of the same type as the "
                f"other files ({families[column.names]}).",
                f"{arrived} ({rows})",
                uri,
                "Cast one of them.",
            )


def near_column(column: Column, contract: tuple[Column, ...], schema: pa.Schema) -> str | None:
    """The column beyond the contract that is most likely meant, with a similar name and the right
    type.
    """
    known = {other.name for other in contract}
    names = [
        field.name
        for field in schema
        if field.name not in known and _family(field.type, column.kind) is not None
    ]
    return near_name(column.name, names)


def _family(arrived: pa.DataType, kind: Kind) -> pa.DataType | None:
    """The type that these values have inside: null for a column without values; None for a wrong
    type.
    """
    types, arrived = pa.types, plain(arrived)
    nested = is_list(arrived)
    if kind in LISTS and not nested and not types.is_null(arrived):
        return None
    if nested and (kind in LISTS or kind == "label"):
        arrived = arrived.value_type
    if types.is_dictionary(arrived):
        arrived = arrived.value_type
    if types.is_null(arrived):
        return arrived
    if types.is_integer(arrived) and kind in ("id", "ids", "integer", "label"):
        return pa.int64()
    if arrived in STRINGS and kind in ("id", "ids", "text", "label"):
        return pa.string()
    if types.is_timestamp(arrived) and kind in ("time", "times"):
        return arrived
    if types.is_floating(arrived) and kind == "numbers":
        return pa.float32()
    return None


@contextmanager
def set_aside(info: storage.FileInfo, bad: dict[str, SchemaError] | None) -> Iterator[None]:
    """In the block, note a SchemaError about a file in `bad`, by uri. With None it is raised."""
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


def mask_error(rows: int, uri: str) -> SchemaError:
    """The error of clicks that are 0/1 masks of the candidates, as many tools write labels."""
    return schema_error(
        f"Column `{CLICKS}` must hold the ids of the clicked articles.",
        f"0/1 masks, as long as the candidates, in {rows:,} rows",
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
