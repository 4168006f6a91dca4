"""For all tests: a quiet, offline environment, a real fake-gcs-server, a proxy that breaks
connections.
"""

import http.client
import inspect
import json
import multiprocessing
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import scale
from tests.shared import Shared
from tests.small_training import REPOSITORY, SMALL, write_demo

if TYPE_CHECKING:
    from nrms.training.config import TrainConfig
    from nrms.training.run import TrainingResult
    from tests.disk import Disk
    from tests.service import RunningService, World

INSTALL = "go install github.com/fsouza/fake-gcs-server@v1.55.1"

# The service forks and limits its children, and images are Linux: their tests need what Windows
# lacks. Three files look at processes in /proc, which macOS lacks as well.
_NO_PROC = ["api/test_faults.py", "api/uploads/test_hostile.py", "api/test_overload.py"]
_NO_FORK = ["api/*", "test_nightly_cycle.py", "configs/test_compose.py", "configs/test_images.py"]
_LEFT_OUT = {"win32": [*_NO_FORK, "nrms/storage/test_storage_faults.py"], "darwin": _NO_PROC}
collect_ignore_glob = _LEFT_OUT.get(sys.platform, [])
_POSIX = re.compile(r"SIG(KILL|TERM|INT|STOP)|\bchmod|geteuid|symlink")
_ALL_SYSTEM = re.compile(r"^pytestmark = .*\bpytest\.mark\.system\b", re.MULTILINE)
# A test with one of these fixtures, or with the mark `system`, is not a unit test.
_SYSTEMS = {"gcs_server", "own", "trained", "world", "service"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-long` and `make check`."""
    group = parser.getgroup("size of the run")
    group.addoption(
        "--long", action="store_true", help="kills, fuzz and soaks whole, and tests marked `long`"
    )
    group.addoption(
        "--units",
        action="store_true",
        help="tests without process, server, browser and training alone",
    )


def pytest_report_header() -> list[str]:
    """Names the test files that are left out on this operating system."""
    return (
        [f"left out on {sys.platform}: {', '.join(collect_ignore_glob)}"]
        if collect_ignore_glob
        else []
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--units`: a file without unit tests is not imported, nor are the libraries it needs."""
    if config.option.units and collection_path.suffix == ".py":
        return bool(_ALL_SYSTEM.search(collection_path.read_text("utf-8"))) or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what this system cannot do and what this size of run does not do."""
    for item in items:
        # Windows knows neither the signals that stop and kill, nor permissions that are taken away.
        if sys.platform == "win32" and _POSIX.search(inspect.getsource(item.function)):
            item.add_marker(pytest.mark.skip(reason="needs POSIX signals or permissions"))
        if not scale.whole and item.get_closest_marker("long"):
            item.add_marker(
                pytest.mark.skip(reason="only in the long run: make test-long, or pytest --long")
            )
    if config.option.units:
        units = [
            i
            for i in items
            if _SYSTEMS.isdisjoint(i.fixturenames) and not i.get_closest_marker("system")
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(units)])
        items[:] = units
        import hypothesis  # noqa: F401  which asks a process for a library; pytest does it at the end

        sys.addaudithook(_refuse_processes)
        multiprocessing.process.BaseProcess.start = lambda _: _refuse_processes("os.fork")


def _refuse_processes(event: str, _: tuple = ()) -> None:
    """With `--units`: a test that starts a process says how it gets out of `make check`."""
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        raise RuntimeError(
            "A unit test must start no process. Received: one that does. Mark it `system`."
        )


def pytest_configure(config: pytest.Config) -> None:
    """Set up the environment before any test module imports TensorFlow, Keras, matplotlib or wandb.

    Tests find no credentials and send nothing to anybody, whoever runs them.
    """
    scale.whole = config.option.long
    os.environ |= {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "KERAS_BACKEND": "tensorflow",
        "MPLBACKEND": "Agg",
        "NO_GCE_CHECK": "true",
        "CLOUDSDK_CONFIG": "/nonexistent",
        "NETRC": "/nonexistent",
        "NRMS_RETRY_SECONDS": "20",
        # Else it copies the graph before each of its passes, to go on without one that fails.
        "TF2ONNX_CATCH_ERRORS": "FALSE",
    }
    # Modules are compiled once, and not in each of some hundred processes that tests start.
    sys.dont_write_bytecode = False
    for name in (
        "PYTHONDONTWRITEBYTECODE",
        "WANDB_API_KEY",
        "WANDB_MODE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "STORAGE_EMULATOR_HOST",
    ):
        os.environ.pop(name, None)


class FakeGcs:
    """A fake-gcs-server process. With `root`, its buckets survive `kill` and `start` in that
    folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        binary = shutil.which(
            "fake-gcs-server", path=f"{os.environ['PATH']}:{Path.home() / 'go/bin'}"
        )
        if binary is None and os.environ.get("CI"):
            pytest.fail(f"fake-gcs-server is missing: {INSTALL}")
        if binary is None:
            pytest.skip(f"fake-gcs-server is missing: {INSTALL}")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.host = f"127.0.0.1:{listener.getsockname()[1]}"
        self.url = f"http://{self.host}"
        backend = (
            ["-backend", "memory"]
            if root is None
            else ["-backend", "filesystem", "-filesystem-root", root]
        )
        address = ["-scheme", "http", "-host", "127.0.0.1", "-port", self.host.partition(":")[2]]
        public = ["-external-url", self.url, "-public-host", self.host, "-log-level", "error"]
        self.command = [binary, *backend, *address, *public]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/_internal/healthcheck"):
                    return
            except urllib.error.URLError:
                assert self.process.poll() is None, "fake-gcs-server ended at once"
                time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def create_bucket(self) -> str:
        """Make a bucket and return its gs:// URI."""
        bucket = f"test-{uuid.uuid4().hex}"
        body = f'{{"name": "{bucket}"}}'.encode()
        request = urllib.request.Request(f"{self.url}/storage/v1/b?project=test", data=body)
        with urllib.request.urlopen(request):
            return f"gs://{bucket}"


class Request:
    """One HTTP request that has arrived at a `FaultyProxy`, whole."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: FakeGcs) -> None:
        self.handler, self.server = handler, server
        self.method, self.path = handler.command, handler.path
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))

    def forward(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send the request on; the answer's status, headers and body."""
        connection = http.client.HTTPConnection(self.server.host)
        try:
            connection.request(self.method, self.path, self.body, dict(self.handler.headers))
            answer = connection.getresponse()
            body = answer.read()
            # Long answers come in chunks and go on in one piece.
            headers = [
                pair
                for pair in answer.getheaders()
                if pair[0] not in ("Transfer-Encoding", "Content-Length")
            ]
            return answer.status, [*headers, ("Content-Length", str(len(body)))], body
        finally:
            connection.close()

    def forward_half(self) -> None:
        """Send the headers and the first half of the body on, and close."""
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            *(f"{k}: {v}" for k, v in self.handler.headers.items()),
        ]
        with socket.create_connection(self.server.host.split(":")) as upstream:
            upstream.sendall(
                "\r\n".join([*lines, "", ""]).encode() + self.body[: len(self.body) // 2]
            )

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer the client. Content-Length stays what `headers` say, whatever the length of
        `body`.
        """
        self.handler.send_response(status)
        for key, value in headers:
            self.handler.send_header(key, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)


Fault = Callable[[Request], None]


class FaultyProxy:
    """Forwards to a `FakeGcs`, but for the faults that a test puts in its way.

    `inject(fault, "PUT /upload", times=2)` lets `fault` deal with the next two requests that begin
    so. Where it gives no answer, the connection is cut.
    """

    def __init__(self, server: FakeGcs) -> None:
        self.faults: list[tuple[str, Fault]] = []
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else a body waits for the acknowledgement of its headers, which is late by 40 ms.
            disable_nagle_algorithm = True

            def handle_request(self) -> None:
                request = Request(self, server)
                line = f"{request.method} {request.path}"
                proxy.seen.append(line)
                fault = next((pair for pair in proxy.faults if line.startswith(pair[0])), None)
                try:
                    if fault:
                        proxy.faults.remove(fault)
                        self.close_connection = True
                        fault[1](request)
                    else:
                        request.answer(*request.forward())
                except (OSError, http.client.HTTPException):  # the server is away
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=[0.02], daemon=True).start()

    def inject(self, fault: Fault, request: str = "", times: int = 1) -> None:
        self.faults += [(request, fault)] * times

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Folders that are made once, by whichever process of the session needs them first."""
    return Shared(tmp_path_factory)


@pytest.fixture(scope="session")
def demo(shared: Shared) -> str:
    """A demo data set with four validation files, to read."""
    return str(shared.folder("demo", lambda folder: write_demo(str(folder))))


@pytest.fixture(scope="session")
def trained(shared: Shared, demo: str) -> "tuple[TrainConfig, TrainingResult]":
    """One training of `demo` without a break, to look at: a test that writes beside the model takes
    a copy.
    """

    def make(folder: Path) -> None:
        from nrms.training.config import TrainConfig
        from nrms.training.run import train  # imports TensorFlow

        config = TrainConfig(data=demo, output=str(folder / "models"), **SMALL)
        (folder / "trained.pickle").write_bytes(pickle.dumps((config, train(config))))

    return pickle.loads((shared.folder("trained", make) / "trained.pickle").read_bytes())


@pytest.fixture(scope="session")
def on_two_devices(shared: Shared) -> dict[str, list]:
    """What `tests.two_devices` prints."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "tests.two_devices"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "printed.json").write_text(done.stdout.splitlines()[-1])

    return json.loads((shared.folder("two_devices", make) / "printed.json").read_text())


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn twice; for tests of nights, most of which have the same ones."""
    from tests.pictures import draw_once  # imports matplotlib

    draw_once(monkeypatch)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcs]:
    """The server that the tests of a session share; STORAGE_EMULATOR_HOST points to it."""
    server = FakeGcs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server
    server.kill()


@pytest.fixture
def bucket(gcs_server: FakeGcs) -> str:
    """The `gs://` URI of a fresh, empty bucket."""
    return gcs_server.create_bucket()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator["Disk"]:
    """A small disk, to be filled."""
    from tests.disk import Disk

    disk = Disk(tmp_path / "disk")
    yield disk
    # an error that is kept may hold a file open
    subprocess.check_call(["umount", "--lazy", disk.path])


@pytest.fixture
def proxy(gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy in front of the shared server, with STORAGE_EMULATOR_HOST pointing to it."""
    proxy = FaultyProxy(gcs_server)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A Pushgateway's door: its address, and path and body of what was pushed."""
    pushed = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            pushed.append(
                (self.path, self.rfile.read(int(self.headers["Content-Length"])).decode())
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", pushed
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def world(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> "World":
    """Demo data and a small model to serve. The data are the session's, the model root is the
    process' own.
    """
    from tests.service import World, make_world  # imports TensorFlow

    return World(shared.folder("world", make_world), tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def service(world: "World", tmp_path_factory: pytest.TempPathFactory) -> Iterator["RunningService"]:
    """A service of `world` that the tests of a session share: what they do to it must leave it as
    it was.
    """
    from tests.service import RunningService

    folder = tmp_path_factory.mktemp("service")
    # It lives as long as the session, and nobody publishes: to look for a new model five times a
    # second is a twentieth of a core.
    with RunningService(
        folder / "log",
        MODEL_URI=world.models,
        RELOAD_SECONDS=10,
        EVENTS="true",
        EVENTS_URL=f"sqlite:///{folder}/events.sqlite",
    ) as service:
        yield service
