"""Records batches and epochs in Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from nrms.tracking import Tracker


class TrackerCallback(keras.callbacks.Callback):
    """Sends the loss and throughput of each batch and the metrics of each epoch to a tracker. The
    run's result is the metrics of the best epoch.

    Args:
        tracker: records them.
        epochs: the rows of the epochs before a training was resumed.
        before: the epochs and the steps of the fits before this one.
    """

    def __init__(
        self,
        tracker: Tracker,
        epochs: Sequence[dict[str, float]] = (),
        before: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        self._tracker = tracker
        self._epochs = list(epochs)
        self._epochs_before, self._steps_before = before

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """See `keras.callbacks.Callback`."""
        step = self._steps_before + len(self._epochs) * self.params["steps"] + batch + 1
        self._tracker.log({f"train/{name}": value for name, value in (logs or {}).items()}, step)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See `keras.callbacks.Callback`."""
        self._epochs.append(dict(logs or {}))
        step = self._steps_before + len(self._epochs) * self.params["steps"]
        self._tracker.log({"epoch": self._epochs_before + epoch + 1, **self._epochs[-1]}, step)
        best = max(range(len(self._epochs)), key=lambda i: self._epochs[i]["val_auc"])
        best_epoch = self._epochs_before + best + 1
        self._tracker.summary({**self._epochs[best], "best_epoch": best_epoch})
