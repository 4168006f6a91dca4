"""Everything that a training run needs to go on, in one object: weights, optimizer, position, best
so far.
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
    """What changes from epoch to epoch, apart from weights.

    Attributes:
        position: the next batch.
        loss_sum: sum of the sample losses of the current epoch.
        samples: samples of the current epoch.
        epochs: one row per finished epoch: `loss`, `val_auc` and the other validation metrics.
        run_id: of the run that Weights & Biases records, or None.
    """

    position: Position
    loss_sum: float
    samples: int
    epochs: list[dict[str, float]]
    run_id: str | None = None


class Checkpoint:
    """Saves and restores a run at one URI; a half-written checkpoint is never visible.

    Args:
        output: the model root of the run.
        identity: what decides the run's course (configuration, data fingerprint), JSON-ready. A
            checkpoint is found again by the same identity only.

    Attributes:
        key: of the identity.
        folder: where checkpoints lie.
        uri: of this one.
    """

    def __init__(self, output: str, identity: dict):
        self.key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = storage.join(output, "checkpoints")
        self.uri = storage.join(self.folder, f"{self.key}.npz")

    def check(self) -> None:
        """Makes sure that checkpoints can be written, before hours of training depend on it.

        Raises:
            StorageError: they cannot.
        """
        probe = f"{self.uri}.probe"
        storage.write_bytes(b"", probe)
        storage.delete(probe)

    def save(self, arrays: dict[str, list[np.ndarray]], progress: Progress) -> None:
        """Replaces the checkpoint.

        Args:
            arrays: groups of arrays: model, optimizer, best weights.
            progress: the rest.
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
        """What `save` last saved; None if nothing is there.

        Raises:
            ArtifactError: it cannot be read.
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
        except Exception as error:  # whatever a damaged file makes of the reading
            raise ArtifactError(
                f"{self.uri}: must be a checkpoint. Received: "
                f"{error}. Delete it, or train without --resume."
            ) from None
        return arrays, progress

    def delete(self) -> None:
        """Removes the checkpoint; one that is not there is fine."""
        storage.delete(self.uri)
