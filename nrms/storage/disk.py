"""Errors of the system when a disk takes no more, as one line."""

import errno
import os
import re

from nrms.errors import NrmsError, StorageError
from nrms.storage.fileinfo import Location, check_utf8

_FILES = {errno.EMFILE, errno.ENFILE}
# Windows lacks one of these names.
_FULL = {getattr(errno, name, errno.EIO) for name in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EROFS")}
_SHORT = re.compile(r"\d requested and \d+ written")  # NumPy says no more about a full disk


def refused(error: BaseException, where: Location) -> StorageError | None:
    """The one-line error for a disk that is full or read-only, for a process with too many open
    files, and for a name that is not UTF-8; None for any other error.

    Args:
        error: what was raised. Libraries raise errors of their own for these, or fail a second time
            while they clean up. So the message counts too, and so do the errors during whose
            handling it was raised.
        where: the folder that was written, for errors that name no file.
    """
    seen = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen and not isinstance(found, NrmsError):
        seen.add(id(found))
        if isinstance(found, UnicodeEncodeError):
            try:
                check_utf8(found.object)
            except StorageError as refusal:
                return refusal
        text = os.strerror(errno.ENOSPC) if _SHORT.search(str(found)) else str(found)
        for number in _FULL | _FILES:
            reason = os.strerror(number)
            if getattr(found, "errno", None) == number or reason in text:
                named = getattr(found, "filename", None)
                place = named if isinstance(named, str) else os.fspath(where)
                todo = (
                    "raise the limit, `ulimit -n`"
                    if number in _FILES
                    else "make room there, or name another folder"
                )
                return StorageError(f"{place}: could not be written: {reason}; {todo}")
        found = found.__cause__ or found.__context__
    return None
