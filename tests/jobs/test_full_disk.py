"""A full temporary disk ends every job with one line that names it, whatever library
was writing.
"""

import tempfile
import zipfile

import h5py
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from jobs import nightly, prepare, score, train
from jobs.cli import run
from nrms import storage
from nrms.errors import StorageError
from nrms.evaluation import plots
from nrms.features.tokenizer import Tokenizer
from nrms.nights.config import NightlyConfig, ScoreConfig
from nrms.storage.scratch import scratch_folder
from nrms.training.config import TrainConfig
from nrms.training.run import train as train_model
from tests.litter import listing
from tests.small_training import SMALL

pytestmark = pytest.mark.system

NOISE = np.random.default_rng(0).bytes(1 << 20)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("x", "w") as stream:
        stream.write(NOISE)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.frombuffer(NOISE, np.uint8)


LIBRARIES = {
    "a file": lambda path: path.write_bytes(NOISE),
    "zipfile": write_zip,
    "NumPy's archive": lambda path: np.savez(path, x=np.frombuffer(NOISE, np.uint8)),
    "NumPy's array": lambda path: np.save(path, np.frombuffer(NOISE, np.uint8)),
    "Parquet": lambda path: pq.write_table(pa.table({"x": [NOISE]}), path),
    "HDF5": write_hdf5,
    "Keras": lambda path: keras.Sequential([keras.Input([500]), keras.layers.Dense(500)]).save(
        path / "m.keras"
    ),
    "Matplotlib": lambda path: Figure(figsize=(30, 30)).savefig(path, format="raw"),
    "a plot": lambda path: plots.save(
        plots.training_curves({"loss": [1.0] * 9, "val_auc": [0.5] * 9}), path
    ),
    "the tokenizer": lambda path: Tokenizer.train(
        [f"{n:x} {n * n:x}" for n in range(9_000)], 1
    ).save(path),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_full_disk_is_one_line_whatever_writes(library, disk):
    with pytest.raises(StorageError) as caught, scratch_folder(disk.path) as folder:  # noqa: PT012
        if library == "Keras":
            (folder / "x").mkdir()
        disk.leave(4096)
        LIBRARIES[library](folder / "x")
    assert str(disk.path) in str(caught.value)
    assert "could not be written: No space left on device" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert listing(disk.path) == ["ballast"]


@pytest.fixture
def full(disk, monkeypatch):
    """The temporary disk has room for so many bytes from now on."""
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    return disk.leave


def call(main, config_class, values):
    """The exit code of a job."""
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    with pytest.raises(SystemExit) as ended:
        run(main, config_class, "p", "d", argv)
    return ended.value.code


def failed(capsys, main, config_class, values, disk):
    """Runs a job that must fail; what it printed."""
    assert call(main, config_class, values) == 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    *_, line = err.splitlines()
    assert line.startswith("error: ")
    assert str(disk.path) in line
    assert "No space left on device" in line
    return out


def scoring(world, tmp_path, **values):
    paths = {
        "model": world.version,
        "data": world.data,
        "output": tmp_path / "out",
        "article_vectors": tmp_path / "v",
    }
    return {**paths, "runtime": "onnx", "wandb_mode": "disabled", **values}


@pytest.mark.parametrize("room", [0, 64 << 10], ids=["the part", "the report"])
def test_scoring(room, world, full, disk, tmp_path, capsys):
    full(room)
    failed(capsys, score.main, ScoreConfig, scoring(world, tmp_path), disk)
    assert "_SUCCESS" not in listing(tmp_path / "out")
    if room:
        assert "part-00000.parquet" in listing(tmp_path / "out")
    disk.clear()
    assert call(score.main, ScoreConfig, scoring(world, tmp_path)) == 0
    assert "_SUCCESS" in listing(tmp_path / "out")


def test_scoring_from_a_bucket(world, full, disk, bucket, tmp_path, capsys):
    for path, info in storage.list_paths(world.data).items():
        storage.upload(info.uri, storage.join(bucket, path))
    full(0)
    failed(capsys, score.main, ScoreConfig, scoring(world, tmp_path, data=bucket), disk)


def test_nights(world, full, disk, tmp_path, capsys):
    (tmp_path / "days").mkdir()
    for date in ("2026-11-25", "2026-11-24"):
        (tmp_path / "days" / date).symlink_to(world.data)
    full(0)
    paths = {
        "data": tmp_path / "days/{date}",
        "output": tmp_path / "out/{date}",
        "date": "2026-11-25",
        "days": 2,
    }
    out = failed(capsys, nightly.main, NightlyConfig, scoring(world, tmp_path, **paths), disk)
    assert [line[:18] for line in out.splitlines()] == ["2026-11-25  failed", "2026-11-24  failed"]


def test_preparing(full, disk, tmp_path, capsys):
    full(0)
    values = {
        "source": "demo",
        "articles": 600,
        "users": 50,
        "impressions": 200,
        "output": tmp_path / "out",
    }
    failed(capsys, prepare.main, prepare.PrepareConfig, values, disk)
    assert not [name for name in listing(tmp_path / "out") if "_SUCCESS" in name]


class Fills(keras.callbacks.Callback):
    def __init__(self, full):
        super().__init__()
        self._full = full

    def on_train_end(self, logs=None):
        self._full(0)


def test_training_that_cannot_write_its_checkpoint(world, full, disk, tmp_path, capsys):
    full(0)
    failed(
        capsys,
        train.main,
        TrainConfig,
        {"data": world.data, "output": tmp_path / "models", **SMALL},
        disk,
    )
    assert "latest.json" not in listing(tmp_path / "models")


def test_training_that_cannot_write_its_model(world, full, disk, tmp_path):
    config = TrainConfig(data=world.data, output=str(tmp_path / "models"), **{**SMALL, "epochs": 1})
    with pytest.raises(
        StorageError, match=f"{disk.path}.* could not be written: No space left on device"
    ):
        train_model(config, callbacks=[Fills(full)])
    assert "latest.json" not in listing(tmp_path / "models")
