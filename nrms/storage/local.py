"""Local files. A write goes to a temporary file, which then takes the name."""

import os
import stat as modes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from nrms.errors import AccessDenied, ObjectNotFound, StorageError
from nrms.storage.fileinfo import ABSENT, FileInfo, Location, changed, check_utf8, not_expected
from nrms.storage.scratch import lock_path, scratch_file


@contextmanager
def errors(uri: Location, verb: str) -> Iterator[None]:
    """Turn the operating system's errors in the block into ours: `uri` could not be `verb`
    ("read", ...).
    """
    try:
        yield
    except FileExistsError as error:
        raise StorageError(
            f"{uri}: could not be {verb}: {error.filename} is a file, not a folder"
        ) from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        kind = ObjectNotFound if verb == "read" else StorageError
        raise kind(f"{uri}: no file can be {verb} here: {error.strerror}") from error
    except PermissionError as error:
        raise AccessDenied(
            f"{uri}: may not be {verb}: {error.strerror}; check "
            "the owner and mode of the file and its folders"
        ) from error
    except OSError as error:
        raise StorageError(f"{uri}: could not be {verb}: {error.strerror or error}") from error


def _info(uri: Location, status: os.stat_result) -> FileInfo:
    generation = f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}"
    return FileInfo(os.fspath(uri), status.st_size, generation, None, status.st_ctime_ns)


def stat(uri: Location) -> FileInfo:
    """The file's current generation."""
    status = Path(uri).stat()
    if modes.S_ISDIR(status.st_mode):
        raise ObjectNotFound(f"{uri}: is a folder; a file was expected")
    if not modes.S_ISREG(status.st_mode):  # opening a pipe or a device may hang for ever
        raise StorageError(f"{uri}: is a pipe, socket or device; a file was expected")
    return _info(uri, status)


def _find(uri: Location) -> FileInfo | None:
    try:
        with errors(uri, "read"):
            return stat(uri)
    except ObjectNotFound:
        return None


def list_files(folder: Location, suffix: str, hidden: bool) -> Iterator[FileInfo]:
    """The files below `folder` whose name ends in `suffix`, in no order; hidden ones only if asked
    for. Links are followed.
    """
    return _walk(Path(folder), suffix, hidden, frozenset())


def _walk(
    folder: Path, suffix: str, hidden: bool, above: frozenset[tuple[int, int]]
) -> Iterator[FileInfo]:
    with errors(folder, "listed"):
        try:
            status, entries = folder.stat(), list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
    here = status.st_dev, status.st_ino
    if here in above:  # a link to a folder above it
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") and not hidden:
            continue
        # Errors of hidden files are left out, because nobody depends on these.
        with (
            suppress(StorageError) if entry.name.startswith(".") else nullcontext(),
            errors(path, "listed"),
        ):
            if entry.is_dir():
                yield from _walk(path, suffix, hidden, above | {here})
            elif entry.name.endswith(suffix) and (info := _listed(path)):
                yield info


def _listed(path: Path) -> FileInfo | None:
    """The file's current generation; None where it was deleted since its folder was listed."""
    check_utf8(path)
    try:
        return stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise StorageError(
                f"{path}: is a link to {path.readlink()}, where nothing is; mend or remove it"
            ) from None
        return None


def read(uri: Location, info: FileInfo | None) -> bytes:
    """The whole content: of the generation `info`, or of the current one."""
    stat(uri)
    with Path(uri).open("rb") as file:
        data = file.read()
        if info and _info(uri, os.fstat(file.fileno())).generation != info.generation:
            raise changed(info)
        return data


def write(uri: Location, fill: Callable[[BinaryIO], Any], if_generation: str | None) -> FileInfo:
    """Make a file of what `fill` writes to a stream; it appears under its name when it is whole."""
    target = Path(uri)
    with errors(uri, "written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_file(target.parent) as temporary:
            with temporary.open("r+b") as stream:
                fill(stream)
                stream.flush()
                # The kernel's own clock may stand still for milliseconds here, and then two
                # generations would be the same.
                os.utime(stream.fileno(), ns=(time.time_ns(), time.time_ns()))
                os.fsync(stream.fileno())
                info = _info(uri, os.fstat(stream.fileno()))
            _publish(temporary, target, if_generation)
    return info


def _publish(temporary: Path, target: Path, if_generation: str | None) -> None:
    if if_generation is None:
        temporary.replace(target)
    elif if_generation == ABSENT:
        try:
            target.hardlink_to(temporary)
        except FileExistsError:
            raise not_expected(target, ABSENT, stat(target)) from None
    else:
        lock = lock_path(target)
        with FileLock(lock, poll_interval=0.01):
            try:
                current = _find(target)
                if current is None or current.generation != if_generation:
                    raise not_expected(target, if_generation, current)
                temporary.replace(target)
            finally:
                # A process that waits for this lock then makes a new file: FileLock does so where
                # its file has gone.
                with suppress(OSError):  # Windows does not delete open files
                    lock.unlink()


def delete(uri: Location) -> None:
    """Delete the file, if there is one."""
    Path(uri).unlink(missing_ok=True)
