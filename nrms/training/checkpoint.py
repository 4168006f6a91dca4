"""Checkpoints: all that a training needs to be resumed, in one file. These are the weights, the
optimizer, the position in the data and the best weights so far.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from nrms import storage
from nrms.errors import ArtifactError, ObjectNotFound
from nrms.storage.scratch import scratch_folder
from nrms.training.batches import Position


@dataclass
class Progress:
    """The state of a training apart from its weights.

    Attributes:
        position: how far training has come, which is where the next batch is.
        loss_sum: sum of the losses of samples so far in the current epoch.
        samples: number of samples so far in the current epoch.
        epochs: a row for each finished epoch: `loss`, `train_auc`, `val_auc` and the other
            validation metrics.
        run_id: id of the run in Weights & Biases, or None.
    """

    position: Position
    loss_sum: float
    samples: int
    epochs: list[dict[str, float]]
    run_id: str | None = None


class Checkpoint:
    """Saves and restores a training at one URI. A half-written checkpoint is never visible there.

    Args:
        output: the model root of the training.
        identity: all that the training's result depends on (configuration, data fingerprint),
            JSON-ready. A checkpoint is found again by the same identity only.

    Attributes:
        key: hash of the identity.
        folder: the folder of all checkpoints.
        uri: the file of this one.
    """

    def __init__(self, output: str, identity: dict):
        self.key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = storage.join(output, "checkpoints")
        self.uri = storage.join(self.folder, f"{self.key}.npz")

    def check(self) -> None:
        """Makes sure that checkpoints can be written, before hours of training depend on it.

        Raises:
            StorageError: they cannot be written.
        """
        probe = f"{self.uri}.probe"
        storage.write_bytes(b"", probe)
        storage.delete(probe)

    def save(self, arrays: dict[str, list[np.ndarray]], progress: Progress) -> None:
        """Replaces the checkpoint.

        Args:
            arrays: arrays in named groups: model, optimizer, best weights.
            progress: the rest of the state.

        Raises:
            StorageError: it cannot be written.
        """
        state = {
            "epoch": progress.position.epoch,
            "batch": progress.position.batch,
            "loss_sum": progress.loss_sum,
            "samples": progress.samples,
            "epochs": progress.epochs,
            "run_id": progress.run_id,
            "groups": {group: len(values) for group, values in arrays.items()},
        }
        flat: dict[str, Any] = {
            f"{group}/{i}": value
            for group, values in arrays.items()
            for i, value in enumerate(values)
        }
        with scratch_folder() as folder:
            path = folder / "checkpoint.npz"
            np.savez(path, state=np.frombuffer(json.dumps(state).encode(), np.uint8), **flat)
            storage.upload(path, self.uri)

    def load(self) -> tuple[dict[str, list[np.ndarray]], Progress] | None:
        """The arguments of the last `save`; None where there is no checkpoint.

        Raises:
            ArtifactError: the file is not a checkpoint.
            StorageError: the storage cannot be read.
        """
        try:
            data = storage.read_bytes(self.uri)
        except ObjectNotFound:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as saved:
                state = json.loads(saved["state"].tobytes())
                arrays = {
                    group: [saved[f"{group}/{i}"] for i in range(count)]
                    for group, count in state["groups"].items()
                }
                progress = Progress(
                    Position(state["epoch"], state["batch"]),
                    state["loss_sum"],
                    state["samples"],
                    state["epochs"],
                    state.get("run_id"),
                )
        except Exception as error:  # a damaged file may raise anything
            raise ArtifactError(
                f"{self.uri}: must be a checkpoint. Received: "
                f"{error}. Delete it, or train without --resume."
            ) from None
        return arrays, progress

    def delete(self) -> None:
        """Removes the checkpoint, if there is one."""
        storage.delete(self.uri)
