"""Lets requests that come at the same time share one write."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from nrms.errors import SchemaError
from nrms.events.log import Appended
from nrms.events.records import Batch

_TOGETHER = 10_000  # events of one write, beyond which further requests wait for the next

Outcome = Appended | SchemaError


class _Request(NamedTuple):
    batch: Batch
    future: Future[Appended]


class GroupCommit:
    """A thread that writes the requests that wait, all at once, and then looks again.

    Args:
        write: makes these requests durable, and gives what became of each. What it raises is the
            outcome of all of them.
    """

    def __init__(self, write: Callable[[Sequence[Batch]], Sequence[Outcome]]) -> None:
        self._write = write
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> Future[Appended]:
        """See `EventLog.submit`."""
        future: Future[Appended] = Future()
        self._queue.put(_Request(batch, future))
        return future

    def close(self) -> None:
        """Writes what was submitted, and ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        request = self._queue.get()
        while request is not None:
            requests, events = [], 0
            while request is not None:
                if request.future.set_running_or_notify_cancel():
                    requests.append(request)
                    events += len(request.batch.records)
                if events >= _TOGETHER or self._queue.empty():
                    break
                request = self._queue.get()
            self._commit(requests)
            if request is not None:
                request = self._queue.get()

    def _commit(self, requests: list[_Request]) -> None:
        try:
            outcomes = self._write([request.batch for request in requests])
        except Exception as error:
            for request in requests:
                request.future.set_exception(error)
            return
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, SchemaError):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(outcome)
