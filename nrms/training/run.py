"""From a data set to a published model: everything that `jobs.train` does."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nrms import bundles, storage
from nrms.bundles.export import export_model
from nrms.config import as_dict, config_lines
from nrms.data import joins
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.prefetch import prefetch
from nrms.data.sample import ImpressionSample
from nrms.data.split import Split, check_time_order
from nrms.errors import ConfigError, Interrupted, TrainingError
from nrms.evaluation import comparison, plots
from nrms.evaluation.baselines import INPUTS, Baseline, Popularity, standard_baselines
from nrms.evaluation.evaluation import Evaluation
from nrms.evaluation.ranking import METRICS, impression_metrics
from nrms.features.tokenizer import Tokenizer
from nrms.features.word_vectors import read_word_vectors
from nrms.inference.keras_runtime import KerasEncoders
from nrms.inference.parity import check_parity
from nrms.inference.scorer import Scorer, encode_titles, with_unknown
from nrms.models.registry import build_model
from nrms.models.two_tower import Recommender
from nrms.storage.scratch import scratch_folder
from nrms.tracking import Tracker
from nrms.training.checkpoint import Checkpoint
from nrms.training.cluster import refuse_cluster
from nrms.training.config import TrainConfig
from nrms.training.loop import FitOptions, Trainer, make_train_step
from nrms.training.optimizer import build_optimizer
from nrms.training.samplers import TrainingBatches, count_samples
from nrms.training.warm_start import take_weights

logger = logging.getLogger(__name__)

# What does not change a run's course, or may change when it is resumed.
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
_LIBRARIES = ("tensorflow", "keras", "numpy", "onnx", "onnxruntime", "tokenizers", "pyarrow")
_PARITY_TITLES = 64  # articles on which Keras and ONNX Runtime are compared
# training impressions that are ranked after each epoch, to see over-fitting
_TRAINING_SAMPLE = 2_000


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Attributes:
        model_uri: the published version.
        metrics: the best weights' validation metrics, with the baselines', as `Evaluation.metrics`
            gives them.
        epochs: one row per epoch: `loss`, `train_auc`, `val_auc`, `val_mrr`, ...
        samples: training samples an epoch.
        promoted: whether `latest.json` was moved to the version.
    """

    model_uri: str
    metrics: dict[str, Any]
    epochs: list[dict[str, float]]
    samples: int
    promoted: bool


def train(
    config: TrainConfig,
    stop: threading.Event | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Trains a model on a data set in the Parquet contract and publishes it.

    Args:
        config: see `nrms.training.config.TrainConfig`.
        stop: set it, from a signal handler say, to write a checkpoint and stop.
        callbacks: what else shall hear of batches and epochs, a progress bar say.

    Returns:
        Where the model lies and how well it ranks.

    Raises:
        ConfigError: there is no file of word vectors, or `TF_CONFIG` names other workers.
        SchemaError: the data breaks the contract.
        StorageError: data, checkpoint or model could not be read or written.
        TrainingError: no samples, a loss that is not a number; `Interrupted` where `stop` was set.
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
    data = _open_data(config, cache)
    strategy = _strategy()
    # Here and not earlier: Keras draws from Python's generator, and so do libraries that read and
    # write buckets.
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_model(
            config.model_config, len(data.tokenizer), data.word_vectors, config.precision
        )
        if source is not None:
            words = Tokenizer.load(source.files["tokenizer.json"]).words
            shared = take_weights(model, data.tokenizer.words, source.files["model.keras"], words)
            total = f"{len(data.tokenizer) - 2:,}"
            logger.info(
                "--init-from: weights of %s, and the vectors of %s of %s words",
                source.uri,
                f"{shared:,}",
                total,
            )
        steps = -(-data.samples // config.batch_size)
        optimizer = build_optimizer(config, config.epochs * steps)
        optimizer.build(model.trainable_variables)

    settings = as_dict(config)
    identity = {name: value for name, value in settings.items() if name not in _NOT_IDENTITY}
    if config.schedule != "constant":
        identity["epochs"] = config.epochs  # the rate of each step depends on how many there are
    if source is not None:
        identity["init_from"] = source.sha256
    checkpoint = Checkpoint(config.output, {**identity, "data": data.fingerprint})
    tries = bundles.Tries(checkpoint.folder, checkpoint.key)
    validator = _Validator(config, model, data)
    trainer = Trainer(
        model,
        optimizer,
        make_train_step(model, optimizer, data.titles, strategy, config.label_smoothing),
        TrainingBatches(data.training, config.npratio, config.batch_size, config.seed),
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
            checkpoint.delete()  # from there it would end in the same way
            raise
        logger.info(
            "scoring the validation split with the weights of the best epoch, beside the baselines"
        )
        evaluation = validator.evaluate(data.baselines)
        return _publish(
            config, data, validator, evaluation, trainer.epochs, tracker, checkpoint, tries
        )


def _open_source(config: TrainConfig, uri: str, cache: Path) -> bundles.Bundle:
    """The model of --init-from. Raises ConfigError where it has other sizes."""
    source = bundles.load(uri, cache, ("model.keras", "tokenizer.json"))
    saved = source.meta.get("config")
    saved = saved if isinstance(saved, dict) else {}
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


@dataclass(frozen=True)
class _Data:
    """What the data set gives to a training, in one pass over its shards."""

    training: Split
    validation: Split
    readers: np.ndarray  # rows of the training histories, of the readers that occur
    samples: int
    sample: ImpressionSample
    baselines: dict[str, Baseline]
    tokenizer: Tokenizer
    titles: np.ndarray
    word_vectors: np.ndarray | None
    fingerprint: str
    own_joins: Joins
    validation_joins: Joins


def _open_data(config: TrainConfig, cache: Path) -> _Data:
    """Reads and validates everything once, so that no bad shard stops a training that has begun."""
    logger.info("reading the data set %s", config.data)
    dataset = Dataset.open(config.data, cache)
    training = dataset.split(config.train_split, config.history_size)
    validation = dataset.split(config.validation_split, config.history_size, INPUTS)
    check_time_order(training, validation)

    popularity = Popularity()
    trained = np.zeros(1 + len(dataset.articles), bool)
    trained[training.histories.rows] = True
    occurring = np.zeros(len(training.histories.rows), bool)
    sample, samples = ImpressionSample(_TRAINING_SAMPLE, config.seed), 0
    for impressions in _shards(training):
        occurring[impressions.user] = True
        trained[impressions.candidates] = True
        samples += count_samples(impressions)
        if impressions.clicked is not None:
            sample.add(impressions)
    labelled = 0
    for impressions in _shards(validation):
        popularity.add(impressions)
        labelled += count_samples(impressions)
    for split, count in ((training, samples), (validation, labelled)):
        for line in split.report.lines():
            logger.info("%s: %s", split.name, line)
        joins.refuse_strangers(dataset, split)
        if not count:
            raise TrainingError(
                f"{config.data}: the split {split.name} must hold a click beside a non-click. "
                f"Received: {joins.why_no_click(dataset, split)}"
            )

    all_titles = dataset.articles.titles.to_pylist()
    trained[0] = False
    learned = [all_titles[row - 1] for row in np.flatnonzero(trained)]
    tokenizer = Tokenizer.train(learned, config.min_word_count)
    logger.info("vocabulary: %s words", f"{len(tokenizer):,}")
    own = joins.check(dataset, training, tokenizer.count, {}, config.max_unknown)
    # A vocabulary has all words of the titles that it was learned from, which says nothing about
    # other titles. So the share of unknown words is measured on titles that it has not seen.
    unseen = tokenizer.unseen_share(learned, config.min_word_count)
    own = replace(own, shares={**own.shares, "unknown_words": unseen})
    validated = joins.check(dataset, validation, tokenizer.count, own.shares, config.max_unknown)
    for split, found in ((training, own), (validation, validated)):
        logger.info("%s: %s", split.name, joins.line(found.shares))
    word_vectors = None
    word_dim = as_dict(config.model_config).get("word_dim")
    if config.word_vectors is not None and word_dim is not None:
        word_vectors, coverage = read_word_vectors(
            config.word_vectors, tokenizer.words, word_dim, config.seed
        )
        logger.info(
            "word vectors: %.1f%% of the vocabulary is in %s", 100 * coverage, config.word_vectors
        )
    return _Data(
        training=training,
        validation=validation,
        readers=np.flatnonzero(occurring),
        samples=samples,
        sample=sample,
        baselines=standard_baselines(popularity, dataset.articles.published, config.seed),
        tokenizer=tokenizer,
        # row 0 is the unknown article
        titles=tokenizer.encode(["", *all_titles], config.title_size),
        word_vectors=word_vectors,
        fingerprint=dataset.fingerprint([training, validation]),
        own_joins=own,
        validation_joins=validated,
    )


def _shards(split: Split) -> Iterator[Impressions]:
    return prefetch((split.read(i) for i in range(len(split))), depth=1)


class _Validator:
    """Scores the validation split with the model's current weights, in float32 whatever it trains
    in.

    Attributes:
        model: the float32 model: the one that trains, or its copy.
        prior: the vector of readers without a history by the weights that were evaluated last,
            float32 `(dim,)`.
    """

    def __init__(self, config: TrainConfig, trained: Recommender, data: _Data):
        self._trained = trained
        self._data = data
        self.model = trained
        if config.precision != "float32":
            self.model = build_model(config.model_config, len(data.tokenizer))
        self._encoders = KerasEncoders(self.model)

    def evaluate(self, baselines: Mapping[str, Baseline] | None = None) -> Evaluation:
        """The current weights on the validation split."""
        return self._evaluate(self._news_vectors(), baselines)

    def metrics(self) -> dict[str, float]:
        """The current weights in short: `train_auc` of the fixed sample, `val_auc`,
        `val_mrr`, ...
        """
        news_vectors = self._news_vectors()
        found = self._evaluate(news_vectors).metrics()
        scorer = Scorer(
            self._encoders, news_vectors, self._data.training.histories.rows, self.prior
        )
        aucs = [
            impression_metrics(shard.offsets, scorer.score(shard), shard.clicked).auc
            for shard in self._data.sample.shards
            if shard.clicked is not None
        ]
        train_auc = float(np.concatenate(aucs).mean())
        return {"train_auc": train_auc, **{f"val_{name}": found[name] for name in METRICS}}

    def _news_vectors(self) -> np.ndarray:
        if self.model is not self._trained:
            self.model.set_weights(self._trained.get_weights())
        return with_unknown(encode_titles(self._encoders, self._data.titles[1:]))

    def _evaluate(
        self, news_vectors: np.ndarray, baselines: Mapping[str, Baseline] | None = None
    ) -> Evaluation:
        histories = self._data.validation.histories
        trained_on = Scorer(self._encoders, news_vectors, self._data.training.histories.rows)
        self.prior = trained_on.prior_vector(self._data.readers)
        scorer = Scorer(self._encoders, news_vectors, histories.rows, self.prior)
        evaluation = Evaluation(baselines)
        for impressions in _shards(self._data.validation):
            evaluation.add(
                impressions, histories.lengths[impressions.user], scorer.score(impressions)
            )
        return evaluation


def _publish(
    config: TrainConfig,
    data: _Data,
    validator: _Validator,
    evaluation: Evaluation,
    epochs: list[dict[str, float]],
    tracker: Tracker,
    checkpoint: Checkpoint,
    tries: bundles.Tries,
) -> TrainingResult:
    metrics = evaluation.metrics()
    doubts = comparison.warnings(data.validation.name, metrics)
    metrics |= {
        "joins": data.validation_joins.shares,
        "warnings": data.own_joins.warnings + data.validation_joins.warnings + doubts,
    }
    logger.info("%s: %s", data.validation.name, comparison.summary(metrics))
    promoted = config.promote == "always" or (
        config.promote == "auto" and comparison.above_chance(metrics)
    )
    columns = {name: [row[name] for row in epochs] for name in epochs[0]}
    curves = plots.attempt("training_curves", plots.training_curves, columns)
    figures = {"training_curves": curves, **evaluation.figures()}
    with scratch_folder() as folder:
        logger.info("exporting the model for Keras and for ONNX Runtime, and comparing them")
        export_model(validator.model, folder)
        parity = check_parity(validator.model, folder, data.titles[:_PARITY_TITLES])
        np.save(folder / bundles.PRIOR, validator.prior)
        data.tokenizer.save(folder / "tokenizer.json")
        (folder / "plots").mkdir()
        images = plots.save_all(figures, folder / "plots")
        # Training once more shall not look for a checkpoint.
        lines = config_lines(replace(config, resume=False))
        (folder / "config.toml").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        meta = {
            "config": as_dict(config),
            "vocabulary_size": len(data.tokenizer),
            "data": {
                "uri": config.data,
                "articles": storage.join(config.data, "articles.parquet"),
                "fingerprint": data.fingerprint,
                "training": data.training.report.as_dict(),
                "validation": data.validation.report.as_dict(),
            },
            "joins": data.own_joins.shares,
            "metrics": metrics,
            "epochs": epochs,
            "onnx_parity": parity,
            "libraries": {library: importlib.metadata.version(library) for library in _LIBRARIES},
        }
        logger.info("publishing the model in %s", config.output)
        model_uri = bundles.publish(config.output, folder, meta, promoted, tries=tries)
        # now: what comes may take minutes, and would be published again after a stop
        checkpoint.delete()
        tries.end(config.output)
        tracker.summary({f"val_{name}": metrics[name] for name in METRICS} | {"model": model_uri})
        for title, path in images.items():
            tracker.image(title, path)
        about = {
            "metrics": {name: metrics[name] for name in METRICS},
            "data_fingerprint": data.fingerprint,
        }
        tracker.artifact(
            "nrms", "model", model_uri, {**about, "data": config.data, "uri": model_uri}
        )
    return TrainingResult(model_uri, metrics, epochs, data.samples, promoted)


def _strategy() -> tf.distribute.Strategy:
    """All visible GPUs; without several, TensorFlow's default: the one GPU, or the CPU."""
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


class TrackerCallback(keras.callbacks.Callback):
    """Sends each batch's loss and throughput, and each epoch's metrics, to the tracker; the best
    epoch's as result.

    Args:
        tracker: where they go.
        epochs: the rows of earlier epochs, of a training that goes on.
    """

    def __init__(self, tracker: Tracker, epochs: Sequence[dict[str, float]] = ()):
        super().__init__()
        self._tracker = tracker
        self._epochs = list(epochs)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """See `keras.callbacks.Callback`."""
        step = len(self._epochs) * self.params["steps"] + batch + 1
        self._tracker.log({f"train/{name}": value for name, value in (logs or {}).items()}, step)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See `keras.callbacks.Callback`."""
        self._epochs.append(dict(logs or {}))
        self._tracker.log(
            {"epoch": epoch + 1, **self._epochs[-1]}, len(self._epochs) * self.params["steps"]
        )
        best = max(range(len(self._epochs)), key=lambda i: self._epochs[i]["val_auc"])
        self._tracker.summary({**self._epochs[best], "best_epoch": best + 1})
