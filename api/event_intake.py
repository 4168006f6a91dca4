"""The log of events of a running service: a thread opens it, tries again where that fails, and
looks how it stands.
"""

from __future__ import annotations

import logging
import threading
import time

import anyio

from api.errors import ErrorDetail, Refusal
from api.metrics import EventMetrics, Metrics
from api.settings import Settings
from nrms.errors import StorageError
from nrms.events.address import open_log
from nrms.events.event import EventLimits, now
from nrms.events.log import EventLog

logger = logging.getLogger(__name__)

_SECONDS = 1.0  # between two looks
_QUIET_SECONDS = 60.0  # between two log lines about events that could not be written


class EventIntake:
    """What a service needs to take events.

    Args:
        settings: see `api.settings`.
        metrics: of the service; those of events are added.

    Attributes:
        metrics: those of events.
        limiter: lets one body of JSON lines be read at a time.
        error: why there is no log; None when there is.
        end: the position of the log's last row when it was last looked at.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.metrics = EventMetrics(metrics.registry)
        self.metrics.newest.set_function(self._age)
        self.limiter = anyio.CapacityLimiter(1)
        self.error: str | None = "the log is being opened"
        self._settings = settings
        self._log: EventLog | None = None
        self.end = 0
        self._newest: int | None = None
        self._complained = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow-events", daemon=True)

    @property
    def log(self) -> EventLog | None:
        """The open log; None until it could be opened."""
        return self._log

    @property
    def limits(self) -> EventLimits:
        """Of an event that arrives now."""
        return EventLimits(
            max_list=self._settings.max_candidates,
            now=now(),
            keep_seconds=self._settings.events_keep_hours * 3_600,
            ahead_seconds=self._settings.events_ahead_seconds,
        )

    def unavailable(self, error: StorageError) -> Refusal:
        """The refusal of events that the log could not take. Why is in the service's log alone: it
        names folders and hosts.
        """
        if time.monotonic() > self._complained + _QUIET_SECONDS:
            self._complained = time.monotonic()
            logger.error("%s", error)
        return _refusal("a request that it could not write or acknowledge")

    def closed(self) -> Refusal:
        """The refusal as long as there is no log."""
        return _refusal("none that is open")

    def start(self) -> None:
        """Begins to open the log."""
        self._thread.start()

    def stop(self) -> None:
        """Closes it. Nothing may be submitted any more."""
        self._stop.set()
        self._thread.join()
        if self._log is not None:
            self._log.close()

    def _follow(self) -> None:
        while True:
            try:
                if self._log is None:
                    self._log = self._open()
                self._look(self._log)
                self._note(None)
            except StorageError as error:
                self._note(str(error))
            if self._stop.wait(_SECONDS):
                return

    def _open(self) -> EventLog:
        # An event may be as old as the limit and arrive as early as the other one: ids are kept
        # until both are over.
        hours, ahead = self._settings.events_keep_hours, self._settings.events_ahead_seconds
        return open_log(self._settings.events_url, hours * 3_600 + ahead)

    def _look(self, log: EventLog) -> None:
        state = log.state()
        self.metrics.rows.set(state.end - state.start)
        self.metrics.bytes.set(state.bytes)
        self.metrics.waiting.set(state.waiting)
        self._newest, self.end = state.newest, state.end

    def _age(self) -> float:
        return float("nan") if self._newest is None else max(0.0, (now() - self._newest) / 1e6)

    def _note(self, error: str | None) -> None:
        if error is not None and error != self.error:
            logger.error("%s", error)
        self.metrics.open.set(1 if error is None else 0)
        self.error = error


def _refusal(received: str) -> Refusal:
    detail = ErrorDetail(
        rule="Events must be written to their log before they are acknowledged.",
        received=received,
        where="service",
        todo="Send them again; if it stays so, tell whoever runs the service: its log says why.",
    )
    return Refusal(503, "events_unavailable", detail, retry_after=1)
