"""Which files below a split's folder hold its impressions and its histories. No other file is left
out in silence.

    behaviors*.parquet               impressions; the same for history
    behaviors/*.parquet
    behaviors/key=value/*.parquet
    behaviors.parquet/*.parquet      as Spark names the folder it writes

Any other Parquet file is refused by name. So is a table in a format whose Parquet files alone do
not tell what the table contains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nrms import storage
from nrms.data.schema import schema_error
from nrms.storage.commit import MANIFEST, SUCCESS

STEMS = ("behaviors", "history")

_PARQUET = re.compile(
    r"\.(parquet|parq|pq)(\.(gz|bz2|xz|zst|lz4|br|zip|snappy|tmp|part|inprogress))?$", re.IGNORECASE
)
_OTHER = re.compile(
    r"\.(csv|tsv|txt|jsonl|ndjson|arrow|feather|ipc|orc|avro|xlsx)(\.(gz|bz2|xz|zst|zip))?$",
    re.IGNORECASE,
)
# Paths that tell which tool wrote a table: a pattern, what lies there, and what to do.
_TABLES = (
    (
        re.compile(r"(^|/)_delta_log/"),
        "a Delta table, whose removed files still lie there",
        "Write its current rows as Parquet, with "
        "polars.read_delta(...).write_parquet(...) for example.",
    ),
    (
        re.compile(r"(^|/)metadata/[^/]*\.metadata\.json$"),
        "an Iceberg table, whose removed files still lie there",
        "Write its current rows as Parquet, with "
        "polars.scan_iceberg(...).sink_parquet(...) for example.",
    ),
    (
        re.compile(r"(^|/)\.hoodie/"),
        "a Hudi table, whose replaced files still lie there",
        "Write its current rows as Parquet, with Spark for example.",
    ),
    (
        re.compile(r"(^|/)_spark_metadata/"),
        "the log of a Spark stream, whose uncommitted files lie there as well",
        "Write its rows as Parquet with a Spark batch job.",
    ),
    (
        re.compile(r"(^|/)_temporary(/|$)"),
        "the work of a Spark or Hadoop job that has not ended, or was killed",
        "Wait for the job or run it again; if all rows are there, remove that folder.",
    ),
)
_CHECKSUM = re.compile(r"(^|/)\.[^/]*\.parquet\.crc$")


@dataclass
class SplitFiles:
    """The files of a split.

    Attributes:
        files: the files of each of `STEMS`, by path inside the folder, in order.
        warnings: files beside them that are not read, one line each.
    """

    files: dict[str, dict[str, storage.FileInfo]]
    warnings: list[str] = field(default_factory=list)


def find_files(uri: str, but: str | None = None) -> SplitFiles:
    """The files of the split in the folder `uri`.

    Args:
        uri: local or `gs://`.
        but: a file to leave out: the data set's articles, where they lie in the same folder.

    Raises:
        SchemaError: no behaviours or no history file, a Parquet file that is neither, a table of
            another format, or a split that is not finished.
    """
    everything = {
        _below(uri, info): info for info in storage.list_files(uri, hidden=True) if info.uri != but
    }
    _refuse_unfinished(everything, uri)
    listed = {path: info for path, info in everything.items() if not re.search(r"(^|/)\.", path)}
    files = {
        stem: {path: info for path, info in listed.items() if _holds(stem, path)} for stem in STEMS
    }
    stray = [path for path in listed if _PARQUET.search(path) and not _read(path)]
    if stray:
        raise schema_error(
            "Every Parquet file of a split must be behaviors*.parquet or history*.parquet, or lie "
            "in a folder behaviors/ or history/, in there perhaps in folders key=value/.",
            f"{len(stray)} that would not be read: {_some(stray)}",
            uri,
            "Move or rename them, or unpack what is compressed.",
        )
    for stem, found in files.items():
        if not found:
            raise _missing(stem, listed, uri)
    other = [path for path in listed if path.startswith(STEMS) and _OTHER.search(path)]
    warnings = (
        [f"{storage.name(uri)}: not read, being no Parquet: {_some(other)}."] if other else []
    )
    return SplitFiles(files, warnings)


def describe(uri: str) -> str:
    """What was found where a folder of Parquet files should be."""
    if storage.exists(uri):
        return "a file, not a folder"
    listed = [_below(uri, info) for info in storage.list_files(uri)]
    if listed:
        return f"a folder of {_some(listed)}"
    # A bucket has no empty folders.
    return "an empty folder" if not storage.is_gcs(uri) and Path(uri).is_dir() else "no such folder"


def _holds(stem: str, path: str) -> bool:
    return (
        re.fullmatch(rf"{stem}([^/]*|(\.parquet)?(/[^/=]+=[^/]*)*/[^/]*)\.parquet", path)
        is not None
    )


def _read(path: str) -> bool:
    return any(_holds(stem, path) for stem in STEMS)


def _refuse_unfinished(paths: dict[str, storage.FileInfo], uri: str) -> None:
    # jobs.prepare writes the manifest first and _SUCCESS last; data from elsewhere has neither.
    if MANIFEST in paths and SUCCESS not in paths:
        raise schema_error(
            "A split made by jobs.prepare must have the file _SUCCESS.",
            "manifest.json without it, so the split is unfinished",
            uri,
            "Run the same jobs.prepare command again.",
        )
    for pattern, what, todo in _TABLES:
        if sign := next((path for path in paths if pattern.search(path)), None):
            raise schema_error("A split must be plain Parquet files.", f"{sign}: {what}", uri, todo)
    for path in paths:
        folder = f"{path.partition('/')[0]}/{SUCCESS}" if "/" in path else SUCCESS
        if _CHECKSUM.search(path) and not {SUCCESS, folder} & paths.keys():
            raise schema_error(
                "A split written by Spark or Hadoop must have the file _SUCCESS.",
                f"{path} without it, so the job may not have ended",
                uri,
                "Run the job again; if all rows are there, remove the hidden .crc files.",
            )


def _missing(stem: str, listed: dict[str, storage.FileInfo], uri: str) -> Exception:
    there = _some(list(listed)) if listed else describe(uri)
    parent = storage.parent(uri)
    beside = {
        _below(parent, info).partition("/") for info in storage.list_files(parent, ".parquet")
    }
    splits = sorted(
        {name for name, slash, rest in beside if slash and _read(rest)} - {storage.name(uri)}
    )
    if not any(map(_read, listed)) and splits:
        there += f"; splits beside it: {', '.join(splits[:5])}"
    return schema_error(
        f"A split must have {stem}.parquet, {stem}-*.parquet shards or a folder {stem}/ of them.",
        there,
        uri,
        "Check the path and the split's name (--split, or --train-split and --validation-split), "
        "or run jobs.prepare.",
    )


def _below(folder: str, info: storage.FileInfo) -> str:
    return info.uri.removeprefix(storage.join(folder, "x")[:-1])


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
