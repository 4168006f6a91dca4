"""Keeps TensorFlow's lines about itself out of the terminal and the log of a job.

Its C++ parts write them to file descriptor 2, which Python does not see, and before they read
`TF_CPP_MIN_LOG_LEVEL`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType

# It runs in a process of its own, so that the last words of this one still arrive if it crashes.
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
noise = re.compile(rb"[IWE]\\d{4} [\\d:]|WARNING: All log messages before absl::InitializeLog")
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""


def quiet_tensorflow() -> None:
    """Hides, from now on, what TensorFlow writes when it is imported, and afterwards all lines but
    errors.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules and not any(
        isinstance(finder, _Finder) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds TensorFlow by the other finders, and filters what its import writes."""

    _searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow" or self._searching:
            return None
        self._searching = True  # so that only the other finders answer
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module: ModuleType) -> None:
                with _filtered_stderr():
                    load(module)

            spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    try:
        stderr = os.dup(2)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr, stderr=stderr)
        assert process.stdin is not None
    except Exception:  # for example no standard error: hiding lines is not worth an error
        yield
        return
    sys.stderr.flush()
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        # The filter ends late if the child of another thread has inherited the pipe that it reads.
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
