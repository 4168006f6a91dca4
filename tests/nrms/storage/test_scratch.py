"""What is temporary goes with its process, or with the next one; what a living process uses, or a
user, stays.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from nrms import storage
from nrms.storage.scratch import scratch_folder
from tests.litter import listing

pytestmark = pytest.mark.system

HOLD = """
import sys
from pathlib import Path
from nrms.storage.scratch import {name}
with {name}({folder}) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(name: str, folder: Path) -> Iterator[tuple[Path, subprocess.Popen]]:
    """A process in the block of `scratch_folder` or `scratch_file`, which it leaves at the end of
    this one's.
    """
    code = HOLD.format(name=name, folder=f"Path({str(folder)!r})")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        yield Path(process.stdout.readline().strip()), process


def test_a_folder_is_in_the_temporary_one_and_gone_after_the_block(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        (folder / "a").mkdir()
        (folder / "a" / "b").touch()
    with pytest.raises(ZeroDivisionError), scratch_folder():
        raise ZeroDivisionError
    assert listing(tmp_path) == []


@pytest.mark.system
def test_a_folder_whose_process_was_killed_is_removed_by_the_next_and_one_of_a_living_is_not(
    tmp_path,
):
    with (
        holder("scratch_folder", tmp_path) as (living, _),
        holder("scratch_folder", tmp_path) as (dead, process),
    ):
        (dead / "a").mkdir()
        (dead / "a" / "b").touch()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert dead.exists()
        with scratch_folder(tmp_path):
            assert living.exists()
            assert not dead.exists()
    assert listing(tmp_path) == []


def test_the_number_of_a_living_process_keeps_no_folder(tmp_path):
    # In a container that starts again, the number is the same.
    (tmp_path / f"nrms-{os.getpid()}-{'0' * 32}").mkdir()
    with scratch_folder(tmp_path) as folder:
        assert listing(tmp_path) == [folder.name]


@pytest.mark.system
@pytest.mark.parametrize(
    "number", [getattr(signal, "SIGKILL", None), None], ids=["killed", "living"]
)
def test_a_file_stays_beside_an_output_while_its_process_lives(number, tmp_path):
    storage.write_bytes(b"old", tmp_path / "x")
    with holder("scratch_file", tmp_path) as (path, process):
        if number:
            process.send_signal(number)
            process.wait()
        storage.write_bytes(b"new", tmp_path / "y")
        assert listing(tmp_path) == ["x", "y"] if number else sorted([path.name, "x", "y"])


def test_names_that_are_not_ours_stay(tmp_path):
    names = [
        ".git.lock",
        ".x.tmp",
        "nrms-1-models",
        f"{'0' * 32}.tmp",
        f".{'0' * 31}g.tmp",
        "nrms-demo",
    ]
    for name in names:
        (tmp_path / name).mkdir() if name.startswith("nrms") else (tmp_path / name).touch()
    with scratch_folder(tmp_path):
        storage.write_bytes(b"", tmp_path / "x")
    assert listing(tmp_path) == sorted([*names, "x"])


def test_a_lock_that_a_killed_process_left_is_taken_and_removed(tmp_path):
    info = storage.write_bytes(b"1", tmp_path / "x")
    (tmp_path / f".{'0' * 32}.lock").touch()
    storage.write_bytes(b"2", tmp_path / "x", if_generation=info.generation)
    assert listing(tmp_path) == ["x"]


def write_many(folder: str, worker: int) -> None:
    for turn in range(100):
        storage.write_bytes(f"{worker} {turn}".encode(), storage.join(folder, f"{worker}"))
        with scratch_folder(Path(folder)) as scratch:
            (scratch / "x").touch()


@pytest.mark.system
def test_processes_that_write_into_one_folder_do_not_take_each_other_s_files_away(tmp_path):
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        for task in [pool.submit(write_many, str(tmp_path), worker) for worker in range(4)]:
            task.result()
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == {
        str(worker): f"{worker} 99".encode() for worker in range(4)
    }


def test_a_folder_goes_although_a_thread_still_writes_into_it(tmp_path):
    stop, begun = threading.Event(), threading.Event()

    def write(folder: Path) -> None:
        for number in range(10**9):
            try:
                (folder / str(number)).touch()
            except OSError:  # gone
                return
            if number > 100:
                begun.set()
            if stop.is_set():
                return

    with scratch_folder(tmp_path) as folder:
        thread = threading.Thread(target=write, args=[folder])
        thread.start()
        begun.wait()
    stop.set()
    thread.join()
    assert listing(tmp_path) == []
