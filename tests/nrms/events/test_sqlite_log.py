"""The log in a file: what is acknowledged stays, whatever is killed and with a full disk."""

import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from nrms.errors import StorageError
from nrms.events.address import open_log
from nrms.events.sqlite_log import SqliteLog
from tests import kills, scale
from tests.nrms.events.conftest import KEEP
from tests.nrms.events.events import LIMITS, append, batch, click, impression, positions, rows
from tests.small_training import REPOSITORY
from tests.tools import checked, tool

KILLS = scale.scaled(100)
THREADS = 3


def request(number: int, time: int) -> list[dict]:
    """A request: two lists, a click on each; one of them waits for the next request."""
    first, second = (impression(one, impression_time=time) for one in (2 * number, 2 * number + 1))
    return [first, click(2 * number), second, click(2 * number + 2)]


def load(path: Path, start: int, time: int, acknowledged: Connection) -> None:
    """Sends requests from some threads, and tells which were acknowledged, until it is killed."""
    log = SqliteLog(path, KEEP)
    lock = threading.Lock()

    def send(thread: int) -> None:
        for number in range(start + thread, start + 10**6, THREADS):
            append(log, *request(number, time))
            with lock:
                acknowledged.send(number)
            if number % 10 == thread:
                log.compact(10**9)

    for thread in range(THREADS):
        threading.Thread(target=send, args=[thread]).start()


@pytest.mark.system
def test_killed_it_loses_nothing_that_it_acknowledged_and_doubles_nothing(tmp_path):
    path, temporary = tmp_path / "events.sqlite", tmp_path / "temporary"
    temporary.mkdir()
    chance = random.Random(random.SystemRandom().randrange(2**32))
    done: set[int] = set()
    for number in range(KILLS):
        ours, theirs = kills.FORKS.Pipe(duplex=False)
        start = max(done, default=-1) + 1 + 2 * THREADS
        process = kills.start(load, path, start, LIMITS.now, theirs, temporary=temporary)
        theirs.close()
        assert ours.poll(60)
        time.sleep(chance.random() * 0.05)  # until then it runs; there is nothing to wait for
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        try:
            while True:
                done.add(ours.recv())
        except EOFError:
            ours.close()
        if number % 4 == 3 or number == KILLS - 1:
            check(path, done)
    assert len(done) >= KILLS


def check(path: Path, done: set[int]) -> None:
    log = open_log(f"sqlite:///{path}", KEEP)
    try:
        found = rows(log)
        assert positions(found) == list(range(1, len(found) + 1))
        counts = Counter((row["impression_id"], row["late"]) for row in found)
        for number in done:
            assert {(2 * number, False), (2 * number, True), (2 * number + 1, False)} <= set(counts)
        # Requests are there whole: the second list never without the first.
        firsts = {key for key, late in counts if not late and key % 2 == 0}
        assert {key - 1 for key, late in counts if not late and key % 2} == firsts
        assert len({row["event_id"] for row in found}) == len(found)
        assert all(count == 1 for (_, late), count in counts.items() if not late)
        some = sorted(done)[-20:]
        for number in some:
            assert append(log, *request(number, LIMITS.now))[:2] == (0, 4)
        assert rows(log) == found
    finally:
        log.close()


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="strace is for Linux")
def test_nothing_is_acknowledged_before_it_is_on_the_disk(tmp_path):
    """Between the end of one request and that of the next there is an fdatasync of the log."""
    code = (
        "import os, sys; from pathlib import Path; from nrms.events.sqlite_log import SqliteLog; "
        "from tests.nrms.events.events import append, impression\n"
        "log = SqliteLog(Path(sys.argv[1]), 1e9)\n"
        "for number in range(20):\n"
        "    append(log, impression(number)); os.write(1, b'acknowledged\\n')\n"
        "log.close()"
    )
    trace = tmp_path / "trace"
    filters = ["-f", "-y", "-e", "trace=fdatasync,fsync,write", "-o", trace]
    command = [sys.executable, "-c", code, tmp_path / "events.sqlite"]
    checked(tool("strace"), *filters, *command, cwd=REPOSITORY)
    synced, acknowledged = False, 0
    for line in trace.read_text().splitlines():
        if "sync(" in line and "events.sqlite-wal" in line:
            synced = True
        elif '"acknowledged\\n"' in line:
            assert synced, f"request {acknowledged} was acknowledged too early"
            synced, acknowledged = False, acknowledged + 1
    assert acknowledged == 20


def test_many_small_requests_share_a_transaction(tmp_path):
    """While one is being written, those that come are gathered."""
    log = SqliteLog(tmp_path / "events.sqlite", KEEP)
    blocker = sqlite3.connect(log._path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    futures = [log.submit(batch(impression(number))) for number in range(300)]
    blocker.execute("ROLLBACK")
    assert sorted(future.result().position for future in futures) == list(range(1, 301))
    frames = (tmp_path / "events.sqlite-wal").stat().st_size // 4096
    log.close()
    assert frames < 150  # each transaction writes some pages


@pytest.mark.system
def test_a_full_disk_refuses_events_until_there_is_room_and_loses_none(disk):
    log = SqliteLog(disk.path / "events.sqlite", KEEP)
    accepted = []
    for number in range(20):
        accepted.append(number)
        append(log, impression(number))
    disk.leave(100_000)
    failed = None
    for number in range(20, 5_000):
        try:
            append(log, *(impression(100 * number + place) for place in range(100)))
            accepted += [100 * number + place for place in range(100)]
        except StorageError as error:
            failed = error
            break
    assert failed is not None
    assert str(failed).startswith(f"{disk.path}/events.sqlite: the event log could not be written:")
    assert [row["impression_id"] for row in rows(log)] == accepted
    disk.clear()
    again = [impression(100 * number + place) for place in range(100)]
    assert append(log, *again)[:2] == (100, 0)
    log.close()
    log = SqliteLog(disk.path / "events.sqlite", KEEP)
    assert len(rows(log)) == len(accepted) + 100
    log.close()


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


def newer(path: Path) -> None:
    SqliteLog(path, KEEP).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("no database" * 99), "file is not a database"),
        (other_database, "it is another database, or of a newer release"),
        (newer, "it is another database, or of a newer release"),
        (Path.mkdir, "unable to open database file"),
    ],
)
def test_what_is_no_event_log_is_refused_in_one_line(tmp_path, make, reason):
    path = tmp_path / "events.sqlite"
    make(path)
    with pytest.raises(StorageError) as refused:
        SqliteLog(path, KEEP)
    assert str(refused.value) == f"{path}: the event log could not be opened: {reason}."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "folder").mkdir(0o500)
    with pytest.raises(StorageError, match="could not be opened"):
        SqliteLog(tmp_path / "folder" / "events.sqlite", KEEP)


def test_a_log_that_has_gone_bad_is_refused_and_not_followed(tmp_path):
    path = tmp_path / "events.sqlite"
    log = SqliteLog(path, KEEP)
    append(log, *map(impression, range(500)))
    log.close()
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = bytes(len(data) - 4096)
    path.write_bytes(data)
    log = SqliteLog(path, KEEP)
    with pytest.raises(StorageError, match="could not be read"):
        rows(log)
    with pytest.raises(StorageError, match="could not be written"):
        append(log, impression(7))
    log.close()
