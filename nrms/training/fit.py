"""One fit of a training: a model, its batches, its optimizer and its checkpoint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from nrms.architectures import architecture_of
from nrms.bundles import Bundle
from nrms.bundles.parts import KERAS
from nrms.config import as_dict
from nrms.errors import Interrupted, TrainingError
from nrms.features.inputs import Inputs, with_unknown
from nrms.features.text_scores import TextScores
from nrms.models.build import build_model
from nrms.models.ranked_text import RankedText
from nrms.tracking import Tracker
from nrms.training.batches import TrainingBatches
from nrms.training.checkpoint import Checkpoint
from nrms.training.config import TrainConfig, ranker_config
from nrms.training.data import TrainingData
from nrms.training.loop import FitOptions, Trainer
from nrms.training.optimizer import build_optimizer
from nrms.training.samplers import Sampler
from nrms.training.step import make_train_step
from nrms.training.tracker_callback import TrackerCallback
from nrms.training.validation import Validator
from nrms.training.warm_start import take_weights

logger = logging.getLogger(__name__)

# Flags that do not change a training's result, or may be changed when it is resumed.
_NOT_IDENTITY = {
    *("resume", "output", "data", "checkpoint_seconds", "profile"),
    *("epochs", "patience", "init_from", "max_unknown", "promote", "beside", "seeds"),
    *("wandb_mode", "wandb_project", "run_name", "run_group"),
}


class Fit:
    """One fit of a training.

    Args:
        config: the flags of the training.
        inputs: what the model reads, fitted.
        data: the data, with the samples of this fit.
        sampler: makes the samples.
        source: a model to start from.
        identity: what the fit's result depends on beside, JSON-ready.

    Attributes:
        config: as given.
        inputs: as given.
        data: as given.
        checkpoint: where the fit is kept.
        trainer: fits the model.
        validator: has the model, once `run` is done with the best weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        inputs: Inputs,
        data: TrainingData,
        sampler: Sampler,
        source: Bundle | None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.inputs, self.data = config, inputs, data
        strategy = _strategy()
        with strategy.scope():
            model = _model(config, inputs, config.precision)
            if source is not None:
                _take_weights(model, inputs, source)
            self._steps = -(-data.samples // config.batch_size)
            optimizer = build_optimizer(config, config.epochs * self._steps)
            optimizer.build(model.trainable_variables)
        settings = as_dict(config)
        own = {name: value for name, value in settings.items() if name not in _NOT_IDENTITY}
        if config.schedule != "constant":
            own["epochs"] = config.epochs  # the rates of a schedule depend on the number of steps
        if source is not None:
            own["init_from"] = source.sha256
        self.checkpoint = Checkpoint(
            config.output, {**own, **(identity or {}), "data": data.fingerprint}
        )
        float32 = model if config.precision == "float32" else _model(config, inputs, "float32")
        self._model = model
        self.validator = Validator(model, float32, inputs, data)
        catalogue = {name: with_unknown(array) for name, array in data.encoded.items()}
        self.trainer = Trainer(
            model,
            optimizer,
            make_train_step(model, optimizer, inputs, catalogue, strategy, config.label_smoothing),
            TrainingBatches(data.training, sampler, config.batch_size, config.seed),
            self.validator.metrics,
            self.checkpoint,
        )

    def restore(self) -> None:
        """With --resume, goes on from the checkpoint, if there is one."""
        if not self.config.resume:
            return
        uri = self.checkpoint.uri
        if self.trainer.restore():
            done = self.trainer.position
            logger.info(
                "--resume: goes on after %d epochs and %d batches, from %s",
                done.epoch,
                done.batch,
                uri,
            )
        else:
            logger.info("--resume: no checkpoint at %s, so training starts anew", uri)

    def run(
        self,
        tracker: Tracker,
        stop: threading.Event,
        callbacks: Sequence[keras.callbacks.Callback],
        before: tuple[int, int] = (0, 0),
    ) -> None:
        """Fits the model and gives it the weights of the best epoch.

        Args:
            tracker: records the run.
            stop: set it to write a checkpoint and stop.
            callbacks: what else is told of batches and epochs.
            before: the epochs and the steps of the fits before this one.

        Raises:
            Interrupted: `stop` was set.
            TrainingError: see `nrms.training.loop.Trainer.fit`.
        """
        config = self.config
        self.trainer.run_id = tracker.run_id or self.trainer.run_id
        told = keras.callbacks.CallbackList(
            [*callbacks, TrackerCallback(tracker, self.trainer.epochs, before)],
            model=self._model,
            epochs=config.epochs,
            steps=self._steps,
            verbose=1,
        )
        options = FitOptions(
            config.epochs, config.patience, config.checkpoint_seconds, self._steps, config.profile
        )
        try:
            self._model.set_weights(self.trainer.fit(options, told, stop))
        except Interrupted:
            raise
        except TrainingError:
            self.checkpoint.delete()  # a training resumed from there would fail in the same way
            raise

    @property
    def done(self) -> tuple[int, int]:
        """The epochs and the steps that the fit took."""
        epochs = len(self.trainer.epochs)
        return epochs, epochs * self._steps


def _model(config: TrainConfig, inputs: Inputs, precision: str) -> keras.Model:
    """The model of a fit: that of the flags, or with --context-training joint this one below the
    ranker.
    """
    model = build_model(config.model_config, inputs, precision)
    if not config.joint:
        return model
    above = ranker_config(config)
    scores = TextScores()
    read = replace(inputs, articles=[], moment=[inputs.past, scores])
    ranker = architecture_of(above.model_config).build(above, read, precision)
    joint = RankedText(model, ranker, dtype=precision)
    joint.build()
    return joint


def _take_weights(model: keras.Model, inputs: Inputs, source: Bundle) -> None:
    words = None if inputs.words is None else inputs.words.tokenizer.words
    theirs = Inputs.load(source.parts.inputs, source.files, source.uri).words
    saved = None if theirs is None else theirs.tokenizer.words
    shared = take_weights(model, words or (), source.files[KERAS], saved or ())
    if words is None:
        logger.info("--init-from: weights of %s", source.uri)
        return
    logger.info(
        "--init-from: weights of %s, and the vectors of %s of %s words",
        source.uri,
        f"{shared:,}",
        f"{len(words) - 2:,}",
    )


def _strategy() -> tf.distribute.Strategy:
    """The strategy for all visible GPUs. With one GPU or none it is TensorFlow's default."""
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()
