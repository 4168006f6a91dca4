"""Local paths and `gs://bucket/name` behind one small interface.

- A write is whole or invisible: locally a temporary file is renamed; in a bucket the object appears
  once the server has checked the crc32c that was declared with it.
- Every write to a bucket carries `if_generation_match`, so that trying again after a fault cannot
  undo what somebody else wrote in between.
- A `FileInfo` pins one generation of a file: reading it gives exactly those bytes or an error.
- Faults that pass (408, 429, 5xx, broken connections) are tried again with backoff, for at most
  `NRMS_RETRY_SECONDS` (environment variable, default 120) without progress.

`STORAGE_EMULATOR_HOST` (for example `http://localhost:4443`) is used without credentials; otherwise
Google's application default credentials apply.
"""

import hashlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from nrms.errors import ObjectNotFound, StorageError
from nrms.storage import gcs, local, scratch
from nrms.storage.fileinfo import ABSENT, FileInfo, Location, changed, check_utf8

__all__ = [
    "ABSENT",
    "FileInfo",
    "Location",
    "delete",
    "exists",
    "fetch",
    "is_gcs",
    "join",
    "list_files",
    "list_paths",
    "name",
    "normal",
    "parent",
    "read_bytes",
    "stat",
    "tidy",
    "upload",
    "write_bytes",
]


def is_gcs(uri: Location) -> bool:
    """Whether `uri` is in a bucket. Raises StorageError for any scheme but `gs://`."""
    text = os.fspath(uri)
    if re.match(r"\w+:/", text) and not re.match("gs://[^/]", text):
        raise StorageError(f"A location must be a local path or gs://bucket/name. Received: {text}")
    return text.startswith("gs://")


def normal(uri: Location) -> str:
    """The location in its normal form: without empty parts, without `.`, and without a slash at the
    end, in a bucket as on a disk.

    Raises StorageError for a name that is not UTF-8.
    """
    check_utf8(uri)
    if not is_gcs(uri):
        return str(Path(uri))
    parts = os.fspath(uri).removeprefix("gs://").split("/")
    return "gs://" + "/".join(part for part in parts if part not in ("", "."))


def join(base: Location, *parts: str) -> str:
    """The location of `parts` below `base`, as `normal` writes it."""
    return normal("/".join([os.fspath(base), *parts]) if is_gcs(base) else Path(base, *parts))


def name(uri: Location) -> str:
    """The last part of a location."""
    return normal(uri).rpartition("/")[2] if is_gcs(uri) else Path(uri).name


def parent(uri: Location) -> str:
    """The folder that `uri` is in."""
    return normal(uri).rpartition("/")[0] if is_gcs(uri) else str(Path(uri).parent)


def stat(uri: Location) -> FileInfo:
    """The file's current generation. Raises ObjectNotFound (for a folder too), AccessDenied,
    StorageError.
    """
    uri = normal(uri)
    if is_gcs(uri):
        with gcs.errors(uri, "read"):
            return gcs.stat(uri)
    with local.errors(uri, "read"):
        return local.stat(uri)


def exists(uri: Location) -> bool:
    """Whether there is such a file. Raises AccessDenied or StorageError where that cannot be found
    out.
    """
    try:
        stat(uri)
    except ObjectNotFound:
        return False
    return True


def list_files(folder: Location, suffix: str = "", hidden: bool = False) -> list[FileInfo]:
    """All files below `folder` whose name ends in `suffix`, sorted by uri.

    Names that start with a dot (unfinished writes, locks, `._x` of macOS archives) are left out,
    unless `hidden`. Links to folders are followed. A folder that does not exist counts as empty.

    Raises ObjectNotFound for a bucket that does not exist, AccessDenied without access, and
    StorageError for a link to nothing, for what is neither a file nor a folder, and for a name that
    is not UTF-8.
    """
    folder = normal(folder)
    if is_gcs(folder):
        with gcs.errors(folder, "listed"):
            files = list(gcs.list_files(folder, suffix, hidden))
    else:
        with local.errors(folder, "listed"):
            files = list(local.list_files(folder, suffix, hidden))
    return sorted(files, key=lambda info: info.uri)


def list_paths(folder: Location, suffix: str = "") -> dict[str, FileInfo]:
    """The same files by their paths in `folder`, such as `history/part-0.parquet`."""
    start = len(join(folder, "x")) - 1
    return {info.uri[start:].replace(os.sep, "/"): info for info in list_files(folder, suffix)}


def fetch(info: FileInfo, cache: Path) -> Path:
    """The path of a local file that holds exactly the generation `info`.

    A local file is returned as it is; an object is downloaded into `cache` once and found there
    from then on. Raises PreconditionFailed when the file was replaced or deleted since `info` was
    taken, StorageError when it arrives damaged, AccessDenied.
    """
    if not is_gcs(info.uri):
        if not exists(info.uri) or stat(info.uri).generation != info.generation:
            raise changed(info)
        return Path(info.uri)
    key = hashlib.sha256(f"{info.uri}#{info.generation}".encode()).hexdigest()[:16]
    path = cache / f"{key}-{name(info.uri)[-50:]}"
    if not exists(path) or stat(path).size != info.size:
        local.write(path, lambda stream: gcs.download(info.uri, stream, info), None)
    return path


def read_bytes(source: Location | FileInfo) -> bytes:
    """The whole content: of the current generation of a location, or of the generation that a
    FileInfo pins.

    Raises ObjectNotFound, AccessDenied, and what `fetch` raises.
    """
    info = source if isinstance(source, FileInfo) else None
    uri = source.uri if isinstance(source, FileInfo) else normal(source)
    if is_gcs(uri):
        stream = io.BytesIO()
        gcs.download(uri, stream, info)
        return stream.getvalue()
    with local.errors(uri, "read"):
        return local.read(uri, info)


def write_bytes(data: bytes, uri: Location, *, if_generation: str | None = None) -> FileInfo:
    """Write `data` to `uri`; `if_generation`, result and errors as those of `upload`."""
    return _write(io.BytesIO(data), uri, if_generation)


def upload(path: Location, uri: Location, *, if_generation: str | None = None) -> FileInfo:
    """Copy the local file `path` to `uri`, making local folders as needed.

    Args:
        path: Local file.
        uri: Local path or `gs://bucket/name`.
        if_generation: None replaces whatever is there. ABSENT creates the file once. Any other
            generation replaces exactly that one (compare-and-swap). A local file that is replaced
            by compare-and-swap must not be written in another way, because only compare-and-swap
            takes its lock.

    Returns:
        What was written.

    Raises:
        PreconditionFailed: `uri` is not at `if_generation`.
        ObjectNotFound: no such `path`, no such bucket.
        AccessDenied: no credentials, or they may not do this.
        StorageError: any other fault; nothing or the whole file is then visible at `uri`.
    """
    with local.errors(path, "read"), Path(path).open("rb") as source:
        return _write(source, uri, if_generation)


def tidy(folder: Location) -> None:
    """Removes the unfinished files of processes that were killed while they wrote into a folder. A
    bucket never shows such files.
    """
    if not is_gcs(folder):
        scratch.tidy(Path(folder))


def delete(uri: Location) -> None:
    """Delete the file, if it exists. Raises AccessDenied, StorageError."""
    uri = normal(uri)
    if is_gcs(uri):
        with gcs.errors(uri, "deleted"):
            gcs.delete(uri)
    else:
        with local.errors(uri, "deleted"):
            local.delete(uri)


def _write(source: BinaryIO, uri: Location, if_generation: str | None) -> FileInfo:
    uri = normal(uri)
    if is_gcs(uri):
        with gcs.errors(uri, "written"):
            return gcs.upload(source, uri, if_generation)
    return local.write(uri, lambda stream: shutil.copyfileobj(source, stream), if_generation)
