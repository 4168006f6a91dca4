"""Reads uploads in processes of their own, which may die: `python -m api.uploads.decoder_process`,
started by `api.uploads.decoder_pool`.

A process waits, and forks a child for each upload, with limits of memory and time. The child reads
the hostile Parquet, see `api.uploads.parquet_files` and `api.uploads.event_files`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path

import numpy.ma  # noqa: F401  otherwise pyarrow imports it in each child, which takes long
import pyarrow as pa

from api.uploads import event_files, parquet_files
from api.uploads.contract import FILE, Task
from nrms.data.schema import schema_error
from nrms.errors import SchemaError

RESULT = "result.json"
# the child's exit code when it could not write, as it cannot write the reason either
DISK_FULL = os.EX_IOERR


def _child(task: Task) -> int:
    """What the child does: it limits itself, reads, and writes the result. Gives its exit code."""
    folder = Path(task.folder)
    _lower(resource.RLIMIT_AS, _address_space() + task.memory_bytes)
    _lower(resource.RLIMIT_CPU, max(1, round(task.seconds)))
    _lower(resource.RLIMIT_FSIZE, 4 * task.memory_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    try:
        decode = event_files.decode if task.events else parquet_files.decode
        result = asdict(decode(task))
    except SchemaError as error:
        if isinstance(error.__cause__, MemoryError):
            error = _too_large(task.memory_bytes)
        result = {
            "error": error.parts or {"rule": str(error), "received": "", "where": FILE, "todo": ""}
        }
    except MemoryError:
        result = {"error": _too_large(task.memory_bytes).parts}
    except OSError:
        return DISK_FULL
    try:
        (folder / RESULT).write_text(json.dumps(result))
    except OSError:
        return DISK_FULL
    return 0


def _address_space() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 0


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(limit, (value, value))
    except (ValueError, OSError):  # macOS has no limit of the address space
        return


def _too_large(memory_bytes: int) -> SchemaError:
    return schema_error(
        f"A file may take {memory_bytes:,} bytes when it is read.",
        "one that takes more",
        FILE,
        "Send it in several uploads.",
    )


def main() -> None:
    """Reads a task from each line of stdin and answers it with the child's wait status, a line
    on stdout.
    """
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)  # Arrow prints parts of a hostile file before it aborts; no log may hold them
    os.write(answers, b"ready\n")
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = _child(Task(**json.loads(line)))
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{status}\n".encode())


if __name__ == "__main__":
    main()
