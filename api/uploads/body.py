"""The body of a request while it arrives: how many bytes it may have, and how many seconds."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope

from api.errors import ErrorDetail, Refusal
from api.settings import Settings

JSON_PATH, EVENTS_PATH = "/predict/json", "/events"
PARQUET_TYPE = "application/vnd.apache.parquet"


class BodyRefused(BaseException):
    """A body met a limit while it was read.

    It is not an Exception, because code that reads the body would answer an Exception itself.
    """


class LimitedBody:
    """Passes a body on until it meets a limit.

    Args:
        scope: the request's.
        receive: gives the body; see ASGI.
        settings: the limits.

    Attributes:
        refusal: the limit that was met, if any.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: Settings) -> None:
        self.refusal: Refusal | None = None
        self._scope = scope
        self._receive = receive
        self._limit = settings.max_body_bytes
        if scope["path"] == JSON_PATH or (
            scope["path"] == EVENTS_PATH and media_type(scope) != PARQUET_TYPE
        ):
            self._limit = min(self._limit, settings.max_json_bytes)
        self._seconds = settings.upload_seconds
        self._end = asyncio.get_running_loop().time() + self._seconds
        self._arrived, self._complete = 0, False

    def check_length(self) -> None:
        """Refuses a body that announces more bytes than it may have, before any of it is read."""
        declared = dict(self._scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit:
            self.refusal = _large(self._limit, f"{int(declared):,} bytes")

    async def receive(self) -> Message:
        """See ASGI.

        Raises:
            BodyRefused: there are too many bytes, or they come too slowly.
        """
        if self._complete:
            return await self._receive()  # comes when the client leaves
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            self.refusal = _slow(self._seconds)
            raise BodyRefused from None
        self._arrived += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._arrived > self._limit:
            self.refusal = _large(self._limit, f"more than {self._limit:,} bytes")
            raise BodyRefused
        return message


def media_type(scope: Scope) -> str:
    """What the head of a request says that its body is, without parameters; empty where it says
    nothing.
    """
    text = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
    return text.partition(";")[0].strip().lower()


def _large(limit: int, received: str) -> Refusal:
    detail = ErrorDetail(
        rule=f"A body may have {limit:,} bytes.",
        received=received,
        where="body",
        todo="Send the rows in several uploads, without columns that are not needed, compressed "
        "with zstd.",
    )
    return Refusal(413, "body_too_large", detail)


def _slow(seconds: float) -> Refusal:
    detail = ErrorDetail(
        rule=f"A body must arrive within {seconds:g} seconds.",
        received="a part of one",
        where="body",
        todo="Send less at once, or over a faster connection.",
    )
    return Refusal(408, "upload_too_slow", detail)
