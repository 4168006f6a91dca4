"""What a person watches while a job runs."""

from __future__ import annotations

import logging
import threading
import time

import keras
from tqdm import tqdm

from jobs import signals

_LOG_SECONDS = 30  # between two lines where there is no terminal

logger = logging.getLogger("nrms.train")


class StopOnSignals(keras.callbacks.Callback):
    """While it trains, the first SIGTERM or Ctrl-C asks for a checkpoint and an end; before and
    after, it ends the job.

    Attributes:
        stop: what `nrms.training.run.train` looks at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Lets signals ask for a checkpoint from now on."""
        signals.set_by_signals(self.stop)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Lets signals end the job again: the last checkpoint is written."""
        signals.raise_again()


class TrainingProgress(keras.callbacks.Callback):
    """A bar on a terminal while an epoch trains, elsewhere a line now and then; and the epoch's
    metrics at its end.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the bar."""
        self._name = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._bar = tqdm(total=self.params["steps"], desc=self._name, unit="batch", disable=None)
        self._logged = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Moves the bar; a resumed epoch starts where it was left."""
        logs = logs or {}
        state = f"loss {logs['loss']:.4f}, {logs['samples_per_second']:.0f} samples/s"
        if self._bar.disable and time.monotonic() - self._logged >= _LOG_SECONDS:
            logger.info(
                "%s: batch %d of %d, %s", self._name, batch + 1, self.params["steps"], state
            )
            self._logged = time.monotonic()
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update(batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the bar and says how the epoch went."""
        self._bar.close()
        logger.info(
            "%s: %s",
            self._name,
            ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items()),
        )
