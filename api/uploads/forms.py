"""The multipart forms in which uploads come."""

from __future__ import annotations

from typing import Any

from starlette import formparsers

# of a part's head, the file's name in it; Starlette joins it piece by piece, so not without end
HEAD_BYTES = 65_536


def allow_long_names() -> None:
    """Lets files have names of any length that a part's head holds, in place of the parser's own
    limit of 4 kB.

    Starlette makes the parser without a word on it: only its default can be set.
    """
    defaults: Any = formparsers.multipart.MultipartParser.__init__.__kwdefaults__
    defaults["max_header_size"] = HEAD_BYTES
