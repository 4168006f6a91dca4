"""Parquet files that this package writes and reads back.

Each page carries its checksum, which any reader may verify. Parquet has no checksum for the footer
and for page headers. So the footer also holds the crc32c of the whole file, computed with the
checksum's own place blank: `metadata` notices every flipped bit.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nrms.errors import StorageError
from nrms.storage.checksum import LENGTH, chunks, crc32c

_OWN = b"nrms."  # our keys in the metadata begin with it
_CHECKSUM = b"nrms.crc32c"
_BLANK = b"AAAAAA=="  # the checksum of nothing
_FOOTER = b"PAR1"


def write(
    path: Path,
    tables: pa.Table | Iterable[pa.Table],
    metadata: Mapping[bytes, bytes] | None = None,
    **options: Any,
) -> int:
    """Writes a local file.

    Args:
        path: the file.
        tables: at least one, all with the same columns.
        metadata: what the file says of itself, under keys that begin with `nrms.`. Such keys of the
            tables are left out, because they describe the file that a table was read from.
        options: those of `pyarrow.parquet.ParquetWriter`.

    Returns:
        The rows written.

    Raises:
        OSError: writing failed.
    """
    tables = iter([tables] if isinstance(tables, pa.Table) else tables)
    first = next(tables)
    passed_on = {
        key: value
        for key, value in (first.schema.metadata or {}).items()
        if not key.startswith(_OWN)
    }
    rows = 0
    with pq.ParquetWriter(
        path,
        first.schema.with_metadata(passed_on),
        write_page_checksum=True,
        **{"compression": "zstd", **options},
    ) as writer:
        for table in chain([first], tables):
            writer.write_table(table.replace_schema_metadata(passed_on))
            rows += len(table)
        writer.add_key_value_metadata({**(metadata or {}), _CHECKSUM: _BLANK})
    with path.open("r+b") as file:
        place = _place(file)
        assert place is not None
        checksum = crc32c(_blanked(file, place))
        file.seek(place)
        file.write(checksum.encode())
    return rows


def metadata(path: Path) -> dict[bytes, bytes] | None:
    """What a local file says of itself, if it is byte for byte as `write` left it; else None."""
    try:
        return pq.read_metadata(path).metadata if _is_whole(path) else None
    except (OSError, pa.ArrowException):
        return None


def rows(path: Path) -> int:
    """The number of rows of a local file, as its footer says. Raises ArrowException, OSError."""
    return pq.read_metadata(path).num_rows


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads a local file and verifies the checksums that it has: that of the file, if `write` made
    it, and those of its pages.

    Raises:
        StorageError: it is damaged, or cannot be read.
    """
    try:
        if _is_whole(path) is False:
            raise ValueError("its checksum is another")
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            # Read in batches, because Arrow takes at most 2 GiB of text in one piece.
            batches = list(file.iter_batches(columns=columns))
            return pa.Table.from_batches(batches) if batches else file.read(columns=columns)
    except Exception as error:
        # A damaged footer can lead to any error: a KeyError, a lack of memory, ...
        raise StorageError(f"{path.name}: is damaged: {' '.join(str(error).split())}") from error


def _is_whole(path: Path) -> bool | None:
    """Whether the file is as `write` left it; None where it holds no checksum. Raises OSError."""
    with path.open("rb") as file:
        place = _place(file)
        if place is None:
            return None
        file.seek(place)
        return file.read(LENGTH).decode("latin-1") == crc32c(_blanked(file, place))


def _place(file: BinaryIO) -> int | None:
    """The position of the checksum in the file; None where it has no checksum."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read()
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _FOOTER or length > size - 8:
        return None
    file.seek(size - 8 - length)
    # Thrift's compact protocol: a string field (0x18), its length, its bytes.
    start = file.read(length).rfind(_CHECKSUM + b"\x18" + bytes([LENGTH]))
    return None if start < 0 else size - 8 - length + start + len(_CHECKSUM) + 2


def _blanked(file: BinaryIO, place: int) -> Iterator[bytes]:
    """The file's bytes with the checksum's place blank."""
    file.seek(0)
    yield from chunks(file, place)
    yield _BLANK
    file.seek(place + LENGTH)
    yield from chunks(file)
