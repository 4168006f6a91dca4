"""What the system says when a disk takes no more, in one line."""

import errno
import os
import re

from nrms.errors import NrmsError, StorageError
from nrms.storage.fileinfo import Location, check_utf8

_FILES = {errno.EMFILE, errno.ENFILE}
# Windows lacks one
_FULL = {getattr(errno, name, errno.EIO) for name in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EROFS")}
_SHORT = re.compile(r"\d requested and \d+ written")  # all that NumPy says of it


def refused(error: BaseException, where: Location) -> StorageError | None:
    """The error of a disk that is full or read-only, of a process with too many open files, or of a
    name that is no UTF-8; None for any other.

    Args:
        error: what was raised. Libraries have errors of their own for it, or fail once more while
            they clean up: the message counts as well, and so does what an error was raised in the
            handling of.
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
