"""Where a log is kept, as a setting says it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from nrms.errors import ConfigError
from nrms.events.log import EventLog
from nrms.events.sqlite_log import SqliteLog

DEFAULT = "sqlite:///runs/events.sqlite"

_SQLITE = "sqlite:///"


def check(url: str) -> None:
    """Raises ConfigError where the address names no log that could be opened."""
    if not url.startswith(_SQLITE) or url == _SQLITE:
        # What stands behind the scheme may hold a password.
        scheme = urlsplit(url).scheme
        raise ConfigError(
            "EVENTS_URL must be sqlite:///PATH. "
            f"Received: {f'{scheme}:...' if scheme else 'no scheme'}. "
            "PATH is relative to the working folder, and with one more slash absolute."
        )


def open_log(url: str, keep_seconds: float) -> EventLog:
    """Opens the log at an address.

    Args:
        url: `sqlite:///PATH`.
        keep_seconds: how long ids of events, and impressions for late clicks, are kept.

    Raises:
        ConfigError: the address is wrong.
        StorageError: the log cannot be opened now.
    """
    check(url)
    return SqliteLog(Path(url.removeprefix(_SQLITE)), keep_seconds)
