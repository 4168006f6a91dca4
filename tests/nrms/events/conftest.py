"""A log of each kind."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from nrms.events.address import open_log
from nrms.events.log import EventLog
from tests.redis_server import RedisServer

KEEP = 48 * 3_600.0

Open = Callable[..., EventLog]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[RedisServer]:
    """One for all tests that leave it running."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.system)])
def urls(request, tmp_path) -> Iterator[str]:
    """Places of logs that are not there yet."""
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        return iter(server.url, None)
    return (f"sqlite:///{tmp_path}/folder/{number}.sqlite" for number in itertools.count())


@pytest.fixture
def opened(urls) -> Iterator[Open]:
    """Opens a log, the same one every time unless another is asked for."""
    url = next(urls)
    logs: list[EventLog] = []

    def opened(keep_seconds: float = KEEP, url: str = url) -> EventLog:
        logs.append(open_log(url, keep_seconds))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


@pytest.fixture
def fresh(opened, urls) -> Callable[[], EventLog]:
    """Opens another log every time."""
    return lambda: opened(url=next(urls))


@pytest.fixture
def log(opened) -> EventLog:
    """It, open."""
    return opened()
