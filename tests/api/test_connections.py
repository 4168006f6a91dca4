"""Clients that say nothing, that speak slowly, that do not read: what they cost the others, and how
long they may.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from api.app import create_app
from api.connections import Server
from api.settings import Settings
from tests.clients import BOUNDARY, Upload, log_lines, series, until
from tests.service import RunningService, parquet
from tests.small_training import REPOSITORY

HALF_OPEN = 1_100
HALF_A_HEAD = b"GET /livez HTTP/1.1\r\nHost: "


@pytest.fixture(autouse=True, scope="module")
def many_files():
    """These clients have more files open than a shell allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * HALF_OPEN, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def connect():
    """Opens connections to a service, which send these bytes."""
    with ExitStack() as stack:

        def connect(service: RunningService, count: int, data: bytes) -> list[socket.socket]:
            found = [
                stack.enter_context(socket.create_connection(address(service), 60))
                for _ in range(count)
            ]
            for one in found:
                one.sendall(data)
            return found

        yield connect


def address(service: RunningService) -> tuple[str, int]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return host, int(port)


def ended(connection: socket.socket) -> bool:
    """Whether the service has ended the connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def open_files(service: RunningService) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def test_half_open_connections_keep_nobody_out(world, tmp_path, connect):
    with RunningService(
        tmp_path / "log", files=256, MODEL_URI=world.models, HEAD_SECONDS=600
    ) as service:
        half_open = connect(service, HALF_OPEN, HALF_A_HEAD)
        # No time is over yet: the newcomer has the place of the one that has said nothing for
        # longest.
        for _ in range(10):
            with socket.create_connection(address(service), 60) as other:
                other.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert other.recv(1_000).startswith(b"HTTP/1.1 200 ")
        assert open_files(service) < 256
        assert series(service, "nrms_connections_cut_total", reason="no_room") > HALF_OPEN - 256
        assert ended(half_open[0])
        assert not ended(half_open[-1])
        assert (
            service.predict(parquet(world.behaviors(20)), parquet(world.history())).status_code
            == 200
        )
        assert not [line for line in log_lines(service) if line["level"] != "INFO"]


def test_the_head_of_a_request_has_its_time_however_steadily_it_comes(world, tmp_path, connect):
    with RunningService(tmp_path / "log", MODEL_URI=world.models, HEAD_SECONDS=0.5) as service:
        silent, *stalled = connect(service, 5, b"")
        for one in stalled:
            one.sendall(HALF_A_HEAD)
        (second,) = connect(service, 1, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert second.recv(1_000).startswith(b"HTTP/1.1 200 ")
        second.sendall(HALF_A_HEAD)
        (trickling,) = connect(service, 1, HALF_A_HEAD)
        while not ended(trickling):
            try:
                trickling.send(b"a")
            except OSError:
                break
        until(lambda: all(map(ended, [silent, *stalled, second])), "the end of the connections")
        assert series(service, "nrms_connections_cut_total", reason="head_too_slow") >= 7
        # It is the head's time alone: an upload takes longer.
        with Upload(service, parquet(world.behaviors(20)), parquet(world.history())) as upload:
            upload.send(100)
            (silent,) = connect(service, 1, b"")
            until(lambda: ended(silent), "the end of a later connection")
            assert upload.send().answer()[0] == 200


def test_newcomers_end_no_upload_that_has_a_place(world, tmp_path, connect):
    limits = {"MAX_CONNECTIONS": 4, "WORKERS": 1, "QUEUE_SIZE": 1, "HEAD_SECONDS": 600}
    with RunningService(tmp_path / "log", MODEL_URI=world.models, **limits) as service:
        files = parquet(world.behaviors(20)), parquet(world.history())
        with (
            Upload(service, *files) as first,
            Upload(service, *files) as second,
            Upload(service, *files) as third,
        ):
            for upload in (first, second):
                upload.send(100)
            until(lambda: service.metric("nrms_requests_in_flight") == 2, "two uploads")
            third.send(100)  # there are two places
            connect(service, 50, HALF_A_HEAD)
            assert service.client.get("/livez").status_code == 200
            assert [upload.send().answer()[0] for upload in (first, second)] == [200, 200]
            assert third.closed() or third.answer()[0] == 429


def test_connections_that_cannot_be_accepted_are_noted_once(world, tmp_path, connect):
    with RunningService(tmp_path / "log", MODEL_URI=world.models) as service:
        service.client.close()
        pid = service.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files(service) + 5, hard))
        held = connect(service, 100, HALF_A_HEAD)
        until(lambda: "cannot be accepted" in service.log.read_text(), "a line in the log")
        for one in held:
            one.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        with socket.create_connection(address(service), 60) as other:
            other.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.recv(1_000).startswith(b"HTTP/1.1 200 ")
        assert [line["logger"] for line in log_lines(service) if line["level"] != "INFO"] == [
            "api.connections"
        ]


# --- clients that do not read


@pytest.fixture(scope="module")
def large(world) -> bytes:
    """A request whose answer, of megabytes, is more than the system keeps for a connection."""
    rows = pa.concat_tables([world.behaviors(200)] * 50)
    body = Upload.form(parquet(rows), parquet(world.history()))
    head = (
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return f"POST /predict?titles=true&max_rows=10000 HTTP/1.1\r\nHost: a\r\n{head}".encode() + body


@contextmanager
def not_reading(service: RunningService, count: int, request: bytes):
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.settimeout(60)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(address(service))
            client.sendall(request)
            clients.append(client)
        yield clients


def test_an_answer_has_its_place_until_it_is_taken(world, tmp_path, large):
    limits = {"WORKERS": 1, "QUEUE_SIZE": 1, "ANSWER_SECONDS": 600}
    with (
        RunningService(tmp_path / "log", MODEL_URI=world.models, **limits) as service,
        not_reading(service, 2, large) as (first, second),
    ):
        until(
            lambda: series(service, "nrms_stage_seconds_count", stage="respond") == 2, "two answers"
        )
        assert service.metric("nrms_requests_in_flight") == 2
        assert service.client.post("/predict/json", json={}).status_code == 429
        stream = first.makefile("rb")
        lines = iter(stream.readline, b"\r\n")
        length = next(
            int(line.split()[1]) for line in lines if line.lower().startswith(b"content-length")
        )
        assert length > 5 * 2**20
        for _ in lines:
            pass
        assert len(stream.read(length)) == length
        until(
            lambda: service.metric("nrms_requests_in_flight") == 1,
            "the place of the one that has read",
        )
        second.close()
        until(
            lambda: service.metric("nrms_requests_in_flight") == 0,
            "the place of the one that has left",
        )


def left_to_the_system(service: RunningService) -> int:
    """Connections that the service has closed and whose answer the system still
    offers: FIN_WAIT1.
    """
    ours = f":{address(service)[1]:04X}"
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(ours) and state == "04" for _, local, _, state, *_ in sockets)


@pytest.mark.parametrize(
    ("places", "count"), [(4, 6), pytest.param(10, 30, marks=pytest.mark.long)]
)
def test_clients_that_do_not_read_cost_no_memory_and_are_cut_off(
    world, tmp_path, large, places, count
):
    environment = {"QUEUE_SIZE": places - 2, "ANSWER_SECONDS": 3}
    with RunningService(tmp_path / "log", MODEL_URI=world.models, **environment) as service:

        def answers() -> float:
            return series(service, "nrms_stage_seconds_count", stage="respond")

        with not_reading(service, places, large):  # what a full house takes at most
            until(lambda: answers() == places, "answers", 300)
            until(lambda: service.metric("nrms_requests_in_flight") == 0, "free places")
        before = service.memory()
        with not_reading(service, count, large) as clients:
            until(
                lambda: series(service, "nrms_requests_total", status="429") >= count - places,
                "refusals",
                300,
            )
            until(lambda: answers() >= 2 * places, "answers", 300)
            after = service.memory()
            until(lambda: service.metric("nrms_requests_in_flight") == 0, "free places")
            assert left_to_the_system(service) == 0
            for client in clients:
                with suppress(ConnectionResetError):
                    while client.recv(1 << 20):
                        pass
        assert series(service, "nrms_connections_cut_total", reason="answer_too_slow") == 2 * places
        assert after - before < 50 * 2**20, (
            f"{before / 2**20:.0f} MiB and then {after / 2**20:.0f} MiB"
        )
        assert service.client.get("/livez").status_code == 200


def test_a_client_that_does_not_read_does_not_keep_the_service_from_ending(world, tmp_path, large):
    environment = {"ANSWER_SECONDS": 600, "STOP_SECONDS": 1}
    with (
        RunningService(tmp_path / "log", MODEL_URI=world.models, **environment) as service,
        not_reading(service, 1, large),
    ):
        until(
            lambda: series(service, "nrms_stage_seconds_count", stage="respond") == 1, "an answer"
        )
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert "Traceback" not in service.log.read_text()


# --- the address, and what the system allows


@pytest.mark.system
@pytest.mark.parametrize(
    ("files", "environment", "code", "named"),
    [
        (None, {"PORT": "{taken}"}, 1, "Address already in use"),
        (None, {"PORT": "70000"}, 1, "70000"),
        (100, {}, 2, "The limit of open files must be more than 186"),
    ],
)
def test_what_keeps_the_service_from_listening_is_one_line(files, environment, code, named):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        variables = {name: value.replace("{taken}", port) for name, value in environment.items()}
        done = subprocess.run(
            [
                "sh",
                "-c",
                f'{f"ulimit -n {files};" if files else ""} exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "api",
            ],
            cwd=REPOSITORY,
            env={**os.environ, "MODEL_URI": "models", "HOST": "127.0.0.1", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


@pytest.mark.system
def test_no_piece_of_an_answer_waits_for_the_client(tmp_path):
    """Head and body are two pieces. Nagle's algorithm, which is on unless it is turned off, would
    hold the second back for 40 ms in each answer but the first of a connection.
    """
    settings = Settings(model_uri=str(tmp_path))
    app = create_app(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app, settings, app.state.service.metrics, most=10)
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), 60) as client:
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
                assert client.recv(99).startswith(b"HTTP/1.1 200")
                (connection,) = server.server_state.connections
                ours = connection.transport.get_extra_info("socket")
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        finally:
            server.should_exit = True
            thread.join()


def test_the_service_says_where_it_listens_and_ctrl_c_ends_it_in_order(world, tmp_path):
    with RunningService(tmp_path / "log", MODEL_URI=world.models) as service:
        assert f"listening at {service.url}" in [line["message"] for line in log_lines(service)]
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(60) == 0
        assert "Traceback" not in service.log.read_text()
