"""A Redis of its own, which writes as the docs say that one must."""

import socket
import subprocess
import time
from pathlib import Path

from tests.tools import tool

LOGS = 20_000  # databases, of which each log takes one


class RedisServer:
    """A process; what it has written survives `kill` and `start` in that folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._command = [
            *(tool("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", "--databases", str(LOGS)),
            *("--appendonly", "yes", "--appendfsync", "always"),
            *flags,
        ]
        self._log = folder / "log"
        self._logs = iter(range(LOGS))
        self.start()

    def url(self) -> str:
        """Of a log that is not there yet."""
        return f"redis://127.0.0.1:{self.port}/{next(self._logs)}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while b"PONG" not in self.ask("PING"):
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.02)

    def ask(self, command: str) -> bytes:
        """The beginning of the answer; empty where there is none yet."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(1_000)
        except OSError:
            return b""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
