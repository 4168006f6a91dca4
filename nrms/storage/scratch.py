"""Temporary files and folders, which are removed when their process ends, or else by a later one.

Each is locked by its process. A lock ends with its process, however that ends, and unlike a process
id it never belongs to another one afterwards. So a temporary file without a lock is left over, and
whoever makes the next one in the same place removes it. Where there are no such locks, on Windows
and on some network file systems, nothing counts as left over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from nrms.errors import StorageError
from nrms.storage.disk import refused

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Nothing else has such names, so whatever has one and is not locked is removed.
_FOLDER = re.compile(r"nrms-\d+-[0-9a-f]{32}")
_FILE = re.compile(r"\.[0-9a-f]{32}\.(tmp|lock)")
_TRIES = 50  # tries to remove a folder into which a thread is still writing

_own: set[Path] = set()


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder, which is removed after the block.

    Args:
        parent: where to make it; None for the system's temporary folder, which `TMPDIR` names.

    Raises:
        StorageError: its disk takes no more, even if it happens in the block. Other errors of the
            block pass through.
    """
    where = parent or temporary_folder()
    try:
        with _owned(
            where, _FOLDER, f"nrms-{os.getpid()}-{{}}", lambda path: path.mkdir(0o700)
        ) as path:
            yield path
    except Exception as error:
        if refusal := refused(error, where):
            raise refusal from error
        raise


@contextlib.contextmanager
def as_temporary_folder() -> Iterator[None]:
    """In the block, a scratch folder is the system's temporary folder, for libraries and child
    processes too, because they leave files behind when they are killed.
    """
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with scratch_folder() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR")
            if variable is not None:
                os.environ["TMPDIR"] = variable


@contextlib.contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """A new, empty, hidden file in a folder of the user's. It is removed after the block, unless it
    was renamed.
    """
    with _owned(folder, _FILE, ".{}.tmp", lambda path: path.touch(0o666, exist_ok=False)) as path:
        yield path


def tidy(folder: Path) -> None:
    """Removes the files that killed processes left in a folder of the user's."""
    _remove_left_over(folder, _FILE)


def lock_path(target: Path) -> Path:
    """A file beside `target` to lock by flock while `target` changes. `tidy` removes the lock files
    of killed processes, too.
    """
    return target.with_name(f".{uuid.uuid5(uuid.NAMESPACE_URL, target.name).hex}.lock")


def remove_own() -> None:
    """Removes what this process has not removed yet, just before it ends."""
    for path in list(_own):
        _remove(path)


def temporary_folder() -> Path:
    """The system's temporary folder, or the one that `as_temporary_folder` has put in its place.
    Raises StorageError where no folder can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StorageError(
            f"TMPDIR must name a folder that can be written. Received: {error.strerror}."
        ) from None


@contextlib.contextmanager
def _owned(
    folder: Path, names: re.Pattern, name: str, make: Callable[[Path], None]
) -> Iterator[Path]:
    _remove_left_over(folder, names)
    descriptor = path = None
    try:
        while True:
            path = folder / name.format(uuid.uuid4().hex)
            _own.add(path)  # before it is made, as a signal may come between any two lines
            make(path)
            if fcntl is None:
                break
            # Until it is locked, another process may take it for left over and remove it.
            with contextlib.suppress(FileNotFoundError):
                descriptor = _open(path)
                with contextlib.suppress(OSError):  # this file system has no locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if path.exists():
                    break
                os.close(descriptor)
                descriptor = None
            _own.discard(path)
        yield path
    finally:
        if path is not None:
            _remove(path)
        if descriptor is not None:
            os.close(descriptor)
        _own.discard(path)


def _remove_left_over(folder: Path, names: re.Pattern) -> None:
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if names.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):  # it is locked, belongs to another user, or has gone
                descriptor = _open(path)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)
                finally:
                    os.close(descriptor)


def _open(path: Path) -> int:
    # Some network file systems lock only what was opened for writing, and a folder never is.
    return os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NOFOLLOW)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for _ in range(_TRIES):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.01)
