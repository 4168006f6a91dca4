"""Arrow columns as the flat NumPy arrays that the rest of the package works on."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def decoded(array: pa.Array) -> pa.Array:
    """The values of a dictionary array; any other array as it is."""
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without views of text, of which Arrow cannot yet pick rows: a string for a string_view, in lists too."""
    types = pa.types
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted)
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with each of its types `plain`."""
    return pa.schema([_plain_field(field) for field in schema], schema.metadata)


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain(field.type))


def unnest(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Take a list column apart; a null list counts as an empty one.

    Returns:
        offsets: int64 of shape `(rows + 1,)`; row i is `values[offsets[i]:offsets[i + 1]]`.
        values: the flat elements.
    """
    if pa.types.is_null(array.type):
        array = array.cast(pa.list_(pa.null()))
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(pc.fill_null(pc.list_value_length(array), 0).to_numpy(), out=offsets[1:])
    return offsets, decoded(array.flatten())


def list_rows(offsets: np.ndarray) -> np.ndarray:
    """The row each flat element belongs to: int64 of shape `(elements,)`."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def row_numbers(values: pa.Array, table: pa.Array) -> np.ndarray:
    """Where each id stands in `table`, counted from 1; 0 where it does not stand there or is null.

    Args:
        values: Ids of shape `(n,)`.
        table: int64 or string, without duplicates.

    Returns:
        int32 of shape `(n,)`.
    """
    found = pc.index_in(values.cast(table.type), value_set=table)
    return pc.fill_null(found, -1).to_numpy() + 1


def times_us(array: pa.Array) -> np.ndarray:
    """Timestamps of any unit and zone as datetime64[us] in UTC, NaT where null. Without a zone they are UTC."""
    if pa.types.is_null(array.type):
        array = array.cast(pa.timestamp("us"))
    # Nanoseconds may lose digits; a coarser time that does not fit in microseconds is an error.
    target = pa.timestamp("us", array.type.tz)
    return array.cast(target, safe=array.type.unit != "ns").to_numpy(zero_copy_only=False)
