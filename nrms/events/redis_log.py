"""An event log in Redis, for several services that take and apply the same events.

The log is one hash, and each change of it is one command, HSET or HDEL, however many requests it is
for. The reason is a fault of Redis. What takes several commands, in a transaction or in a script,
it writes to its append-only file between MULTI and EXEC. If it is killed while it writes them, its
next start cuts the file behind MULTI instead of before it, and what is acknowledged from then on
may be lost or doubled by the start after that (valkey-io/valkey#4342). A stream with the ids beside
it would take several commands. A single one is written whole or not at all.

    about         JSON: the format; `start` and `end`, positions; when the last row arrived; the
                  latest time of an impression; the types of ids; `first` and `last`, numbers of the
                  clicks that wait or waited, and `waiting`, how many do
    r<position>   a row
    e<event id>   digest of that event
    i<impression> its digest, the position of its row, and what is clicked in it
    w<impression> event id and clicks of those that wait for it
    q<number>     of a click that waits or waited: when it came, its event id, its impression

Who writes watches the hash: where another service has changed it in between, it looks again. What
is acknowledged is durable where Redis has an append-only file and `appendfsync always`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nrms.errors import SchemaError, StorageError
from nrms.events.event import mixed, now
from nrms.events.group_commit import GroupCommit, Outcome
from nrms.events.log import Appended, Dropped, LogState
from nrms.events.records import Batch, Record, Row, clicks_json, table
from nrms.events.refusals import another_event, another_impression, dropped

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Read = Callable[[Iterable[str]], dict[str, str]]  # the fields of these names that are there

_LOG = "nrms:events"
_FORMAT = 1
_OLDEST = 7  # of Redis, which before wrote even a single command of a transaction in MULTI and EXEC
_CONNECT_SECONDS, _ANSWER_SECONDS = 2.0, 10.0
_DROPPED_AT_ONCE = 1_000  # rows, so that no request waits long for a compaction
# What must be set so that nothing acknowledged is lost.
_NEEDED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class RedisLog:
    """See `nrms.events.log.EventLog`.

    Args:
        url: `redis://[[user]:password@]host[:port][/number]`, or `rediss://` with TLS.
        keep_seconds: how long ids of events, and impressions for late clicks, are kept.

    Raises:
        StorageError: Redis does not answer, refuses, or is too old.
    """

    def __init__(self, url: str, keep_seconds: float) -> None:
        self._redis: Any = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            # What got no answer is the sender's to send again: here it would be counted wrong.
            retry=Retry(NoBackoff(), 0),
        )
        where = self._redis.connection_pool.connection_kwargs
        self._name = f"Redis at {where.get('host')}:{where.get('port')}"
        self._keep = round(keep_seconds * 1e6)
        with self._errors("opened"):
            self._check()
        self._lock = threading.Lock()
        self._group = GroupCommit(self._commit)

    def submit(self, batch: Batch) -> Future[Appended]:
        """See `EventLog.submit`."""
        return self._group.submit(batch)

    def append(self, batch: Batch) -> Appended:
        """See `EventLog.append`."""
        return self.submit(batch).result()

    def since(self, position: int, limit: int = 10_000) -> pa.Table:
        """See `EventLog.since`."""
        with self._errors("read"):
            about = _about(self._redis.hget(_LOG, "about"))
            limit = max(0, min(limit, about["end"] - position))
            names = [f"r{position + place}" for place in range(1, limit + 1)]
            # One command, so that nothing is dropped between two of them.
            text, *texts = self._redis.hmget(_LOG, ["about", *names])
        about = _about(text)
        start = max([about["start"], *_gone(texts, position + 1)])
        if position < start:
            raise dropped(self._name, position, start)
        return table([_row(position + place, text) for place, text in enumerate(texts, 1)], about)

    def state(self) -> LogState:
        """See `EventLog.state`."""
        with self._errors("read"):
            about = _about(self._redis.hget(_LOG, "about"))
            size = self._redis.info("memory")["used_memory"]
        return LogState(about["start"], about["end"], about["waiting"], size, about.get("newest"))

    def compact(self, before: int) -> Dropped:
        """See `EventLog.compact`."""
        until = now() - self._keep
        rows = self._drop_rows(before, until)
        return Dropped(rows, self._drop_waiting(until))

    def close(self) -> None:
        """See `EventLog.close`."""
        self._group.close()
        self._redis.close()

    def _commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Writes the requests that are not refused, with one command."""
        records = [record for batch in batches for record in batch.records]
        names = {"about"}
        for record in records:
            names |= {f"e{record.event_id}", f"i{record.impression_id}", f"w{record.impression_id}"}
        clicked = {record.impression_id for record in records if record.shown is None}

        def change(read: Read) -> tuple[Any, dict[str, str]]:
            found = read(names)
            lists = [json.loads(found[name]) for one in clicked if (name := f"i{one}") in found]
            found |= read(f"r{position}" for _, position, _ in lists)
            changes: dict[str, str] = {}
            outcomes: list[Outcome] = []
            for batch in batches:
                own: dict[str, str] = {}
                try:
                    outcomes.append(_append(ChainMap(own, changes, found), batch))
                except SchemaError as error:
                    outcomes.append(error)
                else:
                    changes |= own
            return outcomes, changes

        with self._errors("written"):
            return self._changed(change)

    def _drop_rows(self, before: int, until: int) -> int:
        """Removes old rows that a snapshot holds, with their ids; how many."""
        count = 0
        while True:
            with self._errors("written"):
                about = _about(self._redis.hget(_LOG, "about"))
                first = about["start"] + 1
                last = min(before, about["end"], about["start"] + _DROPPED_AT_ONCE)
                if last < first:
                    return count
                texts = self._redis.hmget(_LOG, [f"r{at}" for at in range(first, last + 1)])
            gone, names = 0, []
            for position, text in enumerate(texts, first):
                # One that is not there was removed by a compaction that came no further.
                if text is not None:
                    event_id, late, impression, arrived, _, _ = json.loads(text)
                    if arrived >= until:
                        break
                    names += [f"r{position}", f"e{event_id}"]
                    names += [] if late else [f"i{impression}", f"w{impression}"]
                gone += 1
            if not gone:
                return count
            start = first + gone - 1

            with self._errors("written"):
                if names:
                    self._redis.hdel(_LOG, *names)
                self._changed(partial(_advanced, start))
            count += gone

    def _drop_waiting(self, until: int) -> int:
        """Removes clicks that have waited too long; how many."""

        def change(read: Read) -> tuple[Any, dict[str, str]]:
            about = _about(read(["about"]).get("about"))
            first = about["first"]
            last = min(about["last"], first + _DROPPED_AT_ONCE - 1)
            found = read(f"q{number}" for number in range(first, last + 1))
            changes: dict[str, str] = {}
            gone, dropped = [], 0
            for number in range(first, last + 1):
                arrived, event_id, impression = json.loads(found[f"q{number}"])
                if arrived >= until:
                    break
                about["first"] = number + 1
                gone.append(f"q{number}")
                name = f"w{impression}"
                waiting = json.loads(changes.get(name) or read([name]).get(name) or "[]")
                others = [click for click in waiting if click[0] != event_id]
                if len(others) < len(waiting):
                    dropped += 1
                    gone.append(f"e{event_id}")
                    changes[name] = json.dumps(others)
            about["waiting"] -= dropped
            emptied = [name for name, text in changes.items() if text == "[]"]
            changes["about"] = json.dumps(about)
            return (gone, emptied, dropped), changes if gone else {}

        count = 0
        while True:
            with self._errors("written"):
                gone, emptied, dropped = self._changed(change)
                if not gone:
                    return count
                self._changed(partial(_tidied, gone, emptied))
            count += dropped

    def _changed(
        self, change: Callable[[Read], tuple[Result, dict[str, str] | list[str]]]
    ) -> Result:
        """Changes some fields, as if nobody else did at the same time.

        Args:
            change: is given what reads fields, and gives a result, and the fields that change with
                what they become, or the names of those that go. It is called again where somebody
                else was quicker.
        """
        while True:
            with self._lock, self._redis.pipeline() as pipe:
                pipe.watch(_LOG)

                def read(names: Iterable[str], pipe: Any = pipe) -> dict[str, str]:
                    names = list(names)
                    texts = pipe.hmget(_LOG, names) if names else []
                    return {
                        name: text
                        for name, text in zip(names, texts, strict=True)
                        if text is not None
                    }

                result, changes = change(read)
                if not changes:
                    return result
                pipe.multi()
                if isinstance(changes, dict):
                    pipe.hset(_LOG, mapping=changes)
                else:
                    pipe.hdel(_LOG, *changes)
                try:
                    pipe.execute()
                except redis.WatchError:
                    continue
                return result

    def _check(self) -> None:
        """Refuses a Redis that is too old, and warns of one that may lose events."""
        version = str(self._redis.info("server").get("redis_version", "?"))
        if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < _OLDEST:
            raise redis.RedisError(f"it must be version {_OLDEST} or newer, and is {version}")
        _about(self._redis.hget(_LOG, "about"))
        try:
            found = {name: self._redis.config_get(name).get(name) for name in _NEEDED}
        except redis.ResponseError:  # a hosted one, which lets nobody ask
            return
        wrong = [f"{name} {found[name]}" for name in _NEEDED if found[name] != _NEEDED[name]]
        if wrong:
            logger.warning(
                "%s must have %s, or it may lose events that were acknowledged. Received: %s.",
                self._name,
                ", ".join(map(" ".join, _NEEDED.items())),
                ", ".join(wrong),
            )

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise StorageError(
                f"{self._name}: the event log could not be {verb}: {str(error).rstrip('.')}."
            ) from error


def _advanced(start: int, read: Read) -> tuple[None, dict[str, str]]:
    """`about`, for a log whose rows up to a position are gone."""
    about = _about(read(["about"]).get("about"))
    about["start"] = max(about["start"], start)
    return None, {"about": json.dumps(about)}


def _tidied(gone: list[str], emptied: list[str], read: Read) -> tuple[None, list[str]]:
    """Fields to remove: some, and those of others for which nobody waits."""
    found = read(emptied)
    return None, gone + [name for name in emptied if found.get(name) == "[]"]


def _about(text: str | None) -> dict[str, Any]:
    """The field `about`, or what it is before the first event."""
    if text is None:
        return {"format": _FORMAT, "start": 0, "end": 0, "first": 1, "last": 0, "waiting": 0}
    about = json.loads(text)
    if about.get("format") != _FORMAT:
        raise redis.RedisError("it is of a newer release")
    return about


def _append(fields: MutableMapping[str, str], batch: Batch) -> Appended:
    """Writes one request's events into the fields."""
    about = _about(fields.get("about"))
    for thing, found in batch.families.items():
        if about.setdefault(thing, found[0]) != found[0]:
            raise mixed(thing, (about[thing], "earlier events"), found)
    about["arrived"] = max(now(), about.get("arrived", 0))
    times = [record.time for record in batch.records if record.time is not None]
    if times:
        about["newest"] = max([about.get("newest", times[0]), *times])
    accepted = sum([_add(fields, about, record) for record in batch.records])
    fields["about"] = json.dumps(about)
    return Appended(accepted, len(batch.records) - accepted, about["end"])


def _add(fields: MutableMapping[str, str], about: dict[str, Any], record: Record) -> bool:
    """Writes an event, unless the log has it already. Whether it is new."""
    event, impression = f"e{record.event_id}", f"i{record.impression_id}"
    known = fields.get(event)
    if known is not None:
        if known != record.digest:
            raise another_event(record)
        return False
    if record.shown is None:
        _add_click(fields, about, record)
    else:
        known = fields.get(impression)
        if known is not None:
            if json.loads(known)[0] != record.digest:
                raise another_impression(record)
            return False
        position = _add_row(fields, about, record, False, record.shown, record.clicked)
        fields[impression] = json.dumps([record.digest, position, record.clicked or ()])
        waiting = json.loads(fields.get(f"w{record.impression_id}", "[]"))
        for event_id, clicked in waiting:
            _add_click(fields, about, record._replace(event_id=event_id, clicked=tuple(clicked)))
        if waiting:
            about["waiting"] -= len(waiting)
            fields[f"w{record.impression_id}"] = "[]"
    fields[event] = record.digest
    return True


def _add_click(fields: MutableMapping[str, str], about: dict[str, Any], record: Record) -> None:
    name = f"i{record.impression_id}"
    known = fields.get(name)
    if known is None:
        waiting = json.loads(fields.get(f"w{record.impression_id}", "[]"))
        waiting.append([record.event_id, record.clicked])
        fields[f"w{record.impression_id}"] = json.dumps(waiting)
        about["waiting"] += 1
        about["last"] += 1
        waiter = [about["arrived"], record.event_id, str(record.impression_id)]
        fields[f"q{about['last']}"] = json.dumps(waiter)
        return
    digest, position, before = json.loads(known)
    shown = json.loads(fields[f"r{position}"])[4]
    new = tuple(one for one in record.clicked or () if one not in before)
    fields[name] = json.dumps([digest, position, [*before, *new]])
    _add_row(fields, about, record, True, shown, new)


def _add_row(
    fields: MutableMapping[str, str],
    about: dict[str, Any],
    record: Record,
    late: bool,
    shown: str,
    clicked: tuple[str, ...] | None,
) -> int:
    """Writes a row; its position."""
    about["end"] += 1
    row = [record.event_id, late, str(record.impression_id), about["arrived"], shown]
    fields[f"r{about['end']}"] = json.dumps([*row, clicks_json(clicked)])
    return about["end"]


def _row(position: int, text: str) -> Row:
    event_id, late, _, _, shown, clicked = json.loads(text)
    return Row(position, event_id, late, shown, clicked)


def _gone(texts: list[str | None], first: int) -> list[int]:
    """Positions of rows that a compaction has removed which came no further."""
    return [position for position, text in enumerate(texts, first) if text is None]
