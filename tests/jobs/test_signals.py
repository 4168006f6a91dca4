"""SIGTERM and Ctrl-C end a job wherever it is, with one line and an exit code; nothing temporary
stays.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.litter import listing
from tests.small_training import REPOSITORY

pytestmark = pytest.mark.system

JOB = """
import ctypes, logging, sys, threading, time
from pathlib import Path
from jobs import cli, signals
from nrms import storage
from nrms.data.prefetch import prefetch
from nrms.storage import local
from nrms.storage.scratch import scratch_folder

def ready():
    print("ready", flush=True)

def wait(stream=None):
    if stream is not None:
        stream.write(bytes(1 << 20))
    ready()
    time.sleep(600)

def hear_nothing():
    ready()
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass

def make_an_error_of_it():
    try:
        wait()
    except BaseException:
        raise ValueError("of a library") from None

def block():
    mutex = ctypes.create_string_buffer(128)
    ready()
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def read_ahead(folder):
    def items():
        local.write(folder / "download", wait, None)
        yield
    for _ in prefetch(items()):
        pass

signals._GRACE = float(sys.argv[3])
def work():
    with scratch_folder() as folder:
        storage.write_bytes(b"", folder / "a" / "b")
        output = Path(sys.argv[2])
        eval(sys.argv[1])
cli.end_with(work)
"""
MOMENTS = {
    "it sleeps": "wait()",
    "a library hears no exception": "hear_nothing()",
    "a library makes an error of it": "make_an_error_of_it()",
    "it is in C": "block()",
    "a thread reads ahead": "read_ahead(folder)",
    "it writes an output": "local.write(output / 'x', wait, None)",
}


def start(tmp_path: Path, moment: str, grace: float = 0.5) -> subprocess.Popen:
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", JOB, moment, str(tmp_path / "output"), str(grace)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, **pipes
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "error: stopped by SIGTERM\n"),
        (signal.SIGINT, 130, "error: stopped by Ctrl-C\n"),
    ],
)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_a_job_cleaned_up_when(moment, number, code, line, tmp_path):
    process = start(tmp_path, MOMENTS[moment])
    assert listing(tmp_path / "tmp") != []
    process.send_signal(number)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (code, line)
    assert listing(tmp_path / "tmp") == []
    assert listing(tmp_path / "output") == []


@pytest.mark.parametrize("moment", ["a library hears no exception", "it is in C"])
def test_a_second_signal_waits_for_nothing(moment, tmp_path):
    process = start(tmp_path, MOMENTS[moment], grace=10_000)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (143, "error: stopped by SIGTERM\n")
    assert listing(tmp_path / "tmp") == []


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_a_signal_ends_a_job_cleaned_up_in_the_middle_of_tensorflow_s_import(tmp_path):
    process = start(tmp_path, "ready() or __import__('tensorflow')")
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtensorflow" not in maps.read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert (process.returncode, errors.splitlines()[-1]) == (143, "error: stopped by SIGTERM")
    assert "Traceback" not in errors
    assert listing(tmp_path / "tmp") == []
