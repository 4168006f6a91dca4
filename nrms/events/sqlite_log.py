"""An event log in one file of SQLite, for one service, or for several on one machine.

All requests that wait are written in one transaction, so that many small ones share one fsync. Each
is a savepoint of it, so that one that is refused takes nothing from the others. With a write-ahead
log and `synchronous=FULL` a transaction is on the disk when COMMIT returns.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from nrms.errors import SchemaError, StorageError
from nrms.events.event import mixed, now
from nrms.events.group_commit import GroupCommit, Outcome
from nrms.events.log import Appended, Dropped, LogState
from nrms.events.records import Batch, Record, Row, clicks_json, clicks_of, table
from nrms.events.refusals import another_event, another_impression, dropped

_FORMAT = 1
_SCHEMA = f"""
CREATE TABLE log (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    impression_id NOT NULL,       -- an integer or a text, as it came
    late INTEGER NOT NULL,
    arrived INTEGER NOT NULL,     -- microseconds since 1970, never less than in the row before
    shown TEXT NOT NULL,          -- the impression without its clicks, JSON
    clicked TEXT NOT NULL         -- JSON
);
CREATE INDEX impressions ON log (impression_id);
-- Late clicks whose impression has not arrived.
CREATE TABLE waiting (
    place INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    impression_id NOT NULL,
    arrived INTEGER NOT NULL,
    clicked TEXT NOT NULL
);
CREATE INDEX waiting_for ON waiting (impression_id);
-- The type of the ids of each thing, and the latest time of an impression.
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
PRAGMA user_version = {_FORMAT};
"""
_BUSY_SECONDS = 10.0  # another process may write for so long
_DROPPED_AT_ONCE = 1_000  # rows, so that no request waits long for a compaction


class SqliteLog:
    """See `nrms.events.log.EventLog`.

    Args:
        path: the file; made where it is missing, with its folder.
        keep_seconds: how long ids of events, and impressions for late clicks, are kept.

    Raises:
        StorageError: the file cannot be made, or is something else.
    """

    def __init__(self, path: Path, keep_seconds: float) -> None:
        self._path = path
        self._keep = round(keep_seconds * 1e6)
        with self._errors("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writing = self._connect()
            self._reading = self._connect()
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        self._group = GroupCommit(self._commit)

    def submit(self, batch: Batch) -> Future[Appended]:
        """See `EventLog.submit`."""
        return self._group.submit(batch)

    def append(self, batch: Batch) -> Appended:
        """See `EventLog.append`."""
        return self.submit(batch).result()

    def since(self, position: int, limit: int = 10_000) -> pa.Table:
        """See `EventLog.since`."""
        with self._errors("read"), self._read_lock, _transaction(self._reading, "DEFERRED"):
            start = _start(self._reading)
            if position < start:
                raise dropped(str(self._path), position, start)
            found = self._reading.execute(
                "SELECT position, event_id, late, shown, clicked FROM log WHERE position > ? "
                "ORDER BY position LIMIT ?",
                (position, limit),
            ).fetchall()
            types = dict(self._reading.execute("SELECT name, value FROM about"))
        return table([Row(*row) for row in found], types)

    def state(self) -> LogState:
        """See `EventLog.state`."""
        with self._errors("read"), self._read_lock, _transaction(self._reading, "DEFERRED"):
            (waiting,) = self._reading.execute("SELECT count(*) FROM waiting").fetchone()
            about = dict(self._reading.execute("SELECT name, value FROM about"))
            start, end = _start(self._reading), _end(self._reading)
        files = [self._path, self._path.with_name(self._path.name + "-wal")]
        size = sum(file.stat().st_size for file in files if file.exists())
        return LogState(start, end, waiting, size, about.get("newest"))

    def compact(self, before: int) -> Dropped:
        """See `EventLog.compact`."""
        until, rows, more = now() - self._keep, 0, True
        with self._errors("written"):
            while more:
                with self._write_lock, _transaction(self._writing, "IMMEDIATE"):
                    cursor = self._writing.execute(
                        "DELETE FROM log WHERE position <= ? AND arrived < ? AND position <= "
                        "(SELECT min(position) FROM log) + ?",
                        (before, until, _DROPPED_AT_ONCE),
                    )
                rows, more = rows + cursor.rowcount, cursor.rowcount > _DROPPED_AT_ONCE
            with self._write_lock, _transaction(self._writing, "IMMEDIATE"):
                cursor = self._writing.execute("DELETE FROM waiting WHERE arrived < ?", (until,))
        return Dropped(rows, cursor.rowcount)

    def close(self) -> None:
        """See `EventLog.close`."""
        self._group.close()
        self._writing.close()
        self._reading.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system allows no write-ahead log, but {mode}")
        connection.execute("PRAGMA synchronous = FULL")
        # On macOS fsync alone leaves data in the disk's own memory.
        connection.execute("PRAGMA fullfsync = ON")
        with _transaction(connection, "IMMEDIATE"):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 0 and tables == 0:
                # Not by `executescript`, which would end the transaction.
                for statement in filter(str.strip, _SCHEMA.split(";\n")):
                    connection.execute(statement)
            elif version != _FORMAT:
                raise sqlite3.DatabaseError("it is another database, or of a newer release")
        return connection

    def _commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        with (
            self._errors("written"),
            self._write_lock,
            _transaction(self._writing, "IMMEDIATE"),
        ):
            return [self._attempt(batch) for batch in batches]

    def _attempt(self, batch: Batch) -> Outcome:
        """Writes one request's events, or none of them."""
        self._writing.execute("SAVEPOINT request")
        try:
            outcome: Outcome = self._write(batch)
        except SchemaError as error:
            self._writing.execute("ROLLBACK TO request")
            outcome = error
        self._writing.execute("RELEASE request")
        return outcome

    def _write(self, batch: Batch) -> Appended:
        about = dict(self._writing.execute("SELECT name, value FROM about"))
        for thing, found in batch.families.items():
            if about.setdefault(thing, found[0]) != found[0]:
                raise mixed(thing, (about[thing], "earlier events"), found)
        last = self._writing.execute("SELECT arrived FROM log ORDER BY position DESC LIMIT 1")
        arrived = max(now(), *(last.fetchone() or (0,)))
        accepted = sum([self._add(record, arrived) for record in batch.records])
        times = [record.time for record in batch.records if record.time is not None]
        about["newest"] = max([about.get("newest") or 0, *times]) or None
        self._writing.executemany("REPLACE INTO about VALUES (?, ?)", about.items())
        return Appended(accepted, len(batch.records) - accepted, _end(self._writing))

    def _add(self, record: Record, arrived: int) -> bool:
        """Writes an event, unless the log has it already. Whether it is new."""
        known = self._writing.execute(
            "SELECT digest FROM log WHERE event_id = :id "
            "UNION ALL SELECT digest FROM waiting WHERE event_id = :id",
            {"id": record.event_id},
        ).fetchone()
        if known is not None:
            if known[0] != record.digest:
                raise another_event(record)
            return False
        if record.shown is None:
            self._add_click(record, arrived)
            return True
        known = self._writing.execute(
            "SELECT digest FROM log WHERE impression_id = ? AND NOT late", (record.impression_id,)
        ).fetchone()
        if known is not None:
            if known[0] != record.digest:
                raise another_impression(record)
            return False
        self._insert(record, False, arrived, record.shown, clicks_json(record.clicked))
        waiting = self._writing.execute(
            "SELECT place, event_id, digest, clicked FROM waiting WHERE impression_id = ? "
            "ORDER BY place",
            (record.impression_id,),
        ).fetchall()
        for place, event_id, digest, clicked in waiting:
            self._writing.execute("DELETE FROM waiting WHERE place = ?", (place,))
            click = record._replace(
                event_id=event_id, digest=digest, shown=None, clicked=tuple(clicks_of(clicked))
            )
            self._add_click(click, arrived)
        return True

    def _add_click(self, record: Record, arrived: int) -> None:
        rows = self._writing.execute(
            "SELECT late, shown, clicked FROM log WHERE impression_id = ? ORDER BY position",
            (record.impression_id,),
        ).fetchall()
        shown = next((shown for late, shown, _ in rows if not late), None)
        if shown is None:
            self._writing.execute(
                "INSERT INTO waiting (event_id, digest, impression_id, arrived, clicked) "
                "VALUES (?, ?, ?, ?, ?)",
                (
                    record.event_id,
                    record.digest,
                    record.impression_id,
                    arrived,
                    clicks_json(record.clicked),
                ),
            )
            return
        before = {one for _, _, clicked in rows for one in clicks_of(clicked)}
        new = clicks_json(one for one in record.clicked or () if one not in before)
        self._insert(record, True, arrived, shown, new)

    def _insert(self, record: Record, late: bool, arrived: int, shown: str, clicked: str) -> None:
        self._writing.execute(
            "INSERT INTO log (event_id, digest, impression_id, late, arrived, shown, clicked) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.event_id, record.digest, record.impression_id, late, arrived, shown, clicked),
        )

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StorageError(
                f"{self._path}: the event log could not be {verb}: {reason}."
            ) from error


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """In the block, a transaction, which an exception undoes."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have undone it already
            connection.execute("ROLLBACK")
        raise


def _start(connection: sqlite3.Connection) -> int:
    """Position before the first row that is still there."""
    (first,) = connection.execute("SELECT min(position) FROM log").fetchone()
    return _end(connection) if first is None else first - 1


def _end(connection: sqlite3.Connection) -> int:
    """Position of the last row ever written."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return found[0] if found else 0
