"""Clients of a running service that go on all the time, stall or vanish; and a look at its
processes and metrics.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.service import RunningService, parquet

BOUNDARY = "boundary"


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> object:
    """Asks until there is an answer that is true, and gives that."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return found


def series(service: RunningService, name: str, **labels: str) -> float:
    """The value of one series of a metric; 0 where there is none."""
    families = text_string_to_metric_families(service.client.get("/metrics").text)
    found = [
        s.value
        for family in families
        for s in family.samples
        if s.name == name and labels.items() <= s.labels.items()
    ]
    return sum(found)


def log_lines(service: RunningService) -> list[dict]:
    """What the service has logged, each line an object."""
    return [json.loads(line) for line in service.log.read_text().splitlines()]


def children(pid: int) -> list[int]:
    """The running processes whose parent is this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


class Sending:
    """A request over a socket of its own, whose body is sent piece by piece; a context manager."""

    def __init__(self, service: RunningService, path: str, kind: str, body: bytes) -> None:
        self.body = body
        self.sent = 0
        host, _, port = service.url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: {host}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(self.body)}",
        ]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())

    def send(self, size: int | None = None) -> Self:
        """Sends the next bytes, all that are left unless told how many."""
        end = len(self.body) if size is None else self.sent + size
        self.socket.sendall(self.body[self.sent : end])
        self.sent = end
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body, once the service has closed the connection or sent all that it
        announced.
        """
        stream = self.socket.makefile("rb")
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, stream.read(int(headers["content-length"]))

    def closed(self) -> bool:
        """Waits for the end of the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def vanish(self) -> None:
        """Ends the connection, as a client does that has crashed."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Upload(Sending):
    """An upload."""

    def __init__(self, service: RunningService, file: bytes, history: bytes) -> None:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        super().__init__(service, "/predict", kind, self.form(file, history))

    @staticmethod
    def form(file: bytes, history: bytes) -> bytes:
        """The body of an upload."""
        parts = b"".join(
            (
                f"--{BOUNDARY}\r\n"
                f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'
            ).encode()
            + content
            + b"\r\n"
            for name, content in (("file", file), ("history", history))
        )
        return parts + f"--{BOUNDARY}--\r\n".encode()


class Load:
    """Clients that upload the same rows again and again while the block runs; afterwards `answers`
    has every answer.
    """

    def __init__(self, service: RunningService, world, rows: int = 50, clients: int = 3) -> None:
        self.answers: list[httpx.Response] = []
        self.faults: list[Exception] = []
        self._service = service
        self._files = {"file": parquet(world.behaviors(rows)), "history": parquet(world.history())}
        self._stop = threading.Event()
        self._counts = [0] * clients
        self._threads = [
            threading.Thread(target=self._run, args=[client]) for client in range(clients)
        ]

    def round(self) -> None:
        """Waits until every client has sent an upload and had its answer, from now on."""
        enough = [count + 2 for count in self._counts]
        until(lambda: all(map(int.__ge__, self._counts, enough)), "an answer for every client")

    def statuses(self) -> set[int]:
        """The statuses of all answers so far."""
        return {answer.status_code for answer in self.answers}

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._service.url, timeout=60, verify=False) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(
                        client.post("/predict", files=self._files, params={"max_rows": 10_000})
                    )
                except httpx.TransportError as error:
                    self.faults.append(error)
                self._counts[number] += 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
