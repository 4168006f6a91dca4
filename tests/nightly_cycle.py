"""Two days of the system without containers, in a bucket of fake-gcs-server: `python -m
tests.nightly_cycle`.

Day 1: data, training, the service comes up, the night is scored. Day 2: data, the night is scored,
training again while uploads arrive: the running service exchanges the model and drops none of them.
Every artefact is checked on the way.
"""

import io
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from nrms import storage
from tests.conftest import FakeGcs
from tests.service import RunningService
from tests.small_training import METRICS, REPOSITORY, SMALL

DAYS = ("2026-01-01", "2026-01-02")
# The same site on both days: its articles and readers follow from the seed, its impressions from
# their number, too.
SITE = (
    "--source",
    "demo",
    "--seed",
    "3",
    "--articles",
    "600",
    "--users",
    "150",
    "--shard-rows",
    "200",
)
TRAINING = [
    word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))
]


class Cycle:
    """The bucket and what has been done in it."""

    def __init__(self, bucket: str, folder: Path) -> None:
        self.folder = folder
        self.days, self.models = f"{bucket}/days", f"{bucket}/models"
        self.predictions = f"{bucket}/predictions"

    def job(self, name: str, *flags: str) -> str:
        """Runs `python -m jobs.NAME` as the docs do; what it printed."""
        command = [sys.executable, "-m", f"jobs.{name}", *flags]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def prepare(self, day: str, impressions: int) -> None:
        rows = ("--impressions", "1200", "--validation-impressions", str(impressions))
        self.job("prepare", *SITE, *rows, "--output", f"{self.days}/{day}")
        for split in ("train", "validation"):
            assert storage.exists(f"{self.days}/{day}/{split}/_SUCCESS")

    def train(self, day: str, seed: int) -> dict:
        """The published version's meta.json."""
        printed = self.job(
            "train",
            "--data",
            f"{self.days}/{day}",
            "--output",
            self.models,
            *TRAINING,
            "--seed",
            str(seed),
        )
        latest = json.loads(storage.read_bytes(f"{self.models}/latest.json"))
        version = f"{self.models}/{latest['version']}"
        assert f"model: {version}" in printed
        meta = json.loads(storage.read_bytes(f"{version}/meta.json"))
        for name in meta["files"]:
            assert storage.exists(f"{version}/{name}")
        assert meta["metrics"]["auc"] > meta["metrics"]["baselines"]["random"]["auc"]
        return meta

    def score(self, day: str, meta: dict, runtime: str) -> dict:
        """The night's metrics."""
        flags = (
            "--model",
            self.models,
            "--data",
            self.days + "/{date}",
            "--date",
            day,
            "--wandb-mode",
            "disabled",
            "--runtime",
            runtime,
        )
        output = ("--output", self.predictions + "/date={date}")
        printed = self.job("score", *flags, *output)
        folder = f"{self.predictions}/date={day}"
        assert storage.exists(f"{folder}/_SUCCESS")
        manifest = json.loads(storage.read_bytes(f"{folder}/manifest.json"))
        assert manifest["model"]["version"] == meta["version"]
        shards = len(storage.list_files(f"{self.days}/{day}/validation/", ".parquet")) - 1
        assert [file["name"] for file in manifest["files"]][:shards] == [
            f"part-{i:05}.parquet" for i in range(shards)
        ]
        rows = sum(file.get("rows", 0) for file in manifest["files"])
        metrics = json.loads(storage.read_bytes(f"{folder}/metrics.json"))
        assert rows == metrics["impressions"]
        assert b"<html" in storage.read_bytes(f"{folder}/report.html")
        assert "parts written now" in printed
        assert "complete already, nothing to do" in self.job("score", *flags, *output)
        return metrics | {"log": printed}

    def first_part(self, day: str) -> np.ndarray:
        table = pq.read_table(
            io.BytesIO(storage.read_bytes(f"{self.predictions}/date={day}/part-00000.parquet"))
        )
        return table["scores"].combine_chunks().flatten().to_numpy()

    def upload(self, service: RunningService, day: str) -> tuple[str, np.ndarray]:
        """Version and scores of the day's first behaviours file, by the service."""
        split = f"{self.days}/{day}/validation"
        files = [
            storage.read_bytes(f"{split}/{name}.parquet") for name in ("behaviors-00000", "history")
        ]
        answer = service.predict(*files, format="parquet")
        assert answer.status_code == 200, answer.text
        scores = (
            pq.read_table(io.BytesIO(answer.content))["scores"]
            .combine_chunks()
            .flatten()
            .to_numpy()
        )
        return answer.headers["X-Model-Version"], scores


def run(bucket: str, folder: Path) -> None:
    """The two days. STORAGE_EMULATOR_HOST must say where the bucket is."""
    cycle = Cycle(bucket, folder)
    first, second = DAYS
    cycle.prepare(first, 400)
    old = cycle.train(first, seed=1)
    with RunningService(folder / "service.log", MODEL_URI=cycle.models) as service:
        metrics = cycle.score(first, old, "keras")
        for name in METRICS:
            assert abs(metrics[name] - old["metrics"][name]) < 1e-6
        version, scores = cycle.upload(service, first)
        assert version == old["version"]
        np.testing.assert_allclose(scores, cycle.first_part(first), atol=1e-5)

        cycle.prepare(second, 500)
        metrics = cycle.score(second, old, "onnx")
        assert metrics["impressions"] == 500
        assert "600 articles, 0 of them encoded now" in metrics["log"]

        new, versions = _retrain_under_load(cycle, service, second)
        assert versions == sorted(versions)
        assert set(versions) == {old["version"], new["version"]}
        assert service.client.get("/info").json()["model"]["version"] == new["version"]
        flags = (
            "--data",
            f"{cycle.days}/{second}",
            "--output",
            f"{cycle.predictions}/date={second}",
        )
        command = [
            sys.executable,
            "-m",
            "jobs.score",
            "--model",
            cycle.models,
            *flags,
            "--wandb-mode",
            "disabled",
        ]
        refused = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2
        assert "--overwrite" in refused.stderr.splitlines()[-1]
    for left in ("predictions", "days", "models"):
        assert not [
            info.uri for info in storage.list_files(f"{bucket}/{left}") if ".tmp" in info.uri
        ]


def _retrain_under_load(
    cycle: Cycle, service: RunningService, day: str
) -> tuple[dict, Sequence[str]]:
    """Trains while one upload arrives after the other; the new version, and the versions that
    answered, in order.
    """
    versions: list[str] = []
    scores: dict[str, np.ndarray] = {}
    done = threading.Event()
    failed: list[BaseException] = []

    def upload() -> None:
        try:
            while not done.is_set():
                version, found = cycle.upload(service, day)
                versions.append(version)
                np.testing.assert_array_equal(found, scores.setdefault(version, found))
                done.wait(0.05)  # else it takes half of the processor from the training
        except BaseException as error:
            failed.append(error)

    uploads = threading.Thread(target=upload)
    uploads.start()
    try:
        new = cycle.train(day, seed=2)
        while not failed and (not versions or versions[-1] != new["version"]):
            done.wait(0.05)
    finally:
        done.set()
        uploads.join()
    if failed:
        raise failed[0]
    return new, versions


if __name__ == "__main__":
    import os

    with tempfile.TemporaryDirectory() as name:
        server = FakeGcs()
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        try:
            run(server.create_bucket(), Path(name))
        finally:
            server.kill()
    print("both days are as they should be")  # noqa: T201
