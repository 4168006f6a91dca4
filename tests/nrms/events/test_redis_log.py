"""The log in Redis: what is acknowledged outlives the server, and what the server must be like."""

import logging
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from nrms.data.schema import CLICKS
from nrms.errors import StorageError
from nrms.events.address import open_log
from nrms.events.log import EventLog
from tests.clients import until
from tests.nrms.events.conftest import KEEP
from tests.nrms.events.events import append, click, clicks, impression, positions, rows
from tests.redis_server import RedisServer
from tests.scale import scaled

pytestmark = pytest.mark.system

KILLS = scaled(50)
THREADS = 4


@pytest.fixture
def own_server(tmp_path):
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def test_killed_it_loses_nothing_that_was_acknowledged_and_doubles_nothing(own_server):
    url = own_server.url()
    numbers = iter(range(10**6))
    done: list[list[dict]] = []
    open_requests: list[list[dict]] = []
    lock = threading.Lock()

    def send(log: EventLog) -> None:
        while True:
            with lock:
                first, second = next(numbers), next(numbers)
            request = [impression(first), click(second), click(first), impression(second)]
            try:
                append(log, *request)
            except StorageError:
                open_requests.append(request)
                return
            done.append(request)

    chance = random.Random(random.SystemRandom().randrange(2**32))
    for _ in range(KILLS):
        log = open_log(url, KEEP)
        for request in open_requests:  # some of it was written before the kill, and some was not
            assert append(log, *request)[:2] in ((4, 0), (0, 4))
            done.append(request)
        open_requests.clear()
        enough = len(done) + chance.randrange(200)
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in range(THREADS):
                pool.submit(send, log)
            until(lambda enough=enough: len(done) >= enough, "requests that are acknowledged")
            own_server.kill()
        log.close()
        assert own_server.process.returncode == -signal.SIGKILL
        own_server.start()
    log = open_log(url, KEEP)
    for request in open_requests:
        append(log, *request)
        done.append(request)
    found = rows(log)
    assert positions(found) == list(range(1, len(found) + 1))
    counts = Counter((row["impression_id"], row["late"]) for row in found)
    assert set(counts.values()) == {1}
    assert len(found) == 4 * len(done) >= KILLS
    assert set(counts) == {
        (event["impression_id"], "user_id" not in event) for request in done for event in request
    }
    assert log.state().waiting == 0
    log.close()


def test_a_server_that_does_not_answer_is_one_line_without_the_password(own_server):
    url = own_server.url().replace("//", "//:secret@")
    own_server.ask("CONFIG SET requirepass secret")
    log = open_log(url, KEEP)
    append(log, impression(1))
    with pytest.raises(StorageError, match="could not be opened"):
        open_log(url.replace("secret", "wrong"), KEEP)
    own_server.kill()
    for action in (
        lambda: append(log, impression(2)),
        lambda: rows(log),
        log.state,
        lambda: log.compact(1),
        lambda: open_log(url, KEEP),
    ):
        with pytest.raises(StorageError) as refused:
            action()
        assert str(refused.value).startswith(f"Redis at 127.0.0.1:{own_server.port}: the event log")
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
    log.close()


def test_a_server_without_memory_takes_no_event_until_it_has_some(own_server):
    log = open_log(own_server.url(), KEEP)
    append(log, impression(1))
    own_server.ask("CONFIG SET maxmemory 1")
    with pytest.raises(StorageError, match="used memory > 'maxmemory'"):
        append(log, impression(2), click(1))
    assert clicks(log) == [(1, False, [2])]
    own_server.ask("CONFIG SET maxmemory 0")
    assert append(log, impression(2), click(1)) == (2, 0, 3)
    log.close()


@pytest.mark.parametrize(
    ("flags", "warns"),
    [
        ((), False),
        (("--appendfsync", "everysec"), True),
        (("--appendonly", "no"), True),
        (("--maxmemory-policy", "allkeys-lru"), True),
        (("--rename-command", "CONFIG", ""), False),
    ],
)
def test_a_server_that_may_lose_events_is_a_warning(tmp_path, caplog, flags, warns):
    server = RedisServer(tmp_path, *flags)
    try:
        with caplog.at_level(logging.WARNING):
            log = open_log(server.url(), KEEP)
        append(log, impression(1))
        log.close()
    finally:
        server.kill()
    assert ("may lose events that were acknowledged" in caplog.text) == warns
    if warns:
        assert flags[1] in caplog.text


def test_what_is_kept_no_longer_leaves_nothing(own_server):
    log = open_log(own_server.url(), 0)
    append(log, impression(1, **{CLICKS: [1]}), click(1, 2), click(9), click(9, 4))
    assert (log.compact(1).rows, log.compact(2).rows) == (1, 1)
    assert log.state().waiting == 0
    assert own_server.ask("HLEN nrms:events") == b":1\r\n"  # `about`
    assert append(log, impression(9, **{CLICKS: []})) == (1, 0, 3)
    assert clicks(log, 2) == [(9, False, [])]
    log.close()


def test_no_change_takes_more_than_one_command(own_server, tmp_path):
    """Redis would write several between MULTI and EXEC, and mend that wrong when it was killed."""
    log, other = (open_log(url, 0) for url in [own_server.url()] * 2)
    with ThreadPoolExecutor(2) as pool:
        for one in (log, other):
            for number in range(50):
                pool.submit(append, one, impression(number), click(number), click(number + 1))
    log.compact(40)
    own_server.kill()
    (written,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    assert b"HSET" in written.read_bytes()
    assert b"MULTI" not in written.read_bytes()
    log.close()
    other.close()


def test_an_older_redis_is_refused_in_one_line(own_server, monkeypatch):
    monkeypatch.setattr("nrms.events.redis_log._OLDEST", 99)
    with pytest.raises(StorageError) as refused:
        open_log(own_server.url(), KEEP)
    assert "could not be opened: it must be version 99 or newer, and is" in str(refused.value)
