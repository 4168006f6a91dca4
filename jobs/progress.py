"""What a person watches while a job runs."""

from __future__ import annotations

import logging

import keras
from tqdm import tqdm

logger = logging.getLogger("nrms.train")


class TrainingProgress(keras.callbacks.Callback):
    """A bar on a terminal while an epoch trains, and a line with its metrics when it is done."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the bar."""
        self._name = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._bar = tqdm(total=self.params["steps"], desc=self._name, unit="batch", disable=None)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Moves the bar; a resumed epoch starts where it was left."""
        self._bar.set_postfix_str(f"loss {logs['loss']:.4f}, {logs['samples_per_second']:.0f} samples/s", refresh=False)
        self._bar.update(batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the bar and says how the epoch went."""
        self._bar.close()
        logger.info("%s: %s", self._name, ", ".join(f"{name} {value:.4f}" for name, value in logs.items()))
