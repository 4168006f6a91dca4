"""The loop over epochs and batches."""

from __future__ import annotations

import itertools
import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nrms.errors import Interrupted, TrainingError
from nrms.training.batches import Batch, Position, TrainingBatches
from nrms.training.checkpoint import Checkpoint, Progress
from nrms.training.step import TrainStep

logger = logging.getLogger(__name__)

_REPORT_EVERY = 10  # batches between two reads of the loss, each of which waits for the device
# --profile skips so many batches, because the first ones are compiled, and traces so many.
_SKIPPED, _PROFILED = (10, 5)


@dataclass(frozen=True)
class FitOptions:
    """How long to fit, and what to write meanwhile.

    Attributes:
        epochs: most epochs.
        patience: epochs without a better validation AUC before training stops.
        checkpoint_seconds: seconds between two checkpoints inside an epoch; after each epoch one is
            always written.
        steps: number of batches in an epoch.
        profile: folder for a TensorBoard trace of a few steps, or None.
    """

    epochs: int
    patience: int
    checkpoint_seconds: float
    steps: int
    profile: Path | None = None


class Trainer:
    """Fits a model, epoch after epoch, and can be stopped and resumed at any batch.

    Args:
        model: the model to train.
        optimizer: built on the model's trainable variables.
        step: see `nrms.training.step.make_train_step`.
        batches: the training data.
        validate: gives metrics of the current weights by name; by `val_auc` the best epoch is
            chosen.
        checkpoint: where the state is kept.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        step: TrainStep,
        batches: TrainingBatches,
        validate: Callable[[], dict[str, float]],
        checkpoint: Checkpoint,
    ):
        self._model = model
        self._optimizer = optimizer
        self._step = step
        self._batches = batches
        self._validate = validate
        self._checkpoint = checkpoint
        self._best: list[np.ndarray] = []
        self._progress = Progress(Position(), 0.0, 0, [])
        self._reported_at = 0.0
        self._profiled = False

    @property
    def epochs(self) -> list[dict[str, float]]:
        """A row for each finished epoch: `loss`, `train_auc`, `val_auc`, `val_mrr`, ..."""
        return self._progress.epochs

    @property
    def position(self) -> Position:
        """How far training has come."""
        return self._progress.position

    @property
    def run_id(self) -> str | None:
        """The id of the run in Weights & Biases, which the checkpoint keeps; None without one."""
        return self._progress.run_id

    @run_id.setter
    def run_id(self, run_id: str | None) -> None:
        self._progress.run_id = run_id

    def restore(self) -> bool:
        """Restores the state of the checkpoint; False where there is none. Raises ArtifactError: it
        is damaged.
        """
        saved = self._checkpoint.load()
        if saved is None:
            return False
        arrays, self._progress = saved
        for variables, values in (
            (self._model.variables, arrays["model"]),
            (self._optimizer.variables, arrays["optimizer"]),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._best = arrays["best"]
        return True

    def fit(
        self, options: FitOptions, callbacks: keras.callbacks.CallbackList, stop: threading.Event
    ) -> list[np.ndarray]:
        """Trains until the validation AUC has not risen for `patience` epochs, or `epochs` are
        done.

        Args:
            options: see `FitOptions`.
            callbacks: get each batch's `loss` and `samples_per_second`, and each epoch's row of
                metrics.
            stop: set it to stop after the current batch.

        Returns:
            The weights of the epoch with the best validation AUC, as `model.get_weights()` gives
            them.

        Raises:
            Interrupted: `stop` was set; a checkpoint was written.
            StorageError: a checkpoint cannot be written.
            TrainingError: the loss is not a finite number, or there are no samples.
        """
        callbacks.on_train_begin()
        while (epoch := self._progress.position.epoch) < options.epochs and not self._exhausted(
            options.patience
        ):
            callbacks.on_epoch_begin(epoch)
            self._train_epoch(options, callbacks, stop)
            if not self._progress.samples:
                raise TrainingError(
                    "the training split must hold a click beside a non-click. Received: none. "
                    "Check the clicks in its behaviours files."
                )
            row = {"loss": self._progress.loss_sum / self._progress.samples}
            row |= self._validate()
            if row["val_auc"] > max((past["val_auc"] for past in self.epochs), default=-math.inf):
                self._best = self._model.get_weights()
            self._progress = Progress(Position(epoch + 1), 0.0, 0, [*self.epochs, row], self.run_id)
            self._save()
            callbacks.on_epoch_end(epoch, row)
            if stop.is_set():
                raise self._interrupted(f"after epoch {epoch + 1}")
        callbacks.on_train_end()
        return self._best

    def _exhausted(self, patience: int) -> bool:
        aucs = [row["val_auc"] for row in self.epochs]
        return bool(aucs) and len(aucs) - 1 - int(np.argmax(aucs)) >= patience

    def _train_epoch(
        self, options: FitOptions, callbacks: keras.callbacks.CallbackList, stop: threading.Event
    ) -> None:
        saved_at = self._reported_at = time.monotonic()
        pending: list[tuple[Batch, tf.Tensor]] = []
        for position, batch in self._traced(self._batches.epoch(self.position), options):
            callbacks.on_train_batch_begin(position.batch - 1)
            pending.append((batch, self._step(batch.arrays)))
            due = time.monotonic() - saved_at >= options.checkpoint_seconds
            if due or stop.is_set() or len(pending) == _REPORT_EVERY:
                self._report(position, pending, callbacks)
                pending = []
            if due or stop.is_set():
                self._save()
                saved_at = time.monotonic()
            if stop.is_set():
                raise self._interrupted(
                    f"in epoch {position.epoch + 1} after batch {position.batch}"
                )
        if pending:
            self._report(position, pending, callbacks)

    def _interrupted(self, where: str) -> Interrupted:
        return Interrupted(
            f"stopped by a signal {where}; the checkpoint is {self._checkpoint.uri}. "
            "Run the same command with --resume to go on."
        )

    def _report(
        self,
        position: Position,
        pending: list[tuple[Batch, tf.Tensor]],
        callbacks: keras.callbacks.CallbackList,
    ) -> None:
        """Reads the losses of the pending batches, the last of which ends at `position`."""
        float(pending[-1][1])  # waits for the device, so that the time includes its work
        now = time.monotonic()
        samples_per_second = sum(len(batch) for batch, _ in pending) / (now - self._reported_at)
        self._reported_at = now
        for i, (batch, loss) in enumerate(pending, start=position.batch - len(pending)):
            value = float(loss)
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss must be finite. Received: {value} in epoch {position.epoch + 1}, "
                    f"batch {i + 1}. Try a smaller --lr, or --precision float32."
                )
            self._progress.loss_sum += value * len(batch)
            self._progress.samples += len(batch)
            callbacks.on_train_batch_end(
                i, {"loss": value, "samples_per_second": samples_per_second}
            )
        self._progress = replace(self._progress, position=position)

    def _save(self) -> None:
        groups = {
            "model": [variable.numpy() for variable in self._model.variables],
            "optimizer": [variable.numpy() for variable in self._optimizer.variables],
            "best": self._best,
        }
        self._checkpoint.save(groups, self._progress)

    def _traced(
        self, batches: Iterator[tuple[Position, Batch]], options: FitOptions
    ) -> Iterator[tuple[Position, Batch]]:
        """Passes the batches on. The first time, the profiler, if it is asked for, runs while some
        of them are worked on.
        """
        left = options.steps - self.position.batch
        if options.profile is None or self._profiled or not left:
            yield from batches
            return
        self._profiled = True
        # In a short epoch the last batches are traced, but not the first one if there are others.
        yield from itertools.islice(batches, max(min(1, left - 1), min(_SKIPPED, left - _PROFILED)))
        tf.profiler.experimental.start(str(options.profile))
        try:
            yield from itertools.islice(batches, _PROFILED)
        finally:
            tf.profiler.experimental.stop()
        logger.info(
            "--profile: traced %d batches into %s. To look at them: .venv/bin/python -m pip "
            "install tensorboard xprof, then .venv/bin/tensorboard --logdir %s, page Profile",
            min(_PROFILED, left),
            options.profile,
            shlex.quote(str(options.profile)),
        )
        yield from batches
