"""crc32c as Google Cloud Storage gives it: base64 of the big-endian value (RFC 4960)."""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

LENGTH = 8  # characters of a checksum


def crc32c(chunks: Iterable[bytes]) -> str:
    """Of these bytes, one chunk after the other."""
    from google_crc32c import Checksum  # local files alone need nothing of Google's

    checksum = Checksum()
    for chunk in chunks:
        checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


def chunks(stream: BinaryIO, end: int | None = None) -> Iterator[bytes]:
    """The stream from where it stands to its end, or to the place `end`, a megabyte at a time."""
    while chunk := stream.read(1 << 20 if end is None else min(1 << 20, end - stream.tell())):
        yield chunk


def crc32c_of(path: Path) -> str:
    """Of a local file. Raises OSError."""
    with path.open("rb") as file:
        return crc32c(chunks(file))
