"""The service: an upload against the nightly job's time for the same rows; start and memory against
TensorFlow's.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.bench.machine import figure
from jobs.bench.score import FIXED, HISTORY_SIZES, Nights, prepare
from nrms.config import PositiveInt, Seed, option
from nrms.storage.scratch import scratch_folder

# Imports TensorFlow and prints how many seconds that took, and the resident bytes after it.
_TENSORFLOW = (
    "import time; start = time.perf_counter(); import tensorflow; "
    "seconds = time.perf_counter() - start; "
    "import pathlib; status = pathlib.Path('/proc/self/status').read_text(); "
    "print(seconds, 1024 * int(status.partition('VmRSS:')[2].split()[0]))"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured"""

    articles: PositiveInt = option(20_000, "articles of the demo data")
    users: PositiveInt = option(10_000, "readers of the demo data")
    impressions: PositiveInt = option(25_000, "impressions in the upload")
    rounds: PositiveInt = option(5, "measurements, in turns; their median counts")
    seed: Seed = option(1, "seed of the demo data")
    json: Path | None = option(
        None, "file for the figures: a list of objects with name, ours, naive, ratio, unit"
    )


@contextmanager
def running_service(models: Path, articles: Path) -> Iterator[tuple[str, float, int]]:
    """Runs a service. Gives its address, the seconds until it was ready, and its resident bytes at
    that moment.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "api"],
        env={
            **os.environ,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "MODEL_URI": str(models),
            "ARTICLES_URI": str(articles),
        },
    )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{url}/readyz"):
                    break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    raise RuntimeError("the service ended before it was ready") from None
                time.sleep(0.01)
        yield url, time.perf_counter() - start, _resident(process.pid)
    finally:
        process.terminate()
        process.wait()


def upload(url: str, files: dict[str, Path]) -> float:
    """Seconds that an upload takes, from the first byte sent to the last byte of the predictions
    read.
    """
    boundary = uuid.uuid4().hex
    body = b"".join(
        (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'
        ).encode()
        + path.read_bytes()
        + b"\r\n"
        for name, path in files.items()
    )
    request = urllib.request.Request(
        f"{url}/predict?format=parquet",
        data=body + f"--{boundary}--\r\n".encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return time.perf_counter() - start


def run_benchmark(options: Options) -> list[dict[str, Any]]:
    """Makes the data, measures everything, prints it; gives one row a case."""
    size = HISTORY_SIZES[0]
    with scratch_folder() as folder:
        prepare(folder, options)
        nights = Nights(folder)
        nights.run(size, "keras", warm=False)
        split = folder / "data" / "validation"
        files = {"file": split / "behaviors-00000.parquet", "history": split / "history.parquet"}
        with running_service(folder / f"models-{size}", folder / "data" / "articles.parquet") as (
            url,
            ready,
            resident,
        ):
            upload(url, files)
            batch, api = [], []
            for _ in range(options.rounds):
                night = nights.run(size, "keras", warm=True)
                batch.append(sum(seconds for stage, seconds in night.items() if stage not in FIXED))
                api.append(upload(url, files))
        done = subprocess.run(
            [sys.executable, "-c", _TENSORFLOW], capture_output=True, text=True, check=True
        )
        import_seconds, import_bytes = map(float, done.stdout.split())
    batch_seconds, api_seconds = statistics.median(batch), statistics.median(api)
    print(
        f"{options.impressions:,} impressions, history {size}, article vectors warm "
        f"(medians of {options.rounds}): nightly job {batch_seconds:.2f} s, without loading the "
        f"model and the report; upload {api_seconds:.2f} s, "
        f"{api_seconds / batch_seconds:.2f} times as long\n"
        f"start to ready {ready:.2f} s, {resident / 1e6:.0f} MB; "
        f"import tensorflow alone {import_seconds:.2f} s, {import_bytes / 1e6:.0f} MB"
    )
    return [
        figure("one upload, against the nightly job", api_seconds, batch_seconds, "s"),
        figure("start to ready, against import tensorflow", ready, import_seconds, "s"),
        figure(
            "memory when ready, against import tensorflow", resident / 1e9, import_bytes / 1e9, "GB"
        ),
    ]


def _resident(pid: int) -> int:
    return 1024 * int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])
