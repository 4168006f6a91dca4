"""The door of the service: who asks for scores needs the key and one of a limited number of places,
which is free again when the answer has been taken or the client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.connections import PLACE
from api.errors import ErrorDetail, Refusal, unavailable
from api.service import Service
from api.settings import Settings
from api.uploads.body import EVENTS_PATH, BodyRefused, LimitedBody

EXAMPLE_PATH = "/example"
_TELLING = ("/info", "/metrics")  # they tell of models, buckets and traffic
_ENDS = ConnectionError("the service ends")
# A client that is still sending reads its refusal only when the service has read what it sends.
_DRAIN_SECONDS = 5.0


class Admission:
    """ASGI middleware in front of everything; what takes a body needs a place as well.

    A place is taken before the first byte is read and given back when the answer has been taken, or
    when the client leaves or is too slow. So the disk holds at most as many uploads and answers as
    there are places. Events have places of their own: no upload keeps them waiting.

    Args:
        app: what is behind the door.
        settings: places, bytes and seconds.
        service: whose metrics count.
    """

    def __init__(self, app: ASGIApp, settings: Settings, service: Service) -> None:
        self._app = app
        self._settings = settings
        self._service = service
        self._places = {
            False: settings.workers + settings.queue_size,
            True: settings.events_queue,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = None

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        scope.setdefault("state", {})["started"] = time.perf_counter()
        # HEAD is answered as GET; the server leaves the body out.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            key = dict(scope["headers"]).get(b"x-api-key", b"")
            if self._asks_for_key(inner) and not knows_key(self._settings, key):
                # Checked before a place is taken, so strangers cannot fill the queue.
                await self._refuse(_stranger(key), inner, receive, noted)
            elif inner["method"] in ("POST", "PUT", "PATCH"):
                await self._with_place(inner, receive, noted)
            else:
                await self._app(inner, receive, noted)
        except asyncio.CancelledError:
            # The service is ending and can wait no longer.
            if status is None:
                await self._refuse(unavailable(_ENDS), inner, receive, noted, drain=False)
        finally:
            route = getattr(inner.get("route"), "path", "other")
            self._service.metrics.requests.labels(route, status or 500).inc()

    def _asks_for_key(self, scope: Scope) -> bool:
        if scope["method"] in ("POST", "PUT", "PATCH") or scope["path"] == EXAMPLE_PATH:
            return True
        return scope["path"] in _TELLING and not self._settings.public_metrics

    async def _with_place(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = scope["path"] == EVENTS_PATH
        if self._places[events] == 0:
            await self._refuse(_busy(self._settings, events), scope, receive, send)
            return
        self._places[events] -= 1
        scope["state"][PLACE] = True
        metrics = self._service.metrics
        in_flight = metrics.events_in_flight if events else metrics.in_flight
        in_flight.inc()
        try:
            await self._let_in(scope, receive, send)
        finally:
            self._places[events] += 1
            scope["state"][PLACE] = False
            in_flight.dec()

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = LimitedBody(scope, receive, self._settings)

        async def guarded(message: Message) -> None:
            if body.refusal is None:
                await send(message)

        body.check_length()
        if body.refusal is None:
            with contextlib.suppress(BodyRefused):
                await self._app(scope, body.receive, guarded)
        if body.refusal is not None:
            await self._refuse(body.refusal, scope, receive, send, drain=body.refusal.status == 413)

    async def _refuse(
        self, refusal: Refusal, scope: Scope, receive: Receive, send: Send, drain: bool = True
    ) -> None:
        self._service.metrics.rejections.labels(refusal.reason).inc()
        if drain:
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    left = self._settings.max_body_bytes
                    while left > 0 and (message := await receive()).get("more_body"):
                        left -= len(message["body"])
            except TimeoutError:
                pass
        response = refusal.response()
        # Nobody waits for the rest of the body, so the connection cannot carry another request.
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def knows_key(settings: Settings, key: bytes) -> bool:
    """Whether a request with this X-API-Key may do everything."""
    return settings.api_key is None or hmac.compare_digest(key, settings.api_key.encode())


def _stranger(key: bytes) -> Refusal:
    detail = ErrorDetail(
        rule="X-API-Key must carry this service's key.",
        received="another key" if key else "none",
        where="header X-API-Key",
        todo="Ask whoever runs the service for the key; /docs has Authorize.",
    )
    return Refusal(401, "key", detail)


def _busy(settings: Settings, events: bool) -> Refusal:
    places = settings.events_queue if events else settings.workers + settings.queue_size
    return Refusal(
        429,
        "busy",
        ErrorDetail(
            rule=f"At most {places} requests may arrive or wait at once.",
            received="one more",
            where="request",
            todo="Send it again after the seconds in Retry-After.",
        ),
        retry_after=1,
    )
