"""Why a file could not be read as Parquet, in words that say what to do. A file is called damaged
only if it is.
"""

from __future__ import annotations

import re
from pathlib import Path

RULE = "A file must be whole Parquet with readable values."
AGAIN = "Write or copy the file again."

_ENCRYPTED = "Write it without encryption; storage encrypts by itself."
_MAGIC = (
    (b"\x1f\x8b", "gzip", "Unpack it."),
    (b"\x28\xb5\x2f\xfd", "zstd", "Unpack it."),
    (b"BZh", "bzip2", "Unpack it."),
    (b"\xfd7zXZ", "xz", "Unpack it."),
    (b"PK\x03\x04", "a zip or Excel file", "Unpack it, or write its table as Parquet."),
    (
        b"ARROW1",
        "Arrow IPC or Feather",
        "Write it as Parquet: polars.read_ipc(...).write_parquet(...).",
    ),
    (b"FEA1", "Feather", "Write it as Parquet, with pyarrow for example."),
    (b"ORC", "ORC", "Write it as Parquet, with pyarrow for example."),
    (b"Obj\x01", "Avro", "Write it as Parquet: polars.read_avro(...).write_parquet(...)."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the file itself: git lfs pull."),
)
_TEXT = (
    "Write it as Parquet, with polars for example; `python -m "
    "jobs.prepare --source mind` makes Parquet of MIND's .tsv files, and `--source log` of a log "
    "in .csv files."
)
# Arrow's messages about files that are not damaged, but that it cannot read, or not in one piece.
_CAUSES = (
    (re.compile(r"decrypt|encrypted"), "A file must not be encrypted.", _ENCRYPTED),
    (
        re.compile(
            r"offset overflow|chunked array outputs|more than \d+ bytes|capacity|2147483646"
        ),
        "A column must have less than 2 GiB of text in one file.",
        "Write the rows in several files: jobs.prepare "
        "does, and takes no more than --shard-rows in one.",
    ),
    (
        re.compile(
            r"not supported|[Uu]nsupported|NotImplemented|[Nn]ot (yet )?implemented|not built"
        ),
        "A file must use encodings and codecs that pyarrow reads.",
        "Write the file again with the writer's default options, or with zstd or snappy.",
    ),
)


def looks_like(path: Path) -> tuple[str, str] | None:
    """What a file that is not Parquet seems to be, and what to do; None where it is Parquet or
    cannot be recognized.
    """
    with path.open("rb") as file:
        head = file.read(1 << 12)
    if not head or head.startswith(b"PAR"):
        return None
    for magic, name, todo in _MAGIC:
        if head.startswith(magic):
            return name, todo
    return _text(head)


def cause(error: BaseException) -> tuple[str, str]:
    """The rule that is broken by a file with this error, and what to do."""
    message = str(error)
    return next(
        ((rule, todo) for sign, rule, todo in _CAUSES if sign.search(message)), (RULE, AGAIN)
    )


def _text(head: bytes) -> tuple[str, str] | None:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, "ignore")
    if (
        sum(not (char.isprintable() or char in "\r\n\t") for char in text)
        or len(text) < len(head) / 3
    ):
        return None
    line = text.lstrip().partition("\n")[0]
    if line.startswith("<"):
        return "HTML or XML", "Download the file itself."
    kinds = {"JSON": line[:1] in ("{", "["), "TSV": "\t" in line, "CSV": re.search("[,;]", line)}
    return next((name for name, found in kinds.items() if found), "text"), _TEXT
