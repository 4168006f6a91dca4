"""A small disk of its own, for the tests of a full one."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest


class Disk:
    """64 MiB at `path`; fixture `disk`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        if os.geteuid() or subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path]
        ):
            pytest.skip("no right to mount a small disk")

    def leave(self, size: int) -> None:
        """Fills it up to so many bytes."""
        ballast = self.path / "ballast"
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        os.truncate(ballast, ballast.stat().st_size - size)

    def clear(self) -> None:
        (self.path / "ballast").unlink()
