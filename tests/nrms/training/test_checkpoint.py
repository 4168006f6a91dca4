import numpy as np
import pytest

from nrms import storage
from nrms.errors import ArtifactError
from nrms.training.batches import Position
from nrms.training.checkpoint import Checkpoint, Progress

ARRAYS = {
    "model": [np.arange(6.0).reshape(2, 3), np.array(7)],
    "optimizer": [np.zeros(0, np.int64)],
    "best": [],
}
PROGRESS = Progress(Position(3, 17), 12.5, 340, [{"loss": 1.5, "val_auc": 0.61}])


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.system)])
def output(request, tmp_path):
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def test_what_is_saved_last_is_what_is_loaded(output):
    checkpoint = Checkpoint(output, {"lr": 1e-4})
    checkpoint.save(
        {"model": [np.zeros(1)], "optimizer": [], "best": []}, Progress(Position(), 0.0, 0, [])
    )
    checkpoint.save(ARRAYS, PROGRESS)
    arrays, progress = Checkpoint(output, {"lr": 1e-4}).load()
    assert progress == PROGRESS
    assert arrays.keys() == ARRAYS.keys()
    for group, values in ARRAYS.items():
        for value, loaded in zip(values, arrays[group], strict=True):
            np.testing.assert_array_equal(loaded, value)
            assert loaded.dtype == value.dtype


def test_another_identity_is_another_checkpoint(output):
    Checkpoint(output, {"lr": 1e-4}).save(ARRAYS, PROGRESS)
    assert Checkpoint(output, {"lr": 1e-3}).load() is None


def test_deleting_twice_is_fine(output):
    checkpoint = Checkpoint(output, {})
    checkpoint.save(ARRAYS, PROGRESS)
    checkpoint.delete()
    checkpoint.delete()
    assert checkpoint.load() is None


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 200]
)
def test_a_damaged_checkpoint_is_refused_by_name(output, damage):
    checkpoint = Checkpoint(output, {})
    checkpoint.save(ARRAYS, PROGRESS)
    storage.write_bytes(damage(storage.read_bytes(checkpoint.uri)), checkpoint.uri)
    with pytest.raises(ArtifactError, match=f"{checkpoint.uri}: must be a checkpoint"):
        checkpoint.load()


@pytest.mark.parametrize("state", [b"[]", b"[" * 100_000, b'{"groups": []}', b"null"])
def test_a_checkpoint_whose_state_makes_no_sense_is_refused_by_name(output, state, tmp_path):
    checkpoint = Checkpoint(output, {})
    np.savez(tmp_path / "x.npz", state=np.frombuffer(state, np.uint8))
    storage.upload(tmp_path / "x.npz", checkpoint.uri)
    with pytest.raises(ArtifactError, match=f"{checkpoint.uri}: must be a checkpoint"):
        checkpoint.load()
