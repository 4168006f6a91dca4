"""The seam between whoever takes events and whoever applies them: a log with positions."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from nrms.events.records import Batch


@dataclass(frozen=True)
class Appended:
    """What became of a request's events.

    Attributes:
        accepted: events that are new, late clicks that wait for their impression among them.
        repeated: events that the log knew already.
        position: the log's end after them. Whoever has applied all rows up to here has applied
            them, but for clicks that wait.
    """

    accepted: int
    repeated: int
    position: int


@dataclass(frozen=True)
class LogState:
    """A look at a log.

    Attributes:
        start: rows up to this position are no longer there.
        end: position of the last row ever written; 0 before the first.
        waiting: late clicks whose impression has not arrived.
        bytes: what the log takes, on disk or in Redis' memory.
        newest: the latest time of an impression, microseconds since 1970, UTC; None before the
            first.
    """

    start: int
    end: int
    waiting: int
    bytes: int
    newest: int | None


@dataclass(frozen=True)
class Dropped:
    """What `EventLog.compact` removed: rows, and clicks whose impression never came."""

    rows: int
    waiting: int


class EventLog(Protocol):
    """Events in the order of their arrival.

    A row is an impression, or late clicks of an earlier one. Positions are 1, 2, 3, ... without
    gaps; a row never changes, and a reader that has seen a position never finds a new row before
    it. A late click has its row where its impression and itself have both arrived: the row carries
    the impression's list, reader and time, so that a reader need not look it up.

    An event id stands for one event and an impression id for one list: the same once more changes
    nothing, another content is refused. An article counts as clicked once in an impression: the
    row of a late click leaves out what an earlier row of the impression has.
    """

    def submit(self, batch: Batch) -> Future[Appended]:
        """Begins to append the events of one request, all or none of them.

        The result is there once they would survive the loss of power. It is a SchemaError where an
        event contradicts the log, and a StorageError where the log could not be written: then the
        events may be in the log or not, and it is safe to send them again.
        """
        ...

    def append(self, batch: Batch) -> Appended:
        """`submit`, and waits for the result."""
        ...

    def since(self, position: int, limit: int = 10_000) -> pa.Table:
        """The rows after a position, in order.

        Args:
            position: of the last row that the caller knows; 0 for none.
            limit: rows at most.

        Returns:
            A table with a row for each: `position` int64, `event_id` string, `late` bool (clicks of
            an earlier impression, whose exposures that one counted), `impression_id`, `user_id`,
            `impression_time` timestamp[us, UTC], `article_ids_inview` list, `article_ids_clicked`
            list, null where it was, `article_id` (the page; null for the front page), `device_type`
            int64 or null. Ids are int64 or string, the same in every answer of a log that has rows.

        Raises:
            StorageError: the log cannot be read, or rows after the position are no longer there.
        """
        ...

    def state(self) -> LogState:
        """How the log stands. Raises StorageError."""
        ...

    def compact(self, before: int) -> Dropped:
        """Removes rows up to a position that a snapshot holds, once they are older than the log
        keeps ids and impressions; also clicks that have waited as long. Raises StorageError.
        """
        ...

    def close(self) -> None:
        """Writes what was submitted, and lets go of the log."""
        ...
