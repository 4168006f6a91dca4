"""Score uploads on demand, and serve a page for people. The settings are environment variables."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from api.app import create_app
from api.connections import Server, most_connections
from api.settings import Settings
from nrms import logs
from nrms.config import environment_help, parse_environment
from nrms.errors import ConfigError
from nrms.events import address


def command(argv: Sequence[str] | None = None, prog: str = "python -m api") -> NoReturn:
    """The service as a command without flags, see `main`."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in ("-h", "--help"):
        print(environment_help(Settings, prog, __doc__ or ""))  # noqa: T201  as every job does
        sys.exit(0)
    if words:
        sys.exit(
            _failed(
                "the service's settings must be environment variables. "
                f"Received: the argument {words[0]!a}. See {prog} --help.",
                2,
            )
        )
    sys.exit(main())


def main() -> int:
    """Serves until a signal ends it.

    Returns:
        The exit code: 0, or 1 when the address cannot be had, or 2 for a wrong setting.
    """
    try:
        settings = parse_environment(Settings, os.environ)
        if settings.events:
            address.check(settings.events_url)
        most = most_connections(settings)
    except ConfigError as error:
        return _failed(str(error), 2)
    try:
        listener = socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
        )
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0].rstrip(".")
        return _failed(
            "The service must be able to listen at HOST and PORT. "
            f"Received: {settings.host}:{settings.port}, {reason}. "
            "Stop what listens there, or set another PORT.",
            1,
        )
    logs.to_stderr()
    # On WARNING it would log every request that is not valid HTTP.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # After an orderly end uvicorn sends itself once more the signal that ended it. Without these
    # handlers the process would look as if it had been killed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    app = create_app(settings)
    Server(app, settings, app.state.service.metrics, most).run([listener])
    return 0


def _failed(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)  # noqa: T201  as every job does
    return code


if __name__ == "__main__":
    command()
