"""One contract for local folders and buckets, held against a real server and really broken connections."""

import base64
import gzip
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from nrms import storage
from nrms.errors import AccessDenied, ConfigError, NrmsError, ObjectNotFound, PreconditionFailed, StorageError
from nrms.storage import ABSENT
from tests.conftest import FakeGcs, FaultyProxy, Request

SMALL = b"small enough for one request"
LARGE = random.Random(0).randbytes((8 << 20) + 1)  # the least that goes through an upload session


def slow_crc32c(data: bytes) -> str:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return base64.b64encode((crc ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()


@contextmanager
def one_line(kind: type[NrmsError], *words: str) -> Iterator[None]:
    """The block raises exactly `kind`, whose message is one line and holds all of `words`."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert type(caught.value) is kind
    assert len(message.splitlines()) == 1
    assert [word for word in words if word not in message] == []


@pytest.fixture(params=["local", "gs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "data") if request.param == "local" else request.getfixturevalue("bucket") + "/data"


# --- the contract


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_what_is_written_or_uploaded_is_read_back(folder: str, content: bytes, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(content)
    written = storage.write_bytes(content, storage.join(folder, "a/b/written"))
    uploaded = storage.upload(source, storage.join(folder, "uploaded"))
    for info in (written, uploaded):
        assert info == storage.stat(info.uri)
        assert info.size == len(content)
        assert storage.read_bytes(info.uri) == storage.read_bytes(info) == content


def test_the_checksum_of_an_object_is_crc32c(bucket: str):
    assert slow_crc32c(b"123456789") == base64.b64encode(bytes.fromhex("E3069283")).decode()  # RFC 3720, B.4
    assert storage.write_bytes(SMALL, f"{bucket}/x").crc32c == slow_crc32c(SMALL)


def test_every_write_is_a_new_generation(folder: str):
    uri = storage.join(folder, "x")
    assert len({storage.write_bytes(b"same", uri).generation for _ in range(50)}) == 50


def test_a_file_is_created_once(folder: str):
    uri = storage.join(folder, "x")
    storage.write_bytes(b"first", uri, if_generation=ABSENT)
    for content in (b"second", b"first"):
        with one_line(PreconditionFailed, uri, "expected no file"):
            storage.write_bytes(content, uri, if_generation=ABSENT)
    assert storage.read_bytes(uri) == b"first"


def test_compare_and_swap_replaces_only_the_expected_generation(folder: str):
    uri = storage.join(folder, "x")
    first = storage.write_bytes(b"1", uri)
    second = storage.write_bytes(b"2", uri, if_generation=first.generation)
    with one_line(PreconditionFailed, uri, first.generation, second.generation):
        storage.write_bytes(b"3", uri, if_generation=first.generation)
    assert storage.read_bytes(uri) == b"2"
    storage.delete(uri)
    with one_line(PreconditionFailed, uri, "found no file"):
        storage.write_bytes(b"4", uri, if_generation=second.generation)
    assert not storage.exists(uri)


def test_deleting_is_safe_to_repeat(folder: str):
    uri = storage.join(folder, "x")
    storage.write_bytes(b"1", uri)
    assert storage.exists(uri)
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_a_missing_file_is_named(folder: str, tmp_path: Path):
    storage.write_bytes(b"1", storage.join(folder, "there/x"))
    for uri in (
        storage.join(folder, "missing"),
        storage.join(folder, "there"),
        storage.join(folder, "there/x/y"),
    ):
        assert not storage.exists(uri)
        for read in (storage.stat, storage.read_bytes):
            with one_line(ObjectNotFound, uri):
                read(uri)
    with one_line(ObjectNotFound, str(tmp_path / "source")):
        storage.upload(tmp_path / "source", storage.join(folder, "x"))


def test_listing_is_recursive_sorted_and_leaves_hidden_files_out(folder: str):
    for path in (
        "b.parquet",
        "a/c.parquet",
        "a/note.txt",
        "a-b.parquet",
        "a/.b.parquet.tmp",
        "__MACOSX/._b.parquet",
    ):
        storage.write_bytes(path.encode(), storage.join(folder, path))
    storage.write_bytes(b"", storage.join(folder, ".git/x.parquet"))
    storage.write_bytes(b"", folder + "-sibling/x.parquet")
    found = storage.list_files(folder, ".parquet")
    assert [info.uri for info in found] == [f"{folder}/{x}" for x in ("a-b.parquet", "a/c.parquet", "b.parquet")]
    assert found == [storage.stat(info.uri) for info in found]
    assert [storage.name(info.uri) for info in storage.list_files(folder + "/a")] == ["c.parquet", "note.txt"]
    assert storage.list_files(storage.join(folder, "missing")) == []


def test_a_listing_leaves_out_the_placeholder_of_an_empty_folder(bucket: str):
    storage.write_bytes(b"", f"{bucket}/data/")
    storage.write_bytes(b"1", f"{bucket}/data/x")
    assert [info.uri for info in storage.list_files(bucket)] == [f"{bucket}/data/x"]


def test_fetch_gives_the_pinned_generation_or_says_that_it_is_gone(folder: str, tmp_path: Path):
    uri = storage.join(folder, "x.parquet")
    old = storage.write_bytes(b"old", uri)
    path = storage.fetch(old, tmp_path / "cache")
    assert path.read_bytes() == b"old"
    new = storage.write_bytes(b"new", uri)
    for read in (storage.read_bytes, lambda info: storage.fetch(info, tmp_path / "empty cache")):
        with one_line(PreconditionFailed, uri, old.generation, "during the run"):
            read(old)
    assert storage.fetch(new, tmp_path / "cache").read_bytes() == b"new"
    storage.delete(uri)
    with one_line(PreconditionFailed, uri, new.generation, "during the run"):
        storage.fetch(new, tmp_path / "empty cache")


def test_a_local_file_is_fetched_in_place_and_an_object_once(proxy: FaultyProxy, bucket: str, tmp_path: Path):
    local = storage.write_bytes(SMALL, tmp_path / "x")
    assert storage.fetch(local, tmp_path / "cache") == tmp_path / "x"
    info = storage.write_bytes(SMALL, f"{bucket}/x")
    proxy.seen.clear()
    assert storage.fetch(info, tmp_path / "cache") == storage.fetch(info, tmp_path / "cache")
    assert len(proxy.seen) == 1
    storage.write_bytes(b"newer", info.uri)
    assert storage.fetch(info, tmp_path / "cache").read_bytes() == SMALL


def test_locations_are_joined_and_named_alike():
    assert storage.join("gs://b", "c", "d.txt") == storage.join("gs://b/c/", "d.txt") == "gs://b/c/d.txt"
    assert storage.join(Path("b"), "c", "d.txt") == storage.join("b/c/", "d.txt") == "b/c/d.txt"
    assert storage.name("gs://b/c/d.txt") == storage.name(Path("c/d.txt")) == "d.txt"
    assert storage.is_gcs("gs://b/c")
    assert not storage.is_gcs("b/c")


@pytest.mark.parametrize(
    "uri", ["s3://bucket/x", "GS://bucket/x", "gs:/bucket/x", "file:///x", "gs://", "gs:///x", "gs://bucket"]
)
def test_a_location_that_cannot_be_a_file_is_refused(uri: str):
    for use in (storage.stat, storage.read_bytes, lambda uri: storage.write_bytes(b"", uri)):
        with one_line(StorageError, "gs://bucket/name", uri):
            use(uri)


# --- several writers at once


def swap(content: bytes, uri: str, generation: str | None) -> bytes | None:
    try:
        storage.write_bytes(content, uri, if_generation=generation)
    except PreconditionFailed:
        return None
    return content


def race(pool: Executor, workers: int, rounds: int, uri: str) -> None:
    generation = ABSENT
    for turn in range(rounds):
        tries = [pool.submit(swap, f"{turn} {worker}".encode(), uri, generation) for worker in range(workers)]
        won = [content for content in (task.result() for task in tries) if content]
        assert [storage.read_bytes(uri)] == won
        generation = storage.stat(uri).generation


def test_of_several_threads_that_compare_and_swap_exactly_one_wins(folder: str):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # without a lock, about one round in ten then has two winners
    try:
        with ThreadPoolExecutor(8) as pool:
            race(pool, workers=8, rounds=50, uri=storage.join(folder, "latest.json"))
    finally:
        sys.setswitchinterval(interval)


def test_of_several_processes_that_compare_and_swap_exactly_one_wins(folder: str):
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        race(pool, workers=4, rounds=8, uri=storage.join(folder, "latest.json"))


def test_writers_without_a_condition_all_succeed(folder: str):
    contents = [bytes([i]) * 1000 for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(swap, contents, [storage.join(folder, "x")] * 6, [None] * 6))
    assert done == contents
    assert storage.read_bytes(storage.join(folder, "x")) in contents


def test_a_reader_never_sees_a_mixture_of_two_writes(folder: str):
    uri = storage.join(folder, "x")
    storage.write_bytes(b"0" * 100_000, uri)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for digit in (b"1", b"2"):
                storage.write_bytes(digit * 100_000, uri)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(len(set(storage.read_bytes(uri))) == 1 for _ in range(100))
    finally:
        stop.set()
        writer.join()


# --- local faults


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder with one file that this process, an ordinary user meanwhile, may not enter."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "locked"
        storage.write_bytes(b"1", folder / "x")
        Path(parent).chmod(0o755)
        folder.chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o700)


def test_a_folder_without_permission_is_named(locked_folder: Path):
    uses: list[Callable[[Path], object]] = [storage.stat, storage.read_bytes, storage.delete, storage.exists]
    for use in [*uses, lambda uri: storage.write_bytes(b"", uri)]:
        with one_line(AccessDenied, str(locked_folder / "x"), "Permission denied"):
            use(locked_folder / "x")
    with one_line(AccessDenied, str(locked_folder), "Permission denied"):
        storage.list_files(locked_folder)
    with one_line(AccessDenied, str(locked_folder), "Permission denied"):
        storage.list_files(locked_folder.parent)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    for path, words in (("file/x", f"{tmp_path / 'file'} is a file, not a folder"), ("file/x/y", "Not a directory")):
        with one_line(StorageError, str(tmp_path / path), words):
            storage.write_bytes(b"", tmp_path / path)
    (tmp_path / "folder").mkdir()
    for generation, kind in ((None, StorageError), (ABSENT, ObjectNotFound), ("1-2-3", PreconditionFailed)):
        with one_line(kind, str(tmp_path / "folder")):
            storage.write_bytes(b"", tmp_path / "folder", if_generation=generation)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with one_line(StorageError, str(tmp_path / "x"), "File too large"):
            storage.write_bytes(bytes(2 << 20), tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_half_way_leaves_the_old_file_alone(tmp_path: Path):
    pipe, target = tmp_path / "pipe", tmp_path / "data" / "x"
    storage.write_bytes(b"old", target)
    os.mkfifo(pipe)
    code = f"from nrms import storage; storage.upload({str(pipe)!r}, {str(target)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    with pipe.open("wb") as stream:
        stream.write(bytes(1 << 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(target.parent.iterdir())) == 2  # the killed writer did leave something
    assert [(info.uri, info.size) for info in storage.list_files(target.parent)] == [(str(target), 3)]
    storage.write_bytes(b"new", target)
    assert storage.read_bytes(target) == b"new"


def test_local_files_need_no_google_library(tmp_path: Path):
    code = f"""
import sys
from nrms import storage
info = storage.write_bytes(b"1", {str(tmp_path / "x")!r}, if_generation=storage.ABSENT)
storage.read_bytes(storage.list_files({str(tmp_path)!r})[0])
storage.delete(info.uri)
sys.exit(any(name.startswith(("google.", "google_crc32c")) for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- faults on the way to a bucket


def answers(status: int) -> Callable[[Request], None]:
    return lambda request: request.answer(status, [("Content-Length", "0")], b"")


def cut(request: Request) -> None:
    pass


def cut_half_way(request: Request) -> None:
    request.forward_half()


def lose_the_answer(request: Request) -> None:
    request.forward()


def truncate_the_answer(request: Request) -> None:
    status, headers, body = request.forward()
    request.answer(status, headers, body[: len(body) // 2])


def damage_the_answer(request: Request) -> None:
    status, headers, body = request.forward()
    request.answer(status, headers, body[:-1] + bytes([body[-1] ^ 1]))


SIZES = pytest.mark.parametrize(("content", "sent_by"), [(SMALL, "POST /upload"), (LARGE, "PUT /upload")])
USES: dict[str, Callable[[str, Path], object]] = {
    "stat": lambda uri, tmp_path: storage.stat(uri),
    "list": lambda uri, tmp_path: storage.list_files(uri.removesuffix("/x")),
    "read": lambda uri, tmp_path: storage.read_bytes(uri),
    "fetch": lambda uri, tmp_path: storage.fetch(storage.stat(uri), tmp_path),
    "write": lambda uri, tmp_path: storage.write_bytes(b"new", uri),
    "delete": lambda uri, tmp_path: storage.delete(uri),
}


@pytest.mark.parametrize("fault", [answers(429), answers(503), cut], ids=["429", "503", "cut"])
@pytest.mark.parametrize("use", USES)
def test_faults_that_pass_are_tried_again(
    use: str, fault: Callable[[Request], None], proxy: FaultyProxy, bucket: str, tmp_path: Path
):
    storage.write_bytes(SMALL, f"{bucket}/x")
    proxy.inject(fault, times=2)
    USES[use](f"{bucket}/x", tmp_path)
    assert proxy.faults == []


@pytest.mark.parametrize("use", USES)
def test_faults_that_stay_end_in_one_line(
    use: str, proxy: FaultyProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage.write_bytes(SMALL, f"{bucket}/x")
    monkeypatch.setenv("NRMS_RETRY_SECONDS", "0.3")
    proxy.inject(answers(503), times=1000)
    with one_line(StorageError, bucket, "503"):
        USES[use](f"{bucket}/x", tmp_path)


@pytest.mark.parametrize("use", USES)
def test_missing_permission_is_one_line(use: str, proxy: FaultyProxy, bucket: str, tmp_path: Path):
    storage.write_bytes(SMALL, f"{bucket}/x")
    proxy.inject(answers(403), times=10)
    with one_line(AccessDenied, bucket, "403", "roles/storage"):
        USES[use](f"{bucket}/x", tmp_path)


def test_credentials_that_no_longer_work_are_one_line(proxy: FaultyProxy, bucket: str):
    proxy.inject(answers(401))
    with one_line(AccessDenied, f"{bucket}/x", "gcloud auth application-default login"):
        storage.stat(f"{bucket}/x")


@pytest.mark.parametrize("use", ["stat", "list", "read", "write"])
def test_a_missing_bucket_is_one_line(use: str, bucket: str, tmp_path: Path):
    with one_line(ObjectNotFound, f"{bucket}-missing: no such bucket"):
        USES[use](f"{bucket}-missing/x", tmp_path)
    assert not storage.exists(f"{bucket}-missing/x")


def test_missing_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with one_line(AccessDenied, "gs://bucket/x", "gcloud auth application-default login"):
        storage.stat("gs://bucket/x")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/missing/key.json")
    with one_line(AccessDenied, "gs://bucket/x", "/missing/key.json"):
        storage.stat("gs://bucket/x")


def test_an_emulator_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    with one_line(ConfigError, "STORAGE_EMULATOR_HOST must begin with http://", "localhost:4443"):
        storage.stat("gs://bucket/x")


@pytest.mark.parametrize("setting", ["soon", "-1", "nan"])
def test_a_retry_time_that_is_no_time_is_refused(setting: str, bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NRMS_RETRY_SECONDS", setting)
    with one_line(ConfigError, "NRMS_RETRY_SECONDS", repr(setting)):
        storage.exists(f"{bucket}/x")


@SIZES
@pytest.mark.parametrize("condition", ["none", "absent", "generation"])
def test_a_write_whose_answer_was_lost_succeeds(
    condition: str, content: bytes, sent_by: str, proxy: FaultyProxy, bucket: str
):
    uri = f"{bucket}/x"
    generation = {"none": None, "absent": ABSENT, "generation": None}[condition]
    if condition == "generation":
        generation = storage.write_bytes(b"old", uri).generation
    proxy.inject(lose_the_answer, sent_by)
    assert storage.write_bytes(content, uri, if_generation=generation) == storage.stat(uri)
    assert proxy.faults == []
    assert storage.read_bytes(uri) == content


def test_a_write_that_somebody_else_overtook_between_two_attempts_fails(
    gcs_server: FakeGcs, proxy: FaultyProxy, bucket: str
):
    def overtake(request: Request) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
            storage.write_bytes(b"theirs", f"{bucket}/x")
        answers(503)(request)

    proxy.inject(overtake, "POST /upload")
    with one_line(PreconditionFailed, f"{bucket}/x"):
        storage.write_bytes(b"ours", f"{bucket}/x", if_generation=ABSENT)
    assert storage.read_bytes(f"{bucket}/x") == b"theirs"


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_whose_session_was_lost_starts_over(status: int, proxy: FaultyProxy, bucket: str):
    proxy.inject(answers(status), "PUT /upload")
    info = storage.write_bytes(LARGE, f"{bucket}/x", if_generation=ABSENT)
    assert proxy.faults == []
    assert storage.read_bytes(info) == LARGE


@SIZES
def test_an_upload_survives_a_server_that_goes_away_half_way(content: bytes, sent_by: str, own: "Own"):
    def go_away(request: Request) -> None:
        request.forward_half()
        own.server.kill()
        own.proxy.inject(come_back)

    def come_back(request: Request) -> None:
        own.server.start()
        request.answer(*request.forward())

    own.proxy.inject(go_away, sent_by)
    info = storage.write_bytes(content, f"{own.bucket}/x", if_generation=ABSENT)
    assert own.proxy.faults == []
    assert storage.list_files(own.bucket) == [info]
    assert storage.read_bytes(info) == content


@SIZES
def test_an_upload_to_a_server_that_stays_away_leaves_nothing(
    content: bytes, sent_by: str, own: "Own", monkeypatch: pytest.MonkeyPatch
):
    def go_away(request: Request) -> None:
        request.forward_half()
        own.server.kill()

    own.proxy.inject(go_away, sent_by)
    monkeypatch.setenv("NRMS_RETRY_SECONDS", "0.5")
    with one_line(StorageError, f"{own.bucket}/x"):
        storage.write_bytes(content, f"{own.bucket}/x")
    own.server.start()
    assert storage.list_files(own.bucket) == []


class Own:
    """A server of the test's own, whose buckets survive a restart, behind a proxy."""

    def __init__(self, root: Path) -> None:
        self.server = FakeGcs(root)
        self.bucket = self.server.create_bucket()
        self.proxy = FaultyProxy(self.server)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    own = Own(tmp_path)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", own.proxy.url)
    yield own
    own.proxy.close()
    own.server.kill()


@SIZES
def test_an_upload_damaged_on_the_way_is_refused(content: bytes, sent_by: str, proxy: FaultyProxy, bucket: str):
    def damage(request: Request) -> None:
        assert content in request.body
        request.body = request.body.replace(content, content[:-1] + bytes([content[-1] ^ 1]))
        request.answer(*request.forward())

    proxy.inject(damage, sent_by)
    with one_line(StorageError, f"{bucket}/x", "CRC32C"):
        storage.write_bytes(content, f"{bucket}/x")
    assert storage.list_files(bucket) == []


def test_a_download_cut_short_is_resumed(proxy: FaultyProxy, bucket: str, tmp_path: Path):
    info = storage.write_bytes(LARGE, f"{bucket}/x")
    for read in (storage.read_bytes, lambda uri: storage.fetch(storage.stat(uri), tmp_path).read_bytes()):
        proxy.inject(truncate_the_answer, "GET /download")
        assert read(info.uri) == LARGE
        assert proxy.faults == []


def test_an_object_stored_with_gzip_encoding_is_read_as_stored(gcs_server: FakeGcs, bucket: str):
    content = gzip.compress(SMALL)
    path = f"upload/storage/v1/b/{storage.name(bucket)}/o?uploadType=media&name=x&contentEncoding=gzip"
    urllib.request.urlopen(urllib.request.Request(f"{gcs_server.url}/{path}", data=content)).close()
    assert storage.read_bytes(f"{bucket}/x") == content


def test_a_damaged_download_is_refused_and_not_kept(proxy: FaultyProxy, bucket: str, tmp_path: Path):
    info = storage.write_bytes(LARGE, f"{bucket}/x")
    for read in (storage.read_bytes, lambda info: storage.fetch(info, tmp_path)):
        for faults in ([damage_the_answer], [truncate_the_answer, damage_the_answer]):
            for fault in faults:
                proxy.inject(fault, "GET /download")
            with one_line(StorageError, f"{bucket}/x", "crc32c", info.crc32c):
                read(info)
    assert list(tmp_path.iterdir()) == []


def test_a_race_lost_by_a_delete_is_run_again(proxy: FaultyProxy, bucket: str):
    storage.write_bytes(b"1", f"{bucket}/x")
    proxy.inject(answers(412), "DELETE")
    storage.delete(f"{bucket}/x")
    assert not storage.exists(f"{bucket}/x")
