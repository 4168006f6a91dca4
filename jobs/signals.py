"""SIGTERM and Ctrl-C: whatever a job is doing, it ends soon, and takes away what is temporary."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nrms.errors import Interrupted
from nrms.storage.scratch import remove_own

logger = logging.getLogger("nrms.jobs")

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_GRACE = 5.0  # seconds for an orderly end: containers are given 10 by default
# Seconds within which the same signal counts once, because `timeout` sends it to a process and to
# the group of the process.
_ECHO = 1.0


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    It is not an `Exception`, because code that goes on after an error catches those: a night that
    fails, for example, is noted, and the next one begins.
    """


class _State:
    first: int | None = None  # the first signal
    stop: threading.Event | None = None  # a signal sets it; None: a signal raises Stopped


_state = _State()


@contextmanager
def raised(quiet: bool = False) -> Iterator[None]:
    """In the block, SIGTERM and Ctrl-C raise `Stopped` in the main thread.

    A library may take that for an error of its own and go on, and the main thread may be busy or
    waiting for minutes. So the process ends at once after some seconds, or at a second signal. It
    removes its temporary files even then.

    Args:
        quiet: whether the process then prints nothing, as a sweep's trial does.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():  # others hear no signals
        yield
        return
    state = _state = _State()
    over = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(
        target=_watch, args=[reader, state, over, quiet], name="signals", daemon=True
    ).start()
    fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _hear) for number in _NUMBERS}
    try:
        yield
    except Exception as error:
        if state.first is None or isinstance(error, Interrupted):
            raise
        raise Stopped from error  # a library turned Stopped into an error of its own
    finally:
        over.set()
        for number in _NUMBERS:
            signal.signal(number, before[number] if state.first is None else signal.SIG_IGN)
        signal.set_wakeup_fd(fd_before)
        os.close(writer)


def set_by_signals(stop: threading.Event) -> threading.Event:
    """From now on, the first SIGTERM or Ctrl-C sets `stop`, and a second one ends the process;
    gives `stop`.
    """
    _state.stop = stop
    return stop


def raise_again() -> None:
    """Takes `set_by_signals` back. Raises Stopped where a signal has come since."""
    stop, _state.stop = _state.stop, None
    if stop is not None and stop.is_set():
        raise Stopped


def exit_code() -> int:
    """The exit code of a process that a signal has ended: 143 or, after Ctrl-C, 130."""
    return 128 + (_state.first or signal.SIGTERM)


def last_words() -> str:
    """What a process says when a signal has ended it."""
    return "stopped by Ctrl-C" if _state.first == signal.SIGINT else "stopped by SIGTERM"


def _hear(number: int, frame: FrameType | None) -> None:
    _state.first = _state.first or number
    if _state.stop is None:
        raise Stopped
    _state.stop.set()


def _watch(reader: int, state: _State, over: threading.Event, quiet: bool) -> None:
    """Learns of signals from the system itself, whatever the main thread is doing."""

    def end() -> None:
        remove_own()
        if not quiet and not over.is_set():  # otherwise the last line has been printed
            os.write(2, f"error: {last_words()}\n".encode())
        os._exit(exit_code())

    arrived: dict[int, float] = {}
    with os.fdopen(reader, "rb", buffering=0) as numbers:
        while byte := numbers.read(1):
            (number,) = byte
            if number not in _NUMBERS:
                continue
            state.first = state.first or number
            if time.monotonic() - arrived.setdefault(number, time.monotonic()) > _ECHO:
                end()
            if len(arrived) > 1:
                continue
            if state.stop is not None:
                logger.info("stopping as soon as all is saved; a second signal stops at once")
            else:
                late = threading.Timer(_GRACE, end)
                late.daemon = True
                late.start()
