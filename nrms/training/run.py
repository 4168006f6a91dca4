"""Trains a model on a data set and publishes it. This is all that `jobs.train` does."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras

from nrms import bundles
from nrms.architectures import architecture_of
from nrms.config import as_dict
from nrms.errors import ConfigError, TrainingError
from nrms.features.context.config import context_input
from nrms.features.inputs import Inputs
from nrms.features.text_scores import TextScores
from nrms.models.ranked_text import RankedText
from nrms.storage.scratch import scratch_folder
from nrms.tracking import Tracker
from nrms.training.beside import metrics_beside
from nrms.training.checkpoint import Checkpoint
from nrms.training.cluster import refuse_cluster
from nrms.training.config import TrainConfig, ranker_config
from nrms.training.data import open_data, standardise
from nrms.training.fit import Fit
from nrms.training.periods import Periods
from nrms.training.publication import TrainingResult, publish
from nrms.training.samplers import sampler_of
from nrms.training.validation import Validator

logger = logging.getLogger(__name__)


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
    if config.context:
        inputs = replace(inputs, moment=[*inputs.moment, context_input(config)])
    sampler = "lists" if config.joint else architecture.sampler
    _refuse_unread(config, sampler)
    if config.context:
        ranker_config(config)  # in stages it is needed late, and its file's mistakes are said now
    samplers = Periods(config, sampler_of(sampler, config.npratio))
    data = open_data(config, inputs, samplers.first, cache)
    beside = metrics_beside(config.beside, data.fingerprint)
    # The seed is set here and not earlier, because Keras draws from Python's generator, and so do
    # libraries that read and write buckets.
    keras.utils.set_random_seed(config.seed)
    first = Fit(config, inputs, data, samplers.first(data.training), source)
    tries = bundles.Tries(first.checkpoint.folder, first.checkpoint.key)
    first.restore()
    settings = as_dict(config)
    with Tracker(
        mode=config.wandb_mode,
        project=config.wandb_project,
        job_type="train",
        config={**settings, "data_fingerprint": data.fingerprint},
        run_name=config.run_name,
        run_id=first.trainer.run_id,
        group=config.run_group,
        summarized=("loss", "train_auc", "val_*"),
    ) as tracker:
        tracker.data(config.data, data.fingerprint)
        first.run(tracker, stop, callbacks)
        fits, validator = [first], first.validator
        if config.staged:
            ranker = _ranker(first, samplers)
            ranker.restore()
            ranker.run(tracker, stop, callbacks, first.done)
            fits.append(ranker)
            validator = _combined(first, ranker, inputs)
        logger.info(
            "scoring the validation split with the weights of the best epoch, beside the baselines"
        )
        evaluation = validator.evaluate(data.baselines)
        return publish(config, inputs, data, validator, evaluation, fits, tracker, tries, beside)


def _ranker(text: Fit, samplers: Periods) -> Fit:
    """The fit of the ranker on the scores of a text model that is fitted."""
    logger.info("training the ranker on the scores of the text model, on clicks after its own")
    data, loaded, inputs = text.data, text.validator.loaded, text.inputs
    catalogue = text.validator.catalogue()
    loaded.fit_prior(catalogue, data.training.histories.rows, data.readers)
    scores = TextScores(lambda histories: loaded.scorer(catalogue, histories.rows))
    for split in (data.training, data.validation):
        split.inputs = (*split.inputs, scores)
    sampler = samplers.later(data.training)
    sample, samples = standardise(data.training, sampler, scores, text.config.seed)
    if not samples:
        raise TrainingError(
            f"{text.config.data}: the later part of the split {data.training.name}, which the text "
            "model does not train on, must hold a click beside a non-click. Received: none. Give a "
            "smaller --text-share."
        )
    of_lists = replace(inputs, articles=[], moment=[inputs.past, scores])
    data = replace(data, sample=sample, samples=samples, encoded={})
    identity = {"text": text.checkpoint.key}
    return Fit(ranker_config(text.config), of_lists, data, sampler, None, identity)


def _combined(text: Fit, ranker: Fit, inputs: Inputs) -> Validator:
    """Both as one model."""
    model = RankedText(text.validator.model, ranker.validator.model)
    model.build()
    return Validator(model, model, inputs, text.data)


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


def _refuse_unread(config: TrainConfig, sampler: str) -> None:
    """Raises ConfigError where a flag is not its default and this training does not read it."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    if config.seeds != 1:  # jobs.train takes them apart, see nrms.training.seeds
        raise ConfigError(
            "--seeds must be left out where trainings are compared by other flags, as in a sweep. "
            f"Received: {config.seeds}. Leave it out."
        )
    if sampler == "lists" and config.npratio != defaults["npratio"]:
        raise ConfigError(
            f"--npratio must be left out where a model learns from whole lists. Received: "
            f"{config.npratio}, with --model {config.model}"
            f"{' and --context-training joint' * config.joint}."
        )
    if config.text_share != defaults["text_share"] and not config.staged:
        raise ConfigError(
            f"--text-share must be left out without --context true --context-training stages. "
            f"Received: {config.text_share}. Leave it out, or give these."
        )
