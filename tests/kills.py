"""Processes that are killed, each forked from a small one that has the libraries loaded already."""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import FaultyProxy

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["nrms.nights.scoring", "nrms.inference.onnx_runtime", "google.cloud.storage", "pytest"]
)
_CHANGES = {
    "open",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.utime",
    "fcntl.flock",
}


def start(
    work: Callable,
    *arguments: object,
    temporary: Path,
    change: int | None = None,
    emulator: str | None = None,
) -> multiprocessing.Process:
    """Runs `work(*arguments)` in a process of its own.

    Args:
        work: importable.
        arguments: of `work`.
        temporary: its folder for temporary files.
        change: kills it before its change of this number, from 0, to the file system; None does
            not.
        emulator: address of the bucket's server.
    """
    process = FORKS.Process(target=_run, args=(work, arguments, temporary, change, emulator))
    process.start()
    return process


def run(work: Callable, *arguments: object, **options: object) -> int:
    """The same, to its end; its exit code, 0 or that of a kill."""
    process = start(work, *arguments, **options)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def count_changes(work: Callable, *arguments: object, temporary: Path) -> int:
    """How many changes to the file system `work(*arguments)` makes."""
    counted = FORKS.Value("i", 0)
    process = FORKS.Process(target=_run, args=(work, arguments, temporary, None, None, counted))
    process.start()
    process.join()
    assert process.exitcode == 0
    return counted.value


def run_to_request(
    proxy: "FaultyProxy",
    request: int,
    heard: bool,
    work: Callable,
    *arguments: object,
    **options: object,
) -> int:
    """The same, killed at its request of this number, from 0; `heard` is whether the server hears
    of that.
    """
    processes = []

    def kill(request: object) -> None:
        if heard:
            request.forward()
        processes[0].kill()

    for _ in range(request):
        proxy.inject(lambda request: request.answer(*request.forward()))
    proxy.inject(kill)
    processes.append(start(work, *arguments, emulator=proxy.url, **options))
    processes[0].join()
    proxy.faults.clear()
    assert processes[0].exitcode in (0, -signal.SIGKILL)
    return processes[0].exitcode


def _run(
    work: Callable,
    arguments: tuple,
    temporary: Path,
    change: int | None,
    emulator: str | None,
    counted: Synchronized | None = None,
) -> None:
    # The latter, too: else Python tries out the folder, with a file of its own.
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    if emulator is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = emulator
    number = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal number
        if event in _CHANGES and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            if number == change:
                os.kill(os.getpid(), signal.SIGKILL)
            number += 1
            if counted is not None:
                counted.value = number

    if change is not None or counted is not None:
        sys.addaudithook(count)
    work(*arguments)
