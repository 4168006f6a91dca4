"""What the system says when a disk takes no more, in one line."""

import errno
import os

from nrms.errors import NrmsError, StorageError
from nrms.storage.fileinfo import Location

_FULL, _FILES = "written: {}; make room there, or name another folder", "opened: {}; raise the limit, `ulimit -n`"
_REFUSALS = {
    getattr(errno, name): text
    for text, names in {_FULL: ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO"), _FILES: ("EMFILE", "ENFILE")}.items()
    for name in names
    if hasattr(errno, name)  # Windows lacks some
}


def refused(error: BaseException, where: Location) -> StorageError | None:
    """The error of a disk that is full or read-only, or of a process with too many open files; None for any other.

    Args:
        error: what was raised. Libraries have errors of their own for it, or fail once more while they clean up: the
            message counts as well, and so does what an error was raised in the handling of.
        where: the folder that was written, for errors that name no file.
    """
    seen = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen and not isinstance(found, NrmsError):
        seen.add(id(found))
        number = getattr(found, "errno", None)
        for refusal, text in _REFUSALS.items():
            reason = os.strerror(refusal)
            if number == refusal or reason in str(found):
                place = getattr(found, "filename", None) or where
                return StorageError(f"{os.fspath(place)}: could not be {text.format(reason)}")
        found = found.__cause__ or found.__context__
    return None
