"""The service's side of reading uploads: the processes that fork a child for each, see
`api.uploads.decoder_process`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

from api.settings import Settings
from api.uploads.contract import FILE, Decoded, Task
from api.uploads.decoder_process import DISK_FULL, RESULT
from nrms.data.schema import schema_error
from nrms.errors import SchemaError

_LISTED = 100  # candidates and clicks of a request with events, for each event that it may hold
_GRACE = 1.0  # seconds beyond a task's own before its process is killed


class DecoderUnavailable(Exception):
    """No child could finish, because of this machine and not because of the upload."""


class DecoderPool:
    """Reads uploads, each in a child process; as many at once as there are workers.

    Args:
        settings: the number of workers, and the limits of an upload.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[_Decoder | None] = queue.SimpleQueue()
        for _ in range(settings.workers):
            self._idle.put(None)  # a process is started when it is first needed

    def start(self) -> None:
        """Starts all processes and waits until they are ready."""
        started = []
        for _ in range(self._idle.qsize()):
            started.append(self._idle.get() or _Decoder())
        for decoder in started:
            self._idle.put(decoder)

    def decode(self, folder: Path, strings: bool | None, events: bool = False) -> Decoded:
        """Reads an upload, and leaves it in its folder as plain Parquet.

        Args:
            folder: see `api.uploads`.
            strings: whether the catalogue's article ids are strings, and not integers; None where
                there is no catalogue.
            events: whether the upload holds events.

        Raises:
            SchemaError: it breaks the contract or a limit, or what reads it died of it.
            DecoderUnavailable: a child was killed from outside twice, or the disk is full.
        """
        task = self._task(folder, strings, events)
        for _ in range(2):
            status = self._run(task)
            if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
                raise schema_error(
                    f"A file must be read within {task.seconds:g} seconds.",
                    "one that takes longer",
                    FILE,
                    "Send it in several uploads.",
                )
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                _clear(folder)
                continue  # killed from outside, so the upload gets another child
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == DISK_FULL:
                raise DecoderUnavailable("no room on the disk for the upload")
            return _result(folder, task)
        raise DecoderUnavailable("the process that reads uploads was killed")

    def close(self) -> None:
        """Ends all idle processes."""
        while not self._idle.empty():
            decoder = self._idle.get()
            if decoder is not None:
                decoder.kill()

    def _task(self, folder: Path, strings: bool | None, events: bool) -> Task:
        limits = self._settings
        return Task(
            folder=str(folder),
            events=events,
            strings=strings,
            max_impressions=limits.max_events if events else limits.max_impressions,
            max_candidates=limits.max_candidates,
            max_entries=_LISTED * limits.max_events if events else limits.max_entries,
            max_articles=limits.max_articles,
            memory_bytes=limits.decode_memory_bytes,
            seconds=limits.decode_seconds,
        )

    def _run(self, task: Task) -> int | None:
        """The child's wait status: that of SIGKILL where its parent died, None where the time ran
        out.
        """
        decoder = self._idle.get()
        status: int | None = int(signal.SIGKILL)
        try:
            if decoder is None or decoder.process.poll() is not None:
                decoder = None
                decoder = _Decoder()
            status = decoder.run(task)
            self._idle.put(decoder)
            return status
        except TimeoutError:
            status = None
        except (OSError, ValueError):
            pass
        if decoder is not None:
            decoder.kill()
        self._idle.put(None)
        return status


class _Decoder:
    """One waiting process."""

    def __init__(self) -> None:
        # Arrow's own allocators reserve address space that the limit would count.
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api.uploads.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parent.parent.parent,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        try:
            self._answer(30.0)
        except OSError as error:
            self.kill()
            raise BrokenPipeError("the process did not start") from error

    def run(self, task: Task) -> int:
        self._stdin.write(task.line())
        self._stdin.flush()
        return int(self._answer(task.seconds + _GRACE))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._stdin.close()
        self._stdout.close()

    def _answer(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(end - time.monotonic()):
                    raise TimeoutError
                more = os.read(self._stdout.fileno(), 100)
                if not more:
                    raise BrokenPipeError("the process has ended")
                answer += more
        return answer


def _result(folder: Path, task: Task) -> Decoded:
    try:
        result = json.loads((folder / RESULT).read_text())
    except (OSError, ValueError):
        # The child died before it wrote a result: Arrow crashed, or met the memory limit.
        raise schema_error(
            "A file must be whole Parquet that can be read "
            f"within {task.memory_bytes:,} bytes of memory.",
            "one that broke the process reading it",
            FILE,
            "Write the file again, with pyarrow or Polars, or send it in several uploads.",
        ) from None
    if "error" in result:
        parts = result["error"]
        raise SchemaError(parts["rule"], parts)
    return Decoded(**result)


def _clear(folder: Path) -> None:
    """Removes what a killed child left behind."""
    (folder / RESULT).unlink(missing_ok=True)
    (folder / "articles.parquet").unlink(missing_ok=True)
    (folder / "events.parquet").unlink(missing_ok=True)
    for path in (folder / "upload").glob("*"):
        path.unlink()
    with contextlib.suppress(FileNotFoundError):
        (folder / "upload").rmdir()
