"""What files and objects have in common: their description and the errors of a condition that does
not hold.
"""

import os
from dataclasses import dataclass, field

from nrms.errors import PreconditionFailed, StorageError, shown

Location = str | os.PathLike[str]

ABSENT = "0"
"""The generation of a file that does not exist: `if_generation=ABSENT` writes only where nothing is
yet.
"""


@dataclass(frozen=True)
class FileInfo:
    """One generation of one file.

    Attributes:
        uri: Local path or `gs://bucket/name`.
        size: Bytes.
        generation: Token that changes with every write; meaningful only for this `uri`.
        crc32c: Checksum of the content (RFC 4960; base64 of the big-endian value), None for local
            files.
        changed_ns: When a local file last changed in any way, nanoseconds; None for objects, whose
            crc32c says more.
    """

    uri: str
    size: int
    generation: str
    crc32c: str | None
    changed_ns: int | None = field(default=None, compare=False)


def check_utf8(uri: Location) -> None:
    """Raises StorageError where the name is not UTF-8, as no manifest and no log could hold it."""
    text = os.fspath(uri)
    if shown(text) != text:
        raise StorageError(f"{shown(text)}: a name must be UTF-8; rename it")


def changed(info: FileInfo) -> PreconditionFailed:
    """The error of reading a pinned generation that is no longer there."""
    return PreconditionFailed(
        f"{info.uri}: was replaced or deleted during the run: generation {info.generation} is "
        f"gone; run again"
    )


def not_expected(uri: Location, if_generation: str, current: FileInfo | None) -> PreconditionFailed:
    """The error of a conditional write that found `current` in place of `if_generation`."""
    expected = "no file" if if_generation == ABSENT else f"generation {if_generation}"
    found = f"generation {current.generation}" if current else "no file"
    return PreconditionFailed(f"{uri}: not written: expected {expected} there, found {found}")
