"""Trains a model on a data set and publishes it. This is all that `jobs.train` does."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from nrms import bundles
from nrms.architectures import Architecture, architecture_of
from nrms.bundles.parts import KERAS
from nrms.config import as_dict
from nrms.errors import ConfigError, Interrupted, TrainingError
from nrms.features.inputs import Inputs, with_unknown
from nrms.models.build import build_model
from nrms.storage.scratch import scratch_folder
from nrms.tracking import Tracker
from nrms.training.batches import TrainingBatches
from nrms.training.checkpoint import Checkpoint
from nrms.training.cluster import refuse_cluster
from nrms.training.config import TrainConfig
from nrms.training.data import open_data
from nrms.training.loop import FitOptions, Trainer
from nrms.training.optimizer import build_optimizer
from nrms.training.publication import TrainingResult, publish
from nrms.training.samplers import sampler_of
from nrms.training.step import make_train_step
from nrms.training.tracker_callback import TrackerCallback
from nrms.training.validation import Validator
from nrms.training.warm_start import take_weights

logger = logging.getLogger(__name__)

# Flags that do not change a training's result, or may be changed when it is resumed.
_NOT_IDENTITY = {
    *(
        "resume",
        "output",
        "data",
        "checkpoint_seconds",
        "profile",
        "epochs",
        "patience",
        "init_from",
    ),
    *("max_unknown", "promote", "wandb_mode", "wandb_project", "run_name", "run_group"),
}


def train(
    config: TrainConfig,
    stop: threading.Event | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Trains a model on a data set in the Parquet contract and publishes it.

    Args:
        config: see `nrms.training.config.TrainConfig`.
        stop: set it, for example from a signal handler, to write a checkpoint and stop.
        callbacks: what else is told of batches and epochs, for example a progress bar.

    Returns:
        Where the model is published and how well it ranks.

    Raises:
        ArtifactError: a checkpoint or the model of `init_from` is damaged, or ONNX Runtime does not
            compute what Keras does.
        ConfigError: a value does not fit the model, the data or the model of `init_from`, a file of
            word vectors is missing, or `TF_CONFIG` names several workers.
        SchemaError: the data breaks the contract.
        StorageError: data, checkpoint or model cannot be read or written.
        TrainingError: there are no samples, or the loss is not a finite number; `Interrupted` where
            `stop` was set.
    """
    refuse_cluster(os.environ)
    Checkpoint(config.output, {}).check()
    if config.word_vectors is not None and not config.word_vectors.is_file():
        raise ConfigError(
            "--word-vectors must name a file. Received: "
            f"{config.word_vectors}, where there is no file."
        )
    if config.word_vectors is not None and "word_dim" not in as_dict(config.model_config):
        raise ConfigError(
            "--word-vectors must be given with a model that has --word-dim. Received: --model "
            f"{config.model}. Leave it out."
        )
    with scratch_folder() as cache:
        return _train(config, stop or threading.Event(), callbacks, cache)


def _train(
    config: TrainConfig,
    stop: threading.Event,
    callbacks: Sequence[keras.callbacks.Callback],
    cache: Path,
) -> TrainingResult:
    source = None if config.init_from is None else _open_source(config, config.init_from, cache)
    architecture = architecture_of(config.model_config)
    inputs = architecture.inputs(config)
    _refuse_npratio(config, architecture)
    sampler = sampler_of(architecture.sampler, config.npratio)
    data = open_data(config, inputs, sampler, cache)
    strategy = _strategy()
    # The seed is set here and not earlier, because Keras draws from Python's generator, and so do
    # libraries that read and write buckets.
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_model(config.model_config, inputs, config.precision)
        if source is not None:
            _take_weights(model, inputs, source)
        steps = -(-data.samples // config.batch_size)
        optimizer = build_optimizer(config, config.epochs * steps)
        optimizer.build(model.trainable_variables)

    settings = as_dict(config)
    identity = {name: value for name, value in settings.items() if name not in _NOT_IDENTITY}
    if config.schedule != "constant":
        identity["epochs"] = config.epochs  # the rates of a schedule depend on the number of steps
    if source is not None:
        identity["init_from"] = source.sha256
    checkpoint = Checkpoint(config.output, {**identity, "data": data.fingerprint})
    tries = bundles.Tries(checkpoint.folder, checkpoint.key)
    float32 = model if config.precision == "float32" else build_model(config.model_config, inputs)
    validator = Validator(model, float32, inputs, data)
    catalogue = {name: with_unknown(array) for name, array in data.encoded.items()}
    trainer = Trainer(
        model,
        optimizer,
        make_train_step(model, optimizer, inputs, catalogue, strategy, config.label_smoothing),
        TrainingBatches(data.training, sampler, config.batch_size, config.seed),
        validator.metrics,
        checkpoint,
    )
    if config.resume:
        if trainer.restore():
            done = trainer.position
            logger.info(
                "--resume: goes on after %d epochs and %d batches, from %s",
                done.epoch,
                done.batch,
                checkpoint.uri,
            )
        else:
            logger.info("--resume: no checkpoint at %s, so training starts anew", checkpoint.uri)

    with Tracker(
        mode=config.wandb_mode,
        project=config.wandb_project,
        job_type="train",
        config={**settings, "data_fingerprint": data.fingerprint},
        run_name=config.run_name,
        run_id=trainer.run_id,
        group=config.run_group,
        summarized=("loss", "train_auc", "val_*"),
    ) as tracker:
        trainer.run_id = tracker.run_id or trainer.run_id
        tracker.data(config.data, data.fingerprint)
        callback_list = keras.callbacks.CallbackList(
            [*callbacks, TrackerCallback(tracker, trainer.epochs)],
            model=model,
            epochs=config.epochs,
            steps=steps,
            verbose=1,
        )
        options = FitOptions(
            config.epochs, config.patience, config.checkpoint_seconds, steps, config.profile
        )
        try:
            model.set_weights(trainer.fit(options, callback_list, stop))
        except Interrupted:
            raise
        except TrainingError:
            checkpoint.delete()  # a training resumed from there would fail in the same way
            raise
        logger.info(
            "scoring the validation split with the weights of the best epoch, beside the baselines"
        )
        evaluation = validator.evaluate(data.baselines)
        return publish(
            config, inputs, data, validator, evaluation, trainer.epochs, tracker, checkpoint, tries
        )


def _open_source(config: TrainConfig, uri: str, cache: Path) -> bundles.Bundle:
    """Loads the model of --init-from. Raises ConfigError where its flags differ in other fields
    than `ModelConfig.free`.
    """
    source = bundles.load(uri, cache, ("keras",))
    saved = source.meta.get("config", {})
    ours = {"model": config.model, **as_dict(config.model_config)}
    different = [
        f"{name} {saved.get(name)} there, {value} here"
        for name, value in ours.items()
        if name not in config.model_config.free and saved.get(name) != value
    ]
    if different:
        raise ConfigError(
            f"--init-from must name a model of the sizes of this training. Received: {source.uri}, "
            f"with {'; '.join(different)}. Give this training its sizes, or leave --init-from out."
        )
    return source


def _refuse_npratio(config: TrainConfig, architecture: Architecture) -> None:
    """Raises ConfigError where --npratio is not its default and the model learns from whole lists,
    for which no non-clicks are drawn.
    """
    default = next(f.default for f in dataclasses.fields(config) if f.name == "npratio")
    if architecture.sampler == "lists" and config.npratio != default:
        raise ConfigError(
            f"--npratio must be left out where a model learns from whole lists. Received: "
            f"{config.npratio}, with --model {config.model}."
        )


def _take_weights(model: keras.Model, inputs: Inputs, source: bundles.Bundle) -> None:
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
