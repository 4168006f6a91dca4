"""One contract for local folders and buckets, held against a real server."""

import base64
import gzip
import multiprocessing
import random
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from nrms import storage
from nrms.errors import NrmsError, ObjectNotFound, PreconditionFailed, StorageError
from nrms.storage import ABSENT
from tests.conftest import FakeGcs, FaultyProxy
from tests.litter import listing

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


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.system)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        str(tmp_path / "data")
        if request.param == "local"
        else request.getfixturevalue("bucket") + "/data"
    )


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
    # RFC 3720, B.4
    assert slow_crc32c(b"123456789") == base64.b64encode(bytes.fromhex("E3069283")).decode()
    assert storage.write_bytes(SMALL, f"{bucket}/x").crc32c == slow_crc32c(SMALL)


def test_an_object_stored_with_gzip_encoding_is_read_as_stored(gcs_server: FakeGcs, bucket: str):
    content = gzip.compress(SMALL)
    put_raw(gcs_server, bucket, "x", content, "&contentEncoding=gzip")
    assert storage.read_bytes(f"{bucket}/x") == content


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
    assert [info.uri for info in found] == [
        f"{folder}/{x}" for x in ("a-b.parquet", "a/c.parquet", "b.parquet")
    ]
    assert found == [storage.stat(info.uri) for info in found]
    assert [storage.name(info.uri) for info in storage.list_files(folder + "/a")] == [
        "c.parquet",
        "note.txt",
    ]
    assert storage.list_files(storage.join(folder, "missing")) == []


def put_raw(server: FakeGcs, bucket: str, name: str, content: bytes, query: str = "") -> None:
    path = f"upload/storage/v1/b/{storage.name(bucket)}/o?uploadType=media&name={name}{query}"
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/{path}", data=content)).close()


def test_a_listing_leaves_out_the_placeholder_of_an_empty_folder(gcs_server: FakeGcs, bucket: str):
    put_raw(gcs_server, bucket, "data/", b"")
    storage.write_bytes(b"1", f"{bucket}/data/x")
    assert [info.uri for info in storage.list_files(bucket)] == [f"{bucket}/data/x"]


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}//", "{}/.", "{}/./"])
def test_a_location_may_be_written_in_several_ways(folder: str, spelling: str):
    written = storage.write_bytes(b"1", storage.join(spelling.format(folder), "a/", "./b/"))
    assert written.uri == storage.join(folder, "a", "b") == f"{folder}/a/b"
    uri = spelling.format(f"{folder}/a//b")
    assert storage.stat(uri) == written
    assert storage.read_bytes(uri) == b"1"
    assert storage.list_files(spelling.format(folder)) == [written]
    assert storage.list_paths(spelling.format(folder)) == {"a/b": written}
    assert (storage.name(uri), storage.parent(uri)) == ("b", f"{folder}/a")
    storage.delete(uri)
    assert storage.list_files(folder) == []


def test_a_local_folder_may_be_the_working_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    storage.write_bytes(b"1", tmp_path / "data" / "x")
    monkeypatch.chdir(tmp_path)
    for folder in (".", "./", "./data/..", ""):
        assert list(storage.list_paths(storage.join(folder, "data/"))) == ["x"]
    assert list(storage.list_paths(".")) == ["data/x"]


def test_links_are_followed_and_none_for_ever(tmp_path: Path):
    storage.write_bytes(b"1", tmp_path / "elsewhere" / "deep" / "x.parquet")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "linked").symlink_to("../elsewhere")
    (folder / "file.parquet").symlink_to("../elsewhere/deep/x.parquet")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to(".")
    found = storage.list_paths(folder, ".parquet")
    assert list(found) == ["file.parquet", "linked/deep/x.parquet"]
    assert all(storage.read_bytes(info) == b"1" for info in found.values())


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


def test_a_local_file_is_fetched_in_place_and_an_object_once(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
):
    local = storage.write_bytes(SMALL, tmp_path / "x")
    assert storage.fetch(local, tmp_path / "cache") == tmp_path / "x"
    info = storage.write_bytes(SMALL, f"{bucket}/x")
    proxy.seen.clear()
    assert storage.fetch(info, tmp_path / "cache") == storage.fetch(info, tmp_path / "cache")
    assert len(proxy.seen) == 1
    storage.write_bytes(b"newer", info.uri)
    assert storage.fetch(info, tmp_path / "cache").read_bytes() == SMALL


def test_locations_are_joined_and_named_alike():
    assert (
        storage.join("gs://b", "c", "d.txt")
        == storage.join("gs://b/c/", "d.txt")
        == "gs://b/c/d.txt"
    )
    assert storage.join(Path("b"), "c", "d.txt") == storage.join("b/c/", "d.txt") == "b/c/d.txt"
    assert storage.name("gs://b/c/d.txt") == storage.name(Path("c/d.txt")) == "d.txt"
    assert storage.is_gcs("gs://b/c")
    assert not storage.is_gcs("b/c")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/x",
        "GS://bucket/x",
        "gs:/bucket/x",
        "file:///x",
        "gs://",
        "gs:///x",
        "gs://bucket",
    ],
)
def test_a_location_that_cannot_be_a_file_is_refused(uri: str):
    for use in (storage.stat, storage.read_bytes, lambda uri: storage.write_bytes(b"", uri)):
        with one_line(StorageError, "gs://bucket/name", uri):
            use(uri)


@pytest.mark.system
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
        tries = [
            pool.submit(swap, f"{turn} {worker}".encode(), uri, generation)
            for worker in range(workers)
        ]
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


@pytest.mark.system
def test_of_several_processes_that_compare_and_swap_exactly_one_wins(folder: str):
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        race(pool, workers=4, rounds=8, uri=storage.join(folder, "latest.json"))
    assert storage.is_gcs(folder) or sys.platform == "win32" or listing(folder) == ["latest.json"]


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
