"""Whether the process of a job says its own lines and no library's."""

import json
import os
import subprocess


def plain_environment() -> dict[str, str]:
    """The environment without what tests/conftest.py says of TensorFlow's lines."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TF_")}


def assert_only_our_lines(done: subprocess.CompletedProcess) -> None:
    """Of a process that has ended; its output is text."""
    for line in done.stderr.splitlines():
        assert json.loads(line)["logger"].startswith("nrms"), line
    assert not any(word in done.stdout for word in ("WARNING", "tensorflow", "0000 00:"))
