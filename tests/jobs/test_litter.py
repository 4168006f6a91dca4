"""SIGTERM, and kill -9 with one more run, leave in the temporary folder and the outputs what an
unbroken run leaves.
"""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from nrms import storage
from tests.litter import listing
from tests.small_training import REPOSITORY, SMALL

pytestmark = pytest.mark.system
DEMO = {
    "articles": 600,
    "users": 200,
    "impressions": 1500,
    "validation_impressions": 400,
    "shard_rows": 100,
}
SPACE = (
    "method: grid\nmetric: {name: val_auc, goal: maximize}\nparameters: {lr: {values: [0.01]}}\n"
)
BENCH = {"articles": 500, "users": 100, "impressions": 400}


def command(job, values):
    return [
        sys.executable,
        "-m",
        *job.split(),
        *(f"--{name.replace('_', '-')}={v}" for name, v in values.items()),
    ]


class Runs:
    """Runs of one command, all with one temporary folder."""

    def __init__(self, folder, job, values):
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self._command = command(job, values)

    def start(self):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        return subprocess.Popen(self._command, cwd=REPOSITORY, env=environment, **pipes)

    def end(self, process, number, condition):
        """Sends the signal as soon as the condition holds, for which the process leaves time; gives
        stderr.
        """
        while not condition():
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate()
        if number == signal.SIGTERM:
            assert process.returncode == 143, errors
            assert [
                line for line in errors.splitlines() if line.startswith("error:")
            ] == errors.splitlines()[-1:]
            assert "Traceback" not in errors
            assert listing(self.temporary) == []
        else:
            assert process.returncode == -signal.SIGKILL
            assert listing(self.temporary) != []
        return errors

    def whole(self):
        process = self.start()
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert listing(self.temporary) == []
        return output


def paths(output):
    """All paths, with VERSION for the names of versions, which differ from run to run."""
    names = listing(output) if not storage.is_gcs(output) else sorted(storage.list_paths(output))
    return [re.sub(r"\d{8}T\d{6}Z-\w{8}", "VERSION", name) for name in names]


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    return (
        str(tmp_path / "root") if request.param == "folder" else request.getfixturevalue("bucket")
    )


@pytest.fixture(scope="module")
def unbroken():
    """Gives what an unbroken run of a job leaves in a storage; the first call runs the job."""
    left = {}

    def ask(root, job, values, folder):
        key = storage.is_gcs(root), job
        if key not in left:
            Runs(folder, job, values).whole()
            left[key] = paths(values["output"])
        return left[key]

    return ask


# None: Windows
NUMBERS = pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGKILL", None)])


def scoring(world, root, output):
    values = {
        "model": world.version,
        "data": storage.join(root, "data"),
        "output": storage.join(root, output),
    }
    return {
        **values,
        "article_vectors": storage.join(root, "vectors"),
        "runtime": "onnx",
        "wandb_mode": "disabled",
    }


@NUMBERS
def test_scoring(number, world, root, tmp_path, unbroken):
    for path, info in storage.list_paths(world.data).items():
        storage.upload(info.uri, storage.join(root, "data", path))
    output = storage.join(root, "out")
    runs = Runs(tmp_path, "jobs.score", scoring(world, root, "out"))
    # Ours: Python itself tries out the temporary folder with a file of an instant.
    runs.end(runs.start(), number, lambda: any("nrms-" in path for path in listing(runs.temporary)))
    runs.end(runs.start(), number, lambda: "part-00000.parquet" in storage.list_paths(output))
    runs.whole()
    values = scoring(world, root, "unbroken")
    assert paths(output) == unbroken(root, "jobs.score", values, tmp_path / "other")


@NUMBERS
def test_preparing(number, root, tmp_path, unbroken):
    output = storage.join(root, "out")
    values = {"source": "demo", "output": output, **DEMO}
    runs = Runs(tmp_path, "jobs.prepare", values)
    for name in ("articles.parquet", "train/behaviors-00003.parquet", "validation/history.parquet"):
        runs.end(runs.start(), number, lambda name=name: name in storage.list_paths(output))
    runs.whole()
    values["output"] = storage.join(root, "unbroken")
    assert paths(output) == unbroken(root, "jobs.prepare", values, tmp_path / "other")


def test_nights(world, tmp_path):
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "2026-11-25").symlink_to(world.data)
    dated = {
        "data": tmp_path / "days/{date}",
        "output": tmp_path / "out/{date}",
        "date": "2026-11-25",
        "days": 1,
    }
    runs = Runs(tmp_path, "jobs.nightly", {**scoring(world, str(tmp_path), "out"), **dated})
    errors = runs.end(runs.start(), signal.SIGTERM, lambda: listing(tmp_path / "out"))
    assert errors.splitlines()[-1] == "error: stopped by SIGTERM"
    assert "complete" in runs.whole()


def test_a_training_before_it_trains(world, tmp_path):
    runs = Runs(
        tmp_path, "jobs.train", {**SMALL, "data": world.data, "output": tmp_path / "models"}
    )
    errors = runs.end(
        runs.start(),
        signal.SIGTERM,
        lambda: any("nrms-" in path for path in listing(runs.temporary)),
    )
    assert errors.splitlines()[-1] == "error: stopped by SIGTERM"
    assert "models" not in listing(tmp_path) or listing(tmp_path / "models") in (
        [],
        ["checkpoints"],
    )


def test_a_sweep_and_the_training_of_its_trial(world, tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    names = {
        "space": tmp_path / "space.yaml",
        "study": tmp_path / "study",
        "output": tmp_path / "models",
    }
    runs = Runs(
        tmp_path, "jobs.sweep", {**SMALL, "data": world.data, **names, "checkpoint_seconds": 0.05}
    )
    checkpoints = tmp_path / "models" / "trial-0000" / "checkpoints"
    runs.end(
        runs.start(),
        signal.SIGTERM,
        lambda: any(name.endswith(".npz") for name in listing(checkpoints)),
    )


def test_a_benchmark(tmp_path):
    runs = Runs(tmp_path, "jobs.bench train", BENCH)
    runs.end(
        runs.start(),
        signal.SIGTERM,
        lambda: [n for n in listing(runs.temporary) if n.endswith(".parquet")],
    )
