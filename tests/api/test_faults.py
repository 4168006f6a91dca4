"""What happens to clients when processes are killed, the bucket vanishes, the disk is full, or the
service must end.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import storage
from tests.clients import Load, Upload, children, log_lines, series, until
from tests.conftest import FakeGcs
from tests.processes import send
from tests.service import RunningService, parquet
from tests.small_training import REPOSITORY

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def plain(world) -> dict[str, bytes]:
    """An upload of megabytes, which takes a moment to read."""
    rows = pa.concat_tables([world.behaviors(200)] * 250)
    file = parquet(rows, compression="none", use_dictionary=False)
    return {"file": file, "history": parquet(world.history())}


@pytest.fixture(scope="module")
def large(plain) -> dict[str, bytes]:
    """The same in a few kilobytes."""
    return plain | {
        "file": parquet(pq.read_table(pa.BufferReader(plain["file"])), compression="zstd")
    }


@pytest.fixture(scope="module")
def small(world) -> dict[str, bytes]:
    return {"file": parquet(world.behaviors(20)), "history": parquet(world.history())}


@pytest.fixture(scope="module")
def faulty(world, tmp_path_factory):
    """A service whose processes may be killed; it starts them again itself."""
    folder = tmp_path_factory.mktemp("faulty")
    with RunningService(
        folder / "log", MODEL_URI=world.models, WORKERS=2, TMPDIR=folder
    ) as service:
        yield service


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def unavailable(answer: httpx.Response) -> bool:
    """Whether this is the documented way to say: try again."""
    if answer.status_code != 503:
        return False
    assert int(answer.headers["Retry-After"]) >= 1
    assert (
        answer.json()["error"]["rule"] == "The service must have room and processes for an upload."
    )
    assert set(answer.json()["error"]) == {"rule", "received", "where", "todo"}
    return True


def readers(service: RunningService) -> list[tuple[int, int]]:
    """The processes that read an upload just now, each behind the one that forked it."""
    return [(pid, child) for pid in children(service.process.pid) for child in children(pid)]


@pytest.mark.parametrize("victim", ["the process that waits", "its child"])
def test_an_upload_whose_reader_is_killed_is_read_again(faulty, large, background, victim):
    expected = faulty.predict(**large).json()
    killed = False
    while not killed:  # an upload may be read before its reader is found
        answer = background.submit(faulty.predict, **large)
        found = until(
            lambda answer=answer: readers(faulty) or answer.done(),
            "a process that reads the upload",
        )
        if isinstance(found, list):
            ((waiting, child), *_) = found
            killed = send(child if victim == "its child" else waiting, signal.SIGKILL)
        assert answer.result().status_code == 200
    assert answer.result().json() == expected
    until(lambda: not lives(child), "the killed reader's end")


def test_an_upload_whose_readers_are_all_killed_is_answered_503(faulty, large, background):
    for _ in range(20):
        answer = background.submit(faulty.predict, **large)
        while not answer.done():
            for _, child in readers(faulty):
                send(child, signal.SIGKILL)
        # else, on a busy machine, a reader was quicker than we
        if answer.result().status_code != 200:
            break
    assert unavailable(answer.result())
    assert faulty.predict(**large).status_code == 200
    (scratch,) = Path(faulty.log.parent).glob("nrms-*")
    assert [path.name for path in scratch.iterdir()] == ["cache"]


def test_processes_killed_under_load_cost_no_client_its_answer(faulty, world):
    with Load(faulty, world, clients=3) as load:
        load.round()
        for number in range(12):
            found = until(lambda: children(faulty.process.pid), "a process that reads uploads")
            send(found[number % len(found)], signal.SIGKILL)
            load.round()  # so that whoever was hit has had his second try
    assert load.faults == []
    assert load.statuses() == {200}
    until(lambda: faulty.metric("nrms_requests_in_flight") == 0, "no request in flight")


def test_a_vanished_bucket_leaves_the_model_serving_and_is_visible_until_it_is_back(
    world, tmp_path, monkeypatch
):
    server = FakeGcs(tmp_path / "buckets")
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("NRMS_RETRY_SECONDS", "0.1")
        models = f"{server.create_bucket()}/models"
        version = world.publish(models)
        with (
            RunningService(tmp_path / "log", MODEL_URI=models) as service,
            Load(service, world, clients=1) as load,
        ):
            load.round()
            server.kill()
            error = until(
                lambda: service.client.get("/info").json()["reload_error"], "an error in /info"
            )
            assert "could not be read" in error
            assert series(service, "nrms_reload_failing") == 1
            load.round()
            server.start()
            until(
                lambda: service.client.get("/info").json()["reload_error"] is None,
                "no error in /info",
            )
            assert series(service, "nrms_reload_failing") == 0
            load.round()
        assert load.faults == []
        assert load.statuses() == {200}
        assert {answer.json()["model"]["version"] for answer in load.answers} == {
            storage.name(version)
        }
    finally:
        server.kill()


def test_a_full_disk_is_answered_503_until_there_is_room(
    world, disk, tmp_path, plain, large, small
):
    rows = {
        "impressions": [{"impression_id": 1, "article_ids_inview": [1], "article_id_fixed": []}]
    }
    with RunningService(tmp_path / "log", MODEL_URI=world.models, TMPDIR=disk.path) as service:
        requests = [lambda files=files: service.predict(**files) for files in (plain, large, small)]
        requests.append(lambda: service.client.post("/predict/json", json=rows))
        with Load(service, world) as load:
            load.round()
            for request in requests:
                # Uploads that are scored meanwhile give their room back.
                until(
                    lambda request=request: disk.leave(0) or unavailable(request()),
                    "an answer of 503",
                )
            assert service.client.get("/readyz").status_code == 200
            load.round()
            disk.clear()
            assert [request().status_code for request in requests] == [200] * 4
        assert load.faults == []
        assert all(answer.status_code == 200 or unavailable(answer) for answer in load.answers)
        # Room for the upload, but not for what is in it.
        disk.leave(len(plain["file"]) // 4)
        assert unavailable(service.predict(**large))
        assert service.predict(**small).status_code == 200
        disk.clear()
        assert service.predict(**large).status_code == 200
        assert not [line for line in log_lines(service) if "exception" in line]


def test_an_upload_that_cannot_be_written_is_answered_503_and_a_smaller_one_is_scored(
    world, tmp_path, plain, large, small
):
    with RunningService(tmp_path / "log", MODEL_URI=world.models, WORKERS=1) as service:
        assert service.predict(**small).status_code == 200
        limit = len(plain["file"]) // 4
        for pid in (service.process.pid, *children(service.process.pid)):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
        assert unavailable(service.predict(**plain))
        assert unavailable(service.predict(**large))
        assert service.predict(**small).status_code == 200


def test_a_killed_service_leaves_no_process_and_the_next_start_takes_its_uploads_away(
    world, tmp_path, large
):
    service = RunningService(tmp_path / "log", MODEL_URI=world.models, TMPDIR=tmp_path)
    with service, Upload(service, **large) as upload:
        processes = until(lambda: children(service.process.pid), "the processes that read uploads")
        upload.send()
        until(lambda: readers(service), "a process that reads the upload")
        service.process.kill()
        service.process.wait()
        until(lambda: not any(map(lives, processes)), "the end of the processes that read uploads")
    (left,) = tmp_path.glob("nrms-*")
    with RunningService(tmp_path / "log", MODEL_URI=world.models, TMPDIR=tmp_path):
        until(lambda: not left.exists(), "the old folder's end")
        assert len(list(tmp_path.glob("nrms-*"))) == 1
    assert list(tmp_path.glob("nrms-*")) == []


def refuses(service: RunningService) -> bool:
    """Whether the service takes no new connection."""
    try:
        httpx.get(f"{service.url}/livez")
    except httpx.ConnectError:
        return True
    return False


def test_requests_in_flight_are_answered_before_the_service_ends(
    world, tmp_path, small, background
):
    with RunningService(
        tmp_path / "log", MODEL_URI=world.models, WORKERS=1, DECODE_SECONDS=600
    ) as service:
        (decoder,) = until(lambda: children(service.process.pid), "the process that reads uploads")
        assert send(decoder, signal.SIGSTOP)
        scored: Future = background.submit(service.predict, **small)
        until(lambda: service.metric("nrms_requests_in_flight") == 1, "an upload that is read")
        with Upload(service, **small) as arriving:
            arriving.send(len(arriving.body) // 2)
            until(lambda: service.metric("nrms_requests_in_flight") == 2, "an upload that arrives")
            service.process.terminate()
            until(lambda: refuses(service), "no new connections")
            send(decoder, signal.SIGCONT)
            assert scored.result().status_code == 200
            assert arriving.send().answer()[0] == 200
        assert service.process.wait(60) == 0
        until(lambda: not lives(decoder), "the end of the process that reads uploads")


def test_a_service_that_waits_for_its_bucket_ends_at_once_when_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with RunningService(
        tmp_path / "log", ready=False, MODEL_URI="gs://bucket/models", NRMS_RETRY_SECONDS=600
    ) as service:
        until(lambda: "trying again" in service.log.read_text(), "a first try")
        service.process.terminate()
        assert service.process.wait(60) == 0


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "MODEL_URI"),
        ({"MODEL_URI": "m", "WORKERS": "0"}, "WORKERS"),
        ({"MODEL_URI": "m", "UPLOAD_SECONDS": "a\nwhile"}, "UPLOAD_SECONDS"),
        ({"MODEL_URI": "m", "EVENTS": "true", "EVENTS_URL": "mysql://me:secret@db"}, "EVENTS_URL"),
        ({"MODEL_URI": "m", "EVENTS": "true", "EVENTS_URL": "sqlite:///"}, "EVENTS_URL"),
    ],
)
def test_a_wrong_setting_ends_the_service_with_one_line(environment, named):
    command = [sys.executable, "-m", "api"]
    variables = {
        name: value for name, value in os.environ.items() if name != "MODEL_URI"
    } | environment
    done = subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert "secret" not in line


def test_the_log_is_json_and_says_nothing_of_uploads(faulty, world):
    secret = "Zugzwang"
    rows = {
        "impressions": [
            {"impression_id": secret, "user_id": secret, "article_ids_inview": [secret]}
        ]
    }
    assert (
        faulty.client.post("/predict/json", json=rows, params={"format": secret}).status_code == 422
    )
    faulty.client.post("/predict/json", json=rows)
    faulty.predict(
        secret.encode(), articles=parquet({"article_id": [1, 1], "title": [secret, secret]})
    )
    faulty.client.get(f"/{secret}")
    for line in log_lines(faulty):
        assert line.keys() - {"exception"} == {"time", "level", "logger", "message"}
    assert secret not in faulty.log.read_text()
