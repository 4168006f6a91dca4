"""Where a log is kept, as a setting says it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from nrms.errors import ConfigError
from nrms.events.log import EventLog
from nrms.events.sqlite_log import SqliteLog

DEFAULT = "sqlite:///runs/events.sqlite"

_SQLITE = "sqlite:///"
_REDIS = ("redis://", "rediss://")


def check(url: str) -> None:
    """Raises ConfigError where the address names no log that could be opened."""
    scheme, _, rest = url.partition("://")
    # What stands behind the scheme may hold a password.
    received = f"{scheme}://" if rest else "no address"
    if url.startswith(_REDIS):
        try:
            parts = urlsplit(url)
            complete = parts.hostname and parts.port != 0 and re.fullmatch("/?|/[0-9]+", parts.path)
        except ValueError:  # a port that is no number
            complete = False
        if complete and find_spec("redis") is None:
            raise ConfigError(
                "EVENTS_URL=redis://... needs the package redis. Received: it is not installed. "
                "Run pip install redis."
            )
        if complete:
            return
    elif url.startswith(_SQLITE) and url != _SQLITE:
        return
    raise ConfigError(
        "EVENTS_URL must be sqlite:///PATH or redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER]. "
        f"Received: {received}. PATH is relative to the working folder, and absolute with one more "
        "slash."
    )


def open_log(url: str, keep_seconds: float) -> EventLog:
    """Opens the log at an address.

    Args:
        url: `sqlite:///PATH` or `redis://HOST`.
        keep_seconds: how long ids of events, and impressions for late clicks, are kept.

    Raises:
        ConfigError: the address is wrong.
        StorageError: the log cannot be opened now.
    """
    check(url)
    if url.startswith(_REDIS):
        from nrms.events.redis_log import RedisLog

        return RedisLog(url, keep_seconds)
    return SqliteLog(Path(url.removeprefix(_SQLITE)), keep_seconds)
