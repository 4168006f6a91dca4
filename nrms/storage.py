"""Local paths and `gs://bucket/name` behind one small interface. Only here is google.cloud imported.

- A write is whole or invisible: locally a temporary file is renamed; in a bucket the object appears once the
  server has checked the crc32c that was declared with it.
- Every write to a bucket carries `if_generation_match`, so that trying again after a fault cannot undo what
  somebody else wrote in between.
- A `FileInfo` pins one generation of a file: reading it gives exactly those bytes or an error.
- Faults that pass (408, 429, 5xx, broken connections) are tried again with backoff, for at most
  `NRMS_RETRY_SECONDS` (environment variable, default 120) without progress.

`STORAGE_EMULATOR_HOST` (for example `http://localhost:4443`) is used without credentials; otherwise Google's
application default credentials apply.
"""

import base64
import hashlib
import io
import logging
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from filelock import FileLock

from nrms.errors import AccessDenied, ConfigError, ObjectNotFound, PreconditionFailed, StorageError

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.storage import Blob, Client

logger = logging.getLogger(__name__)

Location = str | os.PathLike[str]

ABSENT = "0"
"""The generation of a file that does not exist: `if_generation=ABSENT` writes only where nothing is yet."""

_TIMEOUT = (10, 60)  # seconds to connect, seconds between two packets


@dataclass(frozen=True)
class FileInfo:
    """One generation of one file.

    Attributes:
        uri: Local path or `gs://bucket/name`.
        size: Bytes.
        generation: Token that changes with every write; meaningful only for this `uri`.
        crc32c: Checksum of the content (RFC 4960; base64 of the big-endian value), None for local files.
    """

    uri: str
    size: int
    generation: str
    crc32c: str | None


def is_gcs(uri: Location) -> bool:
    """Whether `uri` is in a bucket. Raises StorageError for any scheme but `gs://`."""
    text = os.fspath(uri)
    if re.match(r"\w+:/", text) and not re.match("gs://[^/]", text):
        raise StorageError(f"A location must be a local path or gs://bucket/name. Received: {text}")
    return text.startswith("gs://")


def join(base: Location, *parts: str) -> str:
    """The location of `parts` below `base`."""
    if is_gcs(base):
        return "/".join([os.fspath(base).rstrip("/"), *parts])
    return str(Path(base, *parts))


def name(uri: Location) -> str:
    """The last part of a location."""
    return os.fspath(uri).rstrip("/").rpartition("/")[2]


def stat(uri: Location) -> FileInfo:
    """The file's current generation. Raises ObjectNotFound (for a folder too), AccessDenied, StorageError."""
    if is_gcs(uri):
        with _gcs_errors(uri, "read"):
            return _gcs_stat(uri)
    with _local_errors(uri, "read"):
        return _local_stat(uri)


def exists(uri: Location) -> bool:
    """Whether there is such a file. Raises AccessDenied or StorageError where that cannot be known."""
    try:
        stat(uri)
    except ObjectNotFound:
        return False
    return True


def list_files(folder: Location, suffix: str = "") -> list[FileInfo]:
    """All files below `folder` whose name ends in `suffix`, sorted by uri.

    Names that start with a dot (unfinished writes, locks, `._x` of macOS archives) are left out. A folder
    that does not exist is empty, a bucket that does not exist raises ObjectNotFound, no access AccessDenied.
    """
    if is_gcs(folder):
        with _gcs_errors(folder, "listed"):
            files = list(_gcs_list(folder, suffix))
    else:
        with _local_errors(folder, "listed"):
            files = list(_local_list(folder, suffix))
    return sorted(files, key=lambda info: info.uri)


def fetch(info: FileInfo, cache: Path) -> Path:
    """The path of a local file that holds exactly the generation `info`.

    A local file is returned as it is; an object is downloaded into `cache` once and found there from then on.
    Raises PreconditionFailed when the file was replaced or deleted since `info` was taken, StorageError when
    it arrives damaged, AccessDenied.
    """
    if not is_gcs(info.uri):
        if not exists(info.uri) or stat(info.uri).generation != info.generation:
            raise _changed(info)
        return Path(info.uri)
    key = hashlib.sha256(f"{info.uri}#{info.generation}".encode()).hexdigest()[:16]
    path = cache / f"{key}-{name(info.uri)[-50:]}"
    if not exists(path) or stat(path).size != info.size:
        _local_write(path, lambda stream: _gcs_download(info.uri, stream, info), None)
    return path


def read_bytes(source: Location | FileInfo) -> bytes:
    """The whole content: of the current generation of a location, or of the generation that a FileInfo pins.

    Raises ObjectNotFound, AccessDenied, and what `fetch` raises.
    """
    info = source if isinstance(source, FileInfo) else None
    uri = source.uri if isinstance(source, FileInfo) else source
    if is_gcs(uri):
        stream = io.BytesIO()
        _gcs_download(uri, stream, info)
        return stream.getvalue()
    with _local_errors(uri, "read"), Path(uri).open("rb") as file:
        data = file.read()
        if info and _local_info(uri, os.fstat(file.fileno())).generation != info.generation:
            raise _changed(info)
        return data


def write_bytes(data: bytes, uri: Location, *, if_generation: str | None = None) -> FileInfo:
    """Write `data` to `uri`; `if_generation`, result and errors as those of `upload`."""
    return _write(io.BytesIO(data), uri, if_generation)


def upload(path: Location, uri: Location, *, if_generation: str | None = None) -> FileInfo:
    """Copy the local file `path` to `uri`, making local folders as needed.

    Args:
        path: Local file.
        uri: Local path or `gs://bucket/name`.
        if_generation: None replaces whatever is there. ABSENT creates the file once. Any other generation
            replaces exactly that one (compare-and-swap). A local file that moves by compare-and-swap should
            be written in no other way once it exists: its lock binds only those who take it.

    Returns:
        What was written.

    Raises:
        PreconditionFailed: `uri` is not at `if_generation`.
        ObjectNotFound: no such `path`, no such bucket.
        AccessDenied: no credentials, or they may not do this.
        StorageError: any other fault; nothing or the whole file is then visible at `uri`.
    """
    with _local_errors(path, "read"), Path(path).open("rb") as source:
        return _write(source, uri, if_generation)


def delete(uri: Location) -> None:
    """Delete the file; one that is not there is fine. Raises AccessDenied, StorageError."""
    if is_gcs(uri):
        with _gcs_errors(uri, "deleted"):
            _gcs_delete(uri)
    else:
        with _local_errors(uri, "deleted"):
            Path(uri).unlink(missing_ok=True)


def _write(source: BinaryIO, uri: Location, if_generation: str | None) -> FileInfo:
    if is_gcs(uri):
        with _gcs_errors(uri, "written"):
            return _gcs_upload(source, uri, if_generation)
    return _local_write(uri, lambda stream: shutil.copyfileobj(source, stream), if_generation)


def _changed(info: FileInfo) -> PreconditionFailed:
    return PreconditionFailed(
        f"{info.uri}: was replaced or deleted during the run: generation {info.generation} is gone; run again"
    )


def _not_expected(uri: Location, if_generation: str, current: FileInfo | None) -> PreconditionFailed:
    expected = "no file" if if_generation == ABSENT else f"generation {if_generation}"
    found = f"generation {current.generation}" if current else "no file"
    return PreconditionFailed(f"{uri}: not written: expected {expected} there, found {found}")


# --- local files


@contextmanager
def _local_errors(uri: Location, verb: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise StorageError(f"{uri}: could not be {verb}: {error.filename} is a file, not a folder") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        kind = ObjectNotFound if verb == "read" else StorageError
        raise kind(f"{uri}: no file can be {verb} here: {error.strerror}") from error
    except PermissionError as error:
        raise AccessDenied(
            f"{uri}: may not be {verb}: {error.strerror}; check the owner and mode of the file and its folders"
        ) from error
    except OSError as error:
        raise StorageError(f"{uri}: could not be {verb}: {error.strerror or error}") from error


def _local_info(uri: Location, status: os.stat_result) -> FileInfo:
    generation = f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}"
    return FileInfo(os.fspath(uri), status.st_size, generation, None)


def _local_stat(uri: Location) -> FileInfo:
    path = Path(uri)
    if path.is_dir():
        raise ObjectNotFound(f"{uri}: is a folder; a file was expected")
    return _local_info(uri, path.stat())


def _local_list(folder: Location, suffix: str) -> Iterator[FileInfo]:
    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            with _local_errors(error.filename, "listed"):
                raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [child for child in folders if not child.startswith(".")]
        for file in files:
            if file.endswith(suffix) and not file.startswith("."):
                yield _local_stat(join(parent, file))


def _local_write(uri: Location, fill: Callable[[BinaryIO], Any], if_generation: str | None) -> FileInfo:
    target = Path(uri)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    with _local_errors(uri, "written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("x+b") as stream:
                fill(stream)
                stream.flush()
                # The kernel's own clock for this may stand still for milliseconds; generations would repeat.
                os.utime(stream.fileno(), ns=(time.time_ns(), time.time_ns()))
                os.fsync(stream.fileno())
                info = _local_info(uri, os.fstat(stream.fileno()))
            _local_publish(temporary, target, if_generation)
        finally:
            temporary.unlink(missing_ok=True)
    return info


def _local_publish(temporary: Path, target: Path, if_generation: str | None) -> None:
    if if_generation is None:
        temporary.replace(target)
    elif if_generation == ABSENT:
        try:
            target.hardlink_to(temporary)
        except FileExistsError:
            raise _not_expected(target, ABSENT, _local_stat(target)) from None
    else:
        with FileLock(target.with_name(f".{target.name}.lock"), poll_interval=0.01):
            current = _local_stat(target) if exists(target) else None
            if current is None or current.generation != if_generation:
                raise _not_expected(target, if_generation, current)
            temporary.replace(target)


# --- Google Cloud Storage


def _client() -> "Client":
    # One client for each process (a fork must not share its sockets) and environment (tests change it).
    settings = (os.environ.get(name) for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"))
    return _connect(os.getpid(), *settings)


@lru_cache(maxsize=1)
def _connect(process: int, emulator: str | None, credentials: str | None) -> "Client":
    from google.cloud import storage

    if emulator and "://" not in emulator:
        raise ConfigError(f"STORAGE_EMULATOR_HOST must begin with http:// or https://. Received: {emulator}")
    return storage.Client(project=None)


def _gcs_split(uri: Location) -> tuple[str, str]:
    bucket, _, path = os.fspath(uri).removeprefix("gs://").partition("/")
    return bucket, path


def _gcs_blob(uri: Location, info: FileInfo | None = None) -> "Blob":
    bucket, path = _gcs_split(uri)
    if not path:
        raise StorageError(f"A file in a bucket must be written gs://bucket/name. Received: {uri}")
    return _client().bucket(bucket).blob(path, generation=int(info.generation) if info else None)


def _gcs_info(blob: "Blob") -> FileInfo:
    return FileInfo(f"gs://{blob.bucket.name}/{blob.name}", blob.size, str(blob.generation), blob.crc32c)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


def _gcs_retry(
    uri: Location, *, also: Callable[[Exception], bool] | None = None, faults: list[Exception] | None = None
) -> "Retry":
    """Backoff for faults that pass and those that `also` picks; `faults` collects what was met."""
    from google.api_core.retry import Retry
    from google.cloud.storage.retry import DEFAULT_RETRY

    setting = os.environ.get("NRMS_RETRY_SECONDS", "120")
    try:
        seconds = float(setting)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ConfigError(f"NRMS_RETRY_SECONDS must be a number of seconds, 0 or more. Received: {setting!r}")

    def note(error: Exception) -> None:
        logger.warning("%s: trying again after: %s", uri, _one_line(error))
        if faults is not None:
            faults.append(error)
        response = getattr(error, "response", None)
        if response is not None:
            response.close()  # the library leaves the connection of a refused download open

    def passes(error: Exception) -> bool:
        return DEFAULT_RETRY._predicate(error) or (also is not None and also(error))

    return Retry(predicate=passes, initial=0.25, maximum=20, timeout=seconds, on_error=note)


@contextmanager
def _gcs_errors(uri: Location, verb: str) -> Iterator[None]:
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    try:
        yield
    except GoogleAuthError as error:
        raise AccessDenied(
            f"{uri}: may not be {verb}: no working Google credentials: {_one_line(error)}; "
            "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
        ) from error
    except (api.Forbidden, api.Unauthorized) as error:
        raise AccessDenied(
            f"{uri}: may not be {verb} with these credentials (HTTP {error.code}); reading needs "
            f"roles/storage.objectViewer on the bucket, writing roles/storage.objectUser: {_one_line(error)}"
        ) from error
    except api.NotFound as error:
        bucket = _gcs_split(uri)[0]
        if _gcs_bucket_missing(bucket):
            raise ObjectNotFound(f"gs://{bucket}: no such bucket; correct {uri} or create it") from error
        raise ObjectNotFound(f"{uri}: no such object in the bucket") from error
    except (api.GoogleAPIError, RequestException) as error:
        raise StorageError(f"{uri}: could not be {verb}: {_one_line(error)}") from error


def _gcs_bucket_missing(bucket: str) -> bool:
    """Tell a 404 of the bucket from one of the object, with no permission but that to list objects."""
    from google.api_core import exceptions as api

    try:
        list(_client().list_blobs(bucket, max_results=1, timeout=_TIMEOUT, retry=_gcs_retry(bucket)))
    except api.NotFound:
        return True
    except api.GoogleAPIError:
        return False
    return False


def _gcs_stat(uri: Location) -> FileInfo:
    blob = _gcs_blob(uri)
    blob.reload(timeout=_TIMEOUT, retry=_gcs_retry(uri))
    return _gcs_info(blob)


def _gcs_find(uri: Location) -> FileInfo | None:
    from google.api_core.exceptions import NotFound

    try:
        return _gcs_stat(uri)
    except NotFound:
        return None


def _gcs_list(folder: Location, suffix: str) -> Iterator[FileInfo]:
    bucket, path = _gcs_split(folder)
    prefix = path.rstrip("/") + "/" if path else ""
    for blob in _client().list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT, retry=_gcs_retry(folder)):
        parts = blob.name.removeprefix(prefix).split("/")
        # An object whose name ends in "/" is how the console shows an empty folder.
        if parts[-1].endswith(suffix) and parts[-1] and not any(part.startswith(".") for part in parts):
            yield _gcs_info(blob)


def _crc32c(stream: BinaryIO) -> str:
    from google_crc32c import Checksum

    checksum = Checksum()
    stream.seek(0)
    for chunk in iter(lambda: stream.read(1 << 20), b""):
        checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


def _gcs_download(uri: Location, stream: BinaryIO, info: FileInfo | None) -> None:
    """Write the object to the empty `stream`: the generation of `info`, or the current one."""
    from google.api_core.exceptions import NotFound

    with _gcs_errors(uri, "read"):
        blob = _gcs_blob(uri, info)
        try:
            # Raw, because the checksum of an object stored with gzip encoding is that of its stored bytes.
            # Checked below, because the library's own check leaves out downloads that were resumed half-way.
            blob.download_to_file(stream, raw_download=True, checksum=None, timeout=_TIMEOUT, retry=_gcs_retry(uri))
        except NotFound:
            if info:
                raise _changed(info) from None
            raise
    arrived, stored = _crc32c(stream), info.crc32c if info else blob.crc32c
    if arrived != stored:
        raise StorageError(f"{uri}: arrived damaged: its crc32c is {arrived}, stored was {stored}; run again")


def _gcs_upload(source: BinaryIO, uri: Location, if_generation: str | None) -> FileInfo:
    from google.api_core import exceptions as api

    crc32c, size = _crc32c(source), source.tell()
    faults: list[Exception] = []

    def attempt() -> FileInfo:
        expected = if_generation
        if expected is None:
            current = _gcs_find(uri)
            expected = current.generation if current else ABSENT
        blob = _gcs_blob(uri)
        blob.crc32c = crc32c  # declared, so that the server refuses content that does not match
        source.seek(0)
        try:
            blob.upload_from_file(
                source,
                size=size,
                if_generation_match=int(expected),
                checksum=None,
                timeout=_TIMEOUT,
                retry=None,
            )
        except api.PreconditionFailed:
            current = _gcs_find(uri)
            if faults and current and current.crc32c == crc32c:
                return current  # an earlier attempt of ours arrived; only its answer was lost
            if if_generation is not None:
                raise _not_expected(uri, if_generation, current) from None
            raise
        return _gcs_info(blob)

    def start_over(error: Exception) -> bool:
        if isinstance(error, api.PreconditionFailed):
            return True
        # The server lost the upload session, unless there is no bucket.
        return getattr(error, "code", None) in (404, 410) and not _gcs_bucket_missing(_gcs_split(uri)[0])

    # Not the library's own retry, which stays in one upload session: a restarted server does not know it any more.
    return _gcs_retry(uri, also=start_over, faults=faults)(attempt)()


def _gcs_delete(uri: Location) -> None:
    from google.api_core import exceptions as api

    def attempt() -> None:
        current = _gcs_find(uri)
        if current:
            with suppress(api.NotFound):
                _gcs_blob(uri).delete(
                    if_generation_match=int(current.generation), timeout=_TIMEOUT, retry=_gcs_retry(uri)
                )

    _gcs_retry(uri, also=lambda error: isinstance(error, api.PreconditionFailed))(attempt)()
