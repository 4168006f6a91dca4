"""Signals to processes that are not ours, and so may have ended meanwhile."""

import os
import signal


def send(pid: int, number: int = signal.SIGTERM, group: bool = False) -> bool:
    """Whether there was still such a process, or with `group` such a group of processes."""
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    return True
