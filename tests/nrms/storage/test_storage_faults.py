"""Faults, on a disk and on the way to a bucket: tried again, or one line and nothing
half-written.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nrms import storage
from nrms.errors import AccessDenied, ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from nrms.storage import ABSENT
from tests.conftest import FakeGcs, FaultyProxy, Request
from tests.litter import listing
from tests.nrms.storage.test_storage import LARGE, SMALL, one_line

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
    uses: list[Callable[[Path], object]] = [
        storage.stat,
        storage.read_bytes,
        storage.delete,
        storage.exists,
    ]
    for use in [*uses, lambda uri: storage.write_bytes(b"", uri)]:
        with one_line(AccessDenied, str(locked_folder / "x"), "Permission denied"):
            use(locked_folder / "x")
    with one_line(AccessDenied, str(locked_folder), "Permission denied"):
        storage.list_files(locked_folder)
    with one_line(AccessDenied, str(locked_folder), "Permission denied"):
        storage.list_files(locked_folder.parent)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    for path, words in (
        ("file/x", f"{tmp_path / 'file'} is a file, not a folder"),
        ("file/x/y", "Not a directory"),
    ):
        with one_line(StorageError, str(tmp_path / path), words):
            storage.write_bytes(b"", tmp_path / path)
    (tmp_path / "folder").mkdir()
    for generation, kind in (
        (None, StorageError),
        (ABSENT, ObjectNotFound),
        ("1-2-3", PreconditionFailed),
    ):
        with one_line(kind, str(tmp_path / "folder")):
            storage.write_bytes(b"", tmp_path / "folder", if_generation=generation)


def test_a_link_to_nothing_is_named(tmp_path: Path):
    (tmp_path / "link").symlink_to("gone/file")
    with one_line(StorageError, f"{tmp_path / 'link'}: is a link to gone/file, where nothing is"):
        storage.list_files(tmp_path)
    (tmp_path / "link").unlink()
    (tmp_path / "round").symlink_to("round")
    with one_line(StorageError, str(tmp_path / "round")):
        storage.list_files(tmp_path)


def test_a_file_that_vanishes_while_its_folder_is_listed_is_not_there(tmp_path: Path):
    for number in range(100):
        storage.write_bytes(b"", tmp_path / f"{number:03}")

    def vanish() -> None:
        for path in sorted(tmp_path.iterdir(), reverse=True):
            path.unlink()

    thread = threading.Thread(target=vanish)
    thread.start()
    while thread.is_alive():
        storage.list_files(tmp_path)
    thread.join()
    assert storage.list_files(tmp_path) == []


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_named_and_does_not_hang(kind: str, tmp_path: Path):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    for use in (storage.stat, storage.read_bytes, lambda path: storage.list_files(path.parent)):
        with one_line(StorageError, f"{path}: is a pipe, socket or device"):
            use(path)


def test_a_name_that_is_no_utf8_is_named(tmp_path: Path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    uses = (storage.stat, storage.list_files, storage.read_bytes, storage.exists, storage.delete)
    for use in (
        *uses,
        lambda uri: storage.write_bytes(b"", uri),
        lambda uri: storage.join(uri, "x"),
    ):
        with one_line(StorageError, f"{tmp_path}/caf\\xe9", ": a name must be UTF-8"):
            use(folder)
    folder.mkdir()
    (folder / "x").touch()
    with one_line(StorageError, f"{tmp_path}/caf\\xe9/x: a name must be UTF-8"):
        storage.list_files(tmp_path)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with one_line(StorageError, str(tmp_path / "x"), "File too large"):
            storage.write_bytes(bytes(2 << 20), tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
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
    assert [(info.uri, info.size) for info in storage.list_files(target.parent)] == [
        (str(target), 3)
    ]
    storage.write_bytes(b"new", target)
    assert storage.read_bytes(target) == b"new"
    assert listing(target.parent) == ["x"]


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


SIZES = pytest.mark.parametrize(
    ("content", "sent_by"), [(SMALL, "POST /upload"), (LARGE, "PUT /upload")]
)
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


CREDENTIALS = {
    "a list": json.dumps([{"type": "service_account"}]),
    "a text": json.dumps("secret"),
    "a number": "1",
    "null": "null",
    "no JSON": "{",
    "not UTF-8": "\udcff",
    "empty": "",
    "no type": "{}",
    "another type": json.dumps({"type": "wine"}),
    "a service account alone": json.dumps({"type": "service_account"}),
    "a key that cannot be read": json.dumps(
        {
            "type": "service_account",
            "client_email": "a@b",
            "token_uri": "http://x",
            "private_key": "no key",
        }
    ),
    "an impersonation alone": json.dumps({"type": "impersonated_service_account"}),
    "an impersonation of a list": json.dumps(
        {
            "type": "impersonated_service_account",
            "source_credentials": [],
            "service_account_impersonation_url": 1,
        }
    ),
    "a user alone": json.dumps({"type": "authorized_user"}),
    "an outside account alone": json.dumps({"type": "external_account"}),
}


@pytest.mark.parametrize("content", CREDENTIALS)
def test_credentials_of_any_other_shape_are_one_line(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "key.json"
    file.write_bytes(CREDENTIALS[content].encode(errors="surrogateescape"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with one_line(
        AccessDenied, "gs://bucket/x", "gcloud auth application-default login", str(file)
    ):
        storage.stat("gs://bucket/x")


def test_credentials_that_are_a_folder_or_a_pipe_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    for path in (tmp_path, tmp_path / "pipe"):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with one_line(
            AccessDenied,
            "gs://bucket/x",
            f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which is no file",
        ):
            storage.stat("gs://bucket/x")


def test_an_emulator_s_address_may_end_in_a_slash(
    gcs_server: FakeGcs, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"{gcs_server.url}/")
    for content in (SMALL, LARGE):
        info = storage.write_bytes(content, f"{bucket}/x")
        assert storage.fetch(info, tmp_path).read_bytes() == content
    assert storage.list_files(bucket) == [info]


def test_an_emulator_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    with one_line(ConfigError, "STORAGE_EMULATOR_HOST must begin with http://", "localhost:4443"):
        storage.stat("gs://bucket/x")


@pytest.mark.parametrize("setting", ["soon", "-1", "nan"])
def test_a_retry_time_that_is_no_time_is_refused(
    setting: str, bucket: str, monkeypatch: pytest.MonkeyPatch
):
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
def test_an_upload_survives_a_server_that_goes_away_half_way(
    content: bytes, sent_by: str, own: "Own"
):
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
def test_an_upload_damaged_on_the_way_is_refused(
    content: bytes, sent_by: str, proxy: FaultyProxy, bucket: str
):
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
    for read in (
        storage.read_bytes,
        lambda uri: storage.fetch(storage.stat(uri), tmp_path).read_bytes(),
    ):
        proxy.inject(truncate_the_answer, "GET /download")
        assert read(info.uri) == LARGE
        assert proxy.faults == []


def test_a_damaged_download_is_refused_and_not_kept(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
):
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
