"""crc32c as Google Cloud Storage gives it: base64 of the big-endian value (RFC 4960)."""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

LENGTH = 8  # characters of a checksum


def crc32c(chunks: Iterable[bytes]) -> str:
    """The checksum of these chunks of bytes, one after the other."""
    from google_crc32c import Checksum  # only buckets need the library

    checksum = Checksum()
    for chunk in chunks:
        checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


def chunks(stream: BinaryIO, end: int | None = None) -> Iterator[bytes]:
    """The bytes from the stream's position to its end, or to the position `end`, a megabyte at a
    time.
    """
    while chunk := stream.read(1 << 20 if end is None else min(1 << 20, end - stream.tell())):
        yield chunk


def crc32c_of(path: Path) -> str:
    """The checksum of a local file. Raises OSError."""
    with path.open("rb") as file:
        return crc32c(chunks(file))
