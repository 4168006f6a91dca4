"""Arrow columns as the flat NumPy arrays that the rest of the package works on."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def decoded(array: pa.Array) -> pa.Array:
    """The values of a dictionary array; any other array as it is."""
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists, of any of Arrow's kinds but views."""
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """The type with a string for each string_view, in lists too, because Arrow cannot yet pick rows
    of views.
    """
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
        return pa.map_(
            _plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted
        )
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with `plain` types."""
    return pa.schema([_plain_field(field) for field in schema], schema.metadata)


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain(field.type))


def unnest(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Take a list column apart. A null list counts as an empty one.

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
    """The row that each flat element belongs to: int64 of shape `(elements,)`."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def list_places(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lists `rows`, int64, stand among the flat elements: the offsets of these lists
    alone, and the place of each of their elements, both int64.
    """
    lengths = np.diff(offsets)[rows]
    taken = np.append(0, np.cumsum(lengths))
    return taken, np.repeat(offsets[rows] - taken[:-1], lengths) + np.arange(taken[-1])


def row_numbers(values: pa.Array, table: pa.Array) -> np.ndarray:
    """The position of each id in `table`, counted from 1; 0 for a null and for an id that is not
    there.

    Args:
        values: Ids of shape `(n,)`.
        table: int64 or string, without duplicates.

    Returns:
        int32 of shape `(n,)`.
    """
    found = pc.index_in(values.cast(table.type), value_set=table)
    return pc.fill_null(found, -1).to_numpy() + 1


def hashes(values: pa.Array | np.ndarray) -> np.ndarray:
    """A number for each id, the same in every process and release: uint64 of shape `(n,)`, evenly
    spread.

    Args:
        values: integers or strings without nulls, or uint64.
    """
    if isinstance(values, pa.Array):
        values = (
            _text_codes(values)
            if not pa.types.is_integer(values.type)
            else values.to_numpy().astype(np.uint64)
        )
    # The finalizer of SplitMix64 (Steele et al., OOPSLA 2014).
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _text_codes(text: pa.Array) -> np.ndarray:
    """A polynomial of the bytes of each text, modulo 2^64: uint64."""
    text = text.cast(pa.large_binary())
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    powers = np.cumprod(np.full(max(1, lengths.max(initial=0)), 0x5851F42D4C957F2D, np.uint64))
    place = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    summed = np.append(np.uint64(0), np.cumsum((data + np.uint64(1)) * powers[place]))
    return np.diff(summed[offsets - offsets[0]])


def times_us(array: pa.Array) -> np.ndarray:
    """Timestamps of any unit and zone as datetime64[us] in UTC, NaT where null. Without a zone they
    are UTC.
    """
    if pa.types.is_null(array.type):
        array = array.cast(pa.timestamp("us"))
    # Nanoseconds may lose digits; a coarser time that does not fit in microseconds is an error.
    target = pa.timestamp("us", array.type.tz)
    return array.cast(target, safe=array.type.unit != "ns").to_numpy(zero_copy_only=False)
