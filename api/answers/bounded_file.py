"""An answer of a limited number of bytes: it is written to a file, and sent from there piece by
piece, as fast as the client takes it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import ErrorDetail, Refusal

_IN_MEMORY = 2**18  # bytes; a larger answer goes to the disk
_PIECE = 2**18


class AnswerFile(tempfile.SpooledTemporaryFile):
    """Takes the bytes of an answer: in memory while they are few, then on the disk. Closing the
    file removes it.

    Args:
        folder: where a large answer lies.
        limit: bytes at most; a write beyond it raises a Refusal.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        super().__init__(_IN_MEMORY, dir=str(folder))
        self._limit = limit

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes alone
        """See `io.RawIOBase`."""
        if self.tell() + len(data) > self._limit:
            detail = ErrorDetail(
                rule=f"An answer may have {self._limit:,} bytes.",
                received="an upload whose answer has more",
                where="request",
                todo="Ask for fewer rows (max_rows) or for no titles, or send the rows in several "
                "uploads.",
            )
            raise Refusal(422, "answer_too_large", detail)
        return super().write(data)


class FileAnswer(Response):
    """Sends a file and closes it. What the client has not taken yet stays in the file.

    Args:
        file: from its beginning to where it stands now.
        media_type: of its content.
        headers: further headers.
    """

    def __init__(self, file: IO[bytes], media_type: str, headers: Mapping[str, str]) -> None:
        self._file = file
        self._size = file.tell()
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers({**headers, "Content-Length": str(self._size)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        with self._file as file:
            file.seek(0, os.SEEK_SET)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            for _ in range(0, self._size, _PIECE):
                piece = await anyio.to_thread.run_sync(file.read, _PIECE)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            # This is sent when the client has taken all the rest: until then the upload keeps its
            # place.
            await send({"type": "http.response.body", "body": b""})
