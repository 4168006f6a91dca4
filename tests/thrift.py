"""Parquet taken apart and put together wrong: Thrift's compact protocol, footers, pages.

A struct is a dict of field number to (type, value), a list is (type of its items, items), bytes are
bytes.
"""

from collections.abc import Callable

import pyarrow as pa

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
Struct = dict[int, tuple[int, object]]

# Field numbers of parquet.thrift.
SCHEMA, ROWS, ROW_GROUPS, KEY_VALUE = 2, 3, 4, 5  # FileMetaData
GROUP_COLUMNS, GROUP_BYTES, GROUP_ROWS = 1, 2, 3  # RowGroup
CHUNK_META = 3  # ColumnChunk
# ColumnMetaData
CODEC, VALUES, UNCOMPRESSED, COMPRESSED, DATA_PAGE, DICTIONARY_PAGE = (4, 5, 6, 7, 9, 11)
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8
CODECS = {None: 0, "snappy": 1, "gzip": 2, "zstd": 6}


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def zigzag(number: int) -> bytes:
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


def write(struct: Struct) -> bytes:
    out, last = bytearray(), 0
    for field, (kind, value) in sorted(struct.items()):
        step = field - last
        out += bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + zigzag(field)
        out += _write(kind, value)
        last = field
    return bytes(out) + b"\0"


def _write(kind: int, value: object) -> bytes:
    if kind in (TRUE, FALSE):
        return b""
    if kind in (I16, I32, I64):
        return zigzag(value)
    if kind == BINARY:
        return varint(len(value)) + value
    if kind == STRUCT:
        return write(value)
    if kind == LIST:
        item, items = value
        head = (
            bytes([len(items) << 4 | item])
            if len(items) < 15
            else bytes([0xF0 | item]) + varint(len(items))
        )
        return head + b"".join(_write(item, one) for one in items)
    return value  # bytes as they came


def read(data: bytes, at: int = 0) -> tuple[Struct, int]:
    """The struct that begins at `at`, and where it ends."""
    struct: Struct = {}
    field = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            field += step
        else:
            field, at = _integer(data, at)
        value, at = _read(kind, data, at)
        struct[field] = kind, value
    return struct, at + 1


def _integer(data: bytes, at: int, signed: bool = True) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return ((number >> 1) ^ -(number & 1) if signed else number), at


def _read(kind: int, data: bytes, at: int) -> tuple[object, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind in (I16, I32, I64):
        return _integer(data, at)
    if kind == BINARY:
        length, at = _integer(data, at, signed=False)
        return data[at : at + length], at + length
    if kind == STRUCT:
        return read(data, at)
    if kind == LIST:
        item, length = data[at] & 15, data[at] >> 4
        at += 1
        if length == 15:
            length, at = _integer(data, at, signed=False)
        items = []
        for _ in range(length):
            one, at = _read(item, data, at)
            items.append(one)
        return (item, items), at
    size = {I8: 1, DOUBLE: 8}[kind]
    return data[at : at + size], at + size


def footer_at(file: bytes) -> int:
    return len(file) - 8 - int.from_bytes(file[-8:-4], "little")


def footer(file: bytes) -> Struct:
    return read(file, footer_at(file))[0]


def with_footer(file: bytes, metadata: bytes) -> bytes:
    """The file with another footer, whose length is right."""
    return file[: footer_at(file)] + metadata + len(metadata).to_bytes(4, "little") + b"PAR1"


def forged(file: bytes, change: Callable[[Struct], None]) -> bytes:
    """The file with a footer that `change` has altered."""
    metadata = footer(file)
    change(metadata)
    return with_footer(file, write(metadata))


def put(struct: Struct, field: int, value: object) -> None:
    """Another value for a field, of the type that it has."""
    struct[field] = struct[field][0], value


def groups(metadata: Struct) -> list[Struct]:
    return metadata[ROW_GROUPS][1][1]


def chunk(metadata: Struct, column: int, group: int = 0) -> Struct:
    """The ColumnMetaData of a leaf column."""
    return groups(metadata)[group][GROUP_COLUMNS][1][1][column][CHUNK_META][1]


def all_rows(rows: int) -> Callable[[Struct], None]:
    """Says everywhere that there are so many rows."""

    def change(metadata: Struct) -> None:
        put(metadata, ROWS, rows)
        for group in groups(metadata):
            put(group, GROUP_ROWS, rows)

    return change


def run(value: int, count: int) -> bytes:
    """`count` times a value of up to 8 bits, in RLE."""
    return varint(count << 1) + bytes([value])


def page(
    body: bytes,
    values: int,
    encoding: int = PLAIN,
    size: int | None = None,
    dictionary: bool = False,
) -> bytes:
    """A page of format v1 around a body that is compressed already; `size` is what its header says
    it unpacks to.
    """
    header: Struct = {
        1: (I32, 2 if dictionary else 0),
        2: (I32, len(body) if size is None else size),
        3: (I32, len(body)),
    }
    if dictionary:
        header[7] = STRUCT, {1: (I32, values), 2: (I32, PLAIN)}
    else:
        header[5] = STRUCT, {1: (I32, values), 2: (I32, encoding), 3: (I32, RLE), 4: (I32, RLE)}
    return write(header) + body


def with_pages(
    file: bytes,
    column: int,
    data: bytes,
    values: int,
    dictionary: bytes = b"",
    codec: str | None = None,
) -> bytes:
    """The file with these pages for a leaf column instead of its own."""
    at = footer_at(file)
    metadata = footer(file)
    found = chunk(metadata, column)
    put(found, VALUES, values)
    put(found, CODEC, CODECS[codec])
    put(found, COMPRESSED, len(dictionary) + len(data))
    put(found, DATA_PAGE, at + len(dictionary))
    found.pop(DICTIONARY_PAGE, None)
    if dictionary:
        found[DICTIONARY_PAGE] = I64, at
    return with_footer(file[:at] + dictionary + data + file[at:], write(metadata))


def long_list(file: bytes, column: int, entries: int, article: int) -> bytes:
    """The file with one row in a list column: the same article so often, in a few bytes."""
    levels = [run(0, 1) + run(1, entries - 1), run(3, entries)]
    body = (
        b"".join(len(level).to_bytes(4, "little") + level for level in levels)
        + b"\1"
        + run(0, entries)
    )
    dictionary = page(article.to_bytes(8, "little"), 1, dictionary=True)
    return with_pages(file, column, page(body, entries, RLE_DICTIONARY), entries, dictionary)


def zeros(size: int, codec: str) -> bytes:
    """So many zero bytes, compressed."""
    if codec == "snappy":  # has no stream
        return pa.compress(bytes(size), codec, asbytes=True)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        for start in range(0, size, 1 << 24):
            stream.write(bytes(min(1 << 24, size - start)))
    return sink.getvalue().to_pybytes()
