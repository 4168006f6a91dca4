"""Mistakes with the command itself, each one line."""

import subprocess
import sys

import pytest

from tests.small_training import REPOSITORY

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("module", "what", "package"),
    [
        *(
            (f"jobs.{job}", "a job", "jsonargparse")
            for job in ("train", "score", "nightly", "sweep", "prepare", "bench")
        ),
        ("api", "the service", "fastapi"),
    ],
)
def test_another_python_is_told_of_the_environment(module, what, package):
    # Without site-packages, as the system's Python is.
    command = [sys.executable, "-S", "-E", "-m", module, "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: {what} must run in the environment that holds its packages. Received: "
    )
    assert package in line
    assert ".venv/bin/python" in line
