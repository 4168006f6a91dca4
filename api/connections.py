"""The connections of a service: how many there may be, and how long each may take.

uvicorn serves them but has no such limits: the head of a request may take for ever to arrive, a
client may never read its answer, and silent connections can use up the files that a process may
have open. Here

- the number of connections is limited, always below the number of files that may be open. One more
  connection ends the one that has waited longest for the head of a request, or else one whose
  client takes its answer slowly, but never an upload that has a place;
- the head of a request must arrive within `head_seconds`;
- an answer must be taken within `answer_seconds`, counted from the first moment in which the client
  does not keep up.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
import time
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.metrics import Metrics
from api.settings import Settings
from nrms.errors import ConfigError

logger = logging.getLogger(__name__)

PLACE = "place"  # key in a request's state: whether it has a place, see api.admission
# Files that are open beside connections and uploads: of the model, the bucket, the child processes
# and the connections that have just been accepted.
_FILES = 96
_FILES_OF_AN_UPLOAD = 8
_FILES_OF_EVENTS = 1
_ACCEPTED_AT_ONCE = 8  # connections that are accepted before they are counted
_BACKLOG = 1024  # connections that the system holds back until they are accepted
_QUIET_SECONDS = 60  # between two log lines about connections that could not be accepted


def most_connections(settings: Settings) -> int:
    """How many connections this process can have at once.

    Raises:
        ConfigError: the limit of open files leaves room for no connection.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return settings.max_connections
    places = settings.workers + settings.queue_size
    events = settings.events_queue if settings.events else 0
    used = _FILES + places * _FILES_OF_AN_UPLOAD + events * _FILES_OF_EVENTS
    needed = used + places + events
    if files <= needed:
        raise ConfigError(
            f"The limit of open files must be more than {needed:,}, with {places + events} "
            f"WORKERS, QUEUE_SIZE and, where EVENTS is true, EVENTS_QUEUE. Received: {files:,}. "
            "Raise it (ulimit -n), or lower these."
        )
    return min(settings.max_connections, files - used)


class Connection(H11Protocol):
    """One connection, which is cut when it meets a limit."""

    def __init__(
        self, *args: Any, settings: Settings, metrics: Metrics, most: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._metrics = metrics
        self._most = most
        self._since = 0.0
        self._head: asyncio.TimerHandle | None = None
        self._answer: asyncio.TimerHandle | None = None

    @property
    def _working(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        # asyncio leaves this out for sockets of `socket.create_server`, and then the second piece
        # of an answer waits 40 ms until the client has acknowledged the first.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With this, sending waits until the system has taken everything, so the process keeps
        # nothing that a client does not read.
        transport.set_write_buffer_limits(high=0)
        self._wait()
        if len(self.connections) > self._most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._head, self._answer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._working and self._head is not None:
            self._head.cancel()
            self._head = None

    def on_response_complete(self) -> None:
        """See `uvicorn.protocols.http.h11_impl.H11Protocol`."""
        super().on_response_complete()
        if not self._working:  # a client may have sent the next request already
            self._wait()
        self._look_whether_taken()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        if self._answer is None:
            self._answer = self.loop.call_later(
                self._settings.answer_seconds, self._cut, "answer_too_slow"
            )

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._look_whether_taken()

    def _wait(self) -> None:
        """Begins to wait for the head of a request."""
        self._since = self.loop.time()
        if self._head is None:
            self._head = self.loop.call_later(self._settings.head_seconds, self._end)

    def _end(self) -> None:
        if self._answer is None:
            self._cut("head_too_slow")
        else:  # the client is still taking the last answer, which has a time of its own
            self._head = self.loop.call_later(self._settings.head_seconds, self._end)

    def _cut(self, reason: str) -> None:
        self._metrics.cut.labels(reason).inc()
        if self.flow.write_paused:
            # Otherwise the system would keep the megabytes of the answer that it has taken, and
            # offer them to the client for another quarter of an hour.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _look_whether_taken(self) -> None:
        if self._answer is not None and not self._working and not self.flow.write_paused:
            self._answer.cancel()
            self._answer = None

    def _make_room(self) -> None:
        peers: Any = self.connections  # uvicorn's set; each one is a Connection
        others = [
            (other._working, other._since, number, other)
            for number, other in enumerate(peers)
            if other is not self
            and not other.transport.is_closing()
            and not (other._working and other.scope["state"].get(PLACE))
        ]
        min(others, default=(None, self))[-1]._cut("no_room")


class Server(uvicorn.Server):
    """Runs an application with these limits, until a signal ends it.

    Args:
        app: the application.
        settings: limits and seconds.
        metrics: count the connections that are cut.
        most: connections at most, see `most_connections`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, most: int) -> None:
        protocol: Any = partial(Connection, settings=settings, metrics=metrics, most=most)
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,  # /metrics counts requests
            backlog=_ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=round(settings.stop_seconds),
        )
        super().__init__(config)
        self._complained = float("-inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to serve."""
        await super().startup(sockets)
        for listener in sockets or []:
            # For asyncio this is the same number as that of connections accepted at once.
            listener.listen(_BACKLOG)
            host, port, *_ = listener.getsockname()
            logger.info("listening at http://%s:%d", f"[{host}]" if ":" in host else host, port)
        asyncio.get_running_loop().set_exception_handler(self._note)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not context.get("message", "").startswith("socket.accept()"):
            loop.default_exception_handler(context)
        elif time.monotonic() > self._complained + _QUIET_SECONDS:
            # In a flood asyncio reports each connection, again every second.
            self._complained = time.monotonic()
            logger.warning("connections cannot be accepted: %s", context.get("exception"))
