"""Objects in buckets of Google Cloud Storage. Only this module imports google.cloud, in those
functions that need it.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nrms.errors import AccessDenied, ConfigError, ObjectNotFound, StorageError
from nrms.storage.checksum import chunks, crc32c
from nrms.storage.fileinfo import ABSENT, FileInfo, Location, changed, not_expected

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.storage import Blob, Client

logger = logging.getLogger(__name__)

_TIMEOUT = (10, 60)  # seconds to connect, seconds between two packets


def _client() -> "Client":
    # One client for each process, because a fork must not share its sockets, and for each
    # environment, because tests change it.
    settings = (
        os.environ.get(name) for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS")
    )
    return _connect(os.getpid(), *settings)


@lru_cache(maxsize=1)
def _connect(process: int, emulator: str | None, credentials: str | None) -> "Client":
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud import storage

    if emulator and "://" not in emulator:
        raise ConfigError(
            f"STORAGE_EMULATOR_HOST must begin with http:// or https://. Received: {emulator}"
        )
    # Otherwise the library looks up each bucket in a thread, for traces that nobody reads.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    if emulator:
        return storage.Client(project=None, client_options={"api_endpoint": emulator.rstrip("/")})
    if credentials and not Path(credentials).is_file():
        raise DefaultCredentialsError(
            f"GOOGLE_APPLICATION_CREDENTIALS names {credentials}, which is no file"
        )
    try:
        return storage.Client(project=None)
    except GoogleAuthError:
        raise
    except Exception as error:  # JSON that does not have the shape that the library expects
        file = credentials or "the file of gcloud's application default credentials"
        raise DefaultCredentialsError(f"{file} does not hold credentials: {error!r}") from error


def _split(uri: Location) -> tuple[str, str]:
    bucket, _, path = os.fspath(uri).removeprefix("gs://").partition("/")
    return bucket, path


def _blob(uri: Location, info: FileInfo | None = None) -> "Blob":
    bucket, path = _split(uri)
    if not path:
        raise StorageError(f"A file in a bucket must be written gs://bucket/name. Received: {uri}")
    return _client().bucket(bucket).blob(path, generation=int(info.generation) if info else None)


def _info(blob: "Blob") -> FileInfo:
    return FileInfo(
        f"gs://{blob.bucket.name}/{blob.name}", blob.size or 0, str(blob.generation), blob.crc32c
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


def _retry(
    uri: Location,
    *,
    also: Callable[[Exception], bool] | None = None,
    faults: list[Exception] | None = None,
) -> "Retry":
    """Backoff for faults that pass and for those that `also` picks. `faults` collects them."""
    from google.api_core.retry import Retry
    from google.cloud.storage.retry import DEFAULT_RETRY

    setting = os.environ.get("NRMS_RETRY_SECONDS", "120")
    try:
        seconds = float(setting)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ConfigError(
            f"NRMS_RETRY_SECONDS must be a number of seconds, 0 or more. Received: {setting!r}"
        )

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
def errors(uri: Location, verb: str) -> Iterator[None]:
    """Turn Google's errors in the block into ours: `uri` could not be `verb` ("read", ...)."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    try:
        yield
    except GoogleAuthError as error:
        raise AccessDenied(
            f"{uri}: may not be {verb}: no working Google credentials: "
            f"{_one_line(error)}; run `gcloud auth application-default "
            "login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
        ) from error
    except (api.Forbidden, api.Unauthorized) as error:
        raise AccessDenied(
            f"{uri}: may not be {verb} with these credentials (HTTP {error.code}); reading needs "
            f"roles/storage.objectViewer on the bucket, writing roles/storage.objectUser: "
            f"{_one_line(error)}"
        ) from error
    except api.NotFound as error:
        bucket = _split(uri)[0]
        if _bucket_missing(bucket):
            raise ObjectNotFound(
                f"gs://{bucket}: no such bucket; correct {uri} or create it"
            ) from error
        raise ObjectNotFound(f"{uri}: no such object in the bucket") from error
    except (api.GoogleAPIError, RequestException) as error:
        raise StorageError(f"{uri}: could not be {verb}: {_one_line(error)}") from error


def _bucket_missing(bucket: str) -> bool:
    """Whether a 404 was that of the bucket and not that of the object. This needs no permission but
    that to list objects.
    """
    from google.api_core import exceptions as api

    try:
        list(_client().list_blobs(bucket, max_results=1, timeout=_TIMEOUT, retry=_retry(bucket)))
    except api.NotFound:
        return True
    except api.GoogleAPIError:
        return False
    return False


def stat(uri: Location) -> FileInfo:
    """The object's current generation."""
    blob = _blob(uri)
    blob.reload(timeout=_TIMEOUT, retry=_retry(uri))
    return _info(blob)


def _find(uri: Location) -> FileInfo | None:
    from google.api_core.exceptions import NotFound

    try:
        return stat(uri)
    except NotFound:
        return None


def list_files(folder: Location, suffix: str, hidden: bool) -> Iterator[FileInfo]:
    """The objects below `folder` whose name ends in `suffix`; hidden ones only if asked for."""
    bucket, path = _split(folder)
    prefix = path.rstrip("/") + "/" if path else ""
    for blob in _client().list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT, retry=_retry(folder)):
        parts = blob.name.removeprefix(prefix).split("/")
        # An object whose name ends in "/" is how the console shows an empty folder.
        if (
            parts[-1].endswith(suffix)
            and parts[-1]
            and (hidden or not any(part.startswith(".") for part in parts))
        ):
            yield _info(blob)


def _crc32c(stream: BinaryIO) -> str:
    stream.seek(0)
    return crc32c(chunks(stream))


def download(uri: Location, stream: BinaryIO, info: FileInfo | None) -> None:
    """Write the object to the empty `stream`: the generation of `info`, or the current one."""
    from google.api_core.exceptions import NotFound

    with errors(uri, "read"):
        blob = _blob(uri, info)
        try:
            # Raw, because the checksum of an object with gzip encoding is that of its stored bytes.
            # It is checked below, because the library does not check downloads that were resumed.
            blob.download_to_file(
                stream, raw_download=True, checksum=None, timeout=_TIMEOUT, retry=_retry(uri)
            )
        except NotFound:
            if info:
                raise changed(info) from None
            raise
    arrived, stored = _crc32c(stream), info.crc32c if info else blob.crc32c
    if arrived != stored:
        raise StorageError(
            f"{uri}: arrived damaged: its crc32c is {arrived}, stored was {stored}; run again"
        )


def upload(source: BinaryIO, uri: Location, if_generation: str | None) -> FileInfo:
    """Make an object of the content of `source`."""
    from google.api_core import exceptions as api

    checksum, size = _crc32c(source), source.tell()
    faults: list[Exception] = []

    def attempt() -> FileInfo:
        expected = if_generation
        if expected is None:
            current = _find(uri)
            expected = current.generation if current else ABSENT
        blob = _blob(uri)
        blob.crc32c = checksum  # declared, so that the server refuses content that does not match
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
            current = _find(uri)
            if faults and current and current.crc32c == checksum:
                return current  # an earlier attempt of ours arrived; only its answer was lost
            if if_generation is not None:
                raise not_expected(uri, if_generation, current) from None
            raise
        return _info(blob)

    def start_over(error: Exception) -> bool:
        if isinstance(error, api.PreconditionFailed):
            return True
        # If the bucket exists, the server has lost the upload session.
        return getattr(error, "code", None) in (404, 410) and not _bucket_missing(_split(uri)[0])

    # The library's own retry stays in one upload session, which a restarted server does not know.
    return _retry(uri, also=start_over, faults=faults)(attempt)()


def delete(uri: Location) -> None:
    """Delete the object, if there is one."""
    from google.api_core import exceptions as api

    def attempt() -> None:
        current = _find(uri)
        if current:
            with suppress(api.NotFound):
                _blob(uri).delete(
                    if_generation_match=int(current.generation), timeout=_TIMEOUT, retry=_retry(uri)
                )

    _retry(uri, also=lambda error: isinstance(error, api.PreconditionFailed))(attempt)()
