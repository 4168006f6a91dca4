"""Mistakes with the command itself, each one line."""

import subprocess
import sys

import pytest

from tests.small_training import REPOSITORY

pytestmark = pytest.mark.system


@pytest.mark.parametrize("job", ["train", "score", "nightly", "sweep", "prepare", "bench"])
def test_another_python_is_told_of_the_environment(job):
    # Without site-packages, as the system's Python is.
    command = [sys.executable, "-S", "-E", "-m", f"jobs.{job}", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a job must run in the environment that holds its packages. Received: ")
    assert "jsonargparse" in line
    assert ".venv/bin/python" in line
