"""Which addresses name a log."""

import pytest

from nrms.errors import ConfigError
from nrms.events import address
from nrms.events.sqlite_log import SqliteLog


@pytest.mark.parametrize(
    "url",
    [
        address.DEFAULT,
        "sqlite:////var/lib/events.sqlite",
        "redis://host",
        "redis://host/",
        "rediss://me:secret@host:6380/3",
        "redis://:secret@[::1]:6379/0",
    ],
)
def test_an_address_of_a_log_is_taken(url):
    address.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "events.sqlite",
        "sqlite:///",
        "sqlite://events.sqlite",
        "mysql://me:secret@host/0",
        "redis://",
        "redis://:secret@",
        "redis://host:secret",
        "redis://host/secret",
        "redis://host:0",
        "REDIS:secret",
    ],
)
def test_another_is_refused_in_one_line_without_its_password(url):
    with pytest.raises(ConfigError) as refused:
        address.check(url)
    message = str(refused.value)
    assert message.startswith("EVENTS_URL must be sqlite:///PATH or redis://")
    assert "secret" not in message
    assert "\n" not in message


def test_without_its_package_redis_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(address, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Run pip install redis\."):
        address.check("redis://host")


def test_a_path_is_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = address.open_log("sqlite:///runs/events.sqlite", 1)
    log.close()
    assert isinstance(log, SqliteLog)
    assert (tmp_path / "runs/events.sqlite").exists()
