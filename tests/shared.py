"""What is expensive to make and the same for all tests, made once a session whatever the number of
its processes.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


class Shared:
    """Folders that all processes of a test session share. Tests read them; one that writes takes a
    copy.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        self.root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
        self.root.mkdir(exist_ok=True)

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`, filled by `make` in the process that asks first; the others wait for
        it.
        """
        folder, done = self.root / name, self.root / f"{name}.done"
        with FileLock(self.root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder
