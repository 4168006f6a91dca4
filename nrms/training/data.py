"""Opens a data set for a training: its splits, the fitted inputs, joins and baselines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nrms.config import as_dict
from nrms.data import joins
from nrms.data.articles import Articles
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.prefetch import prefetch
from nrms.data.sample import ImpressionSample
from nrms.data.split import Split, check_time_order
from nrms.errors import TrainingError
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.baselines import INPUTS, Baseline, Popularity, standard_baselines
from nrms.evaluation.beyond_accuracy import with_category
from nrms.features.context.past import Past
from nrms.features.context.state import State
from nrms.features.inputs import Inputs, MomentInput
from nrms.features.word_vectors import read_word_vectors
from nrms.training.config import TrainConfig
from nrms.training.samplers import Sampler, count_telling

logger = logging.getLogger(__name__)

# So many impressions of the training split are ranked after each epoch, to show over-fitting.
_TRAINING_SAMPLE = 2_000


@dataclass(frozen=True)
class TrainingData:
    """All that a training needs to know of its data set, found in one pass over the shards.

    Attributes:
        training: the split to train on.
        validation: the split to validate on.
        articles: the articles of both splits.
        encoded: what the model reads of the articles, `(articles, ...)` by name.
        readers: rows of the training histories of the readers with impressions, int64.
        samples: number of training samples in an epoch.
        sample: the training impressions that are ranked after each epoch.
        baselines: the baselines of the validation split, by name.
        popularity: the clicks of the validation split.
        ages: tells the validation impressions whose clicked article is new.
        fingerprint: sha256 of all that is read.
        own_joins: the joins of the training split.
        validation_joins: the joins of the validation split.
    """

    training: Split
    validation: Split
    articles: Articles
    encoded: dict[str, np.ndarray]
    readers: np.ndarray
    samples: int
    sample: ImpressionSample
    baselines: dict[str, Baseline]
    popularity: Popularity
    ages: ArticleAges
    fingerprint: str
    own_joins: Joins
    validation_joins: Joins


def open_data(
    config: TrainConfig, inputs: Inputs, sampling: Callable[[Split], Sampler], cache: Path
) -> TrainingData:
    """Reads and validates everything once, so that no bad shard stops a training that has begun,
    and fits the inputs.

    Args:
        config: the configuration of the training.
        inputs: what the model reads; it is fitted here.
        sampling: gives the sampler for the training split.
        cache: local folder for files from a bucket.

    Raises:
        ConfigError: a vocabulary is empty or a file of word vectors does not fit.
        SchemaError: the data breaks the contract.
        StorageError: the data cannot be read.
        TrainingError: a split has no sample.
    """
    logger.info("reading the data set %s", config.data)
    dataset = Dataset.open(config.data, cache, with_category(inputs.columns))
    size, moment = inputs.history.size, tuple(inputs.moment)
    training = dataset.split(config.train_split, size, moment)
    validation = dataset.split(config.validation_split, size, (*INPUTS, *moment))
    check_time_order(training, validation)
    sampler = sampling(training)
    context = inputs.past
    pasts: dict[Split, Past] = {}
    if context is not None:
        for split in (training, validation):
            (folder := cache / f"past-{len(pasts)}").mkdir()
            pasts[split] = Past(split, context, folder)

    popularity = Popularity()
    trained = np.zeros(1 + len(dataset.articles), bool)
    trained[training.histories.rows] = True
    occurring = np.zeros(len(training.histories.rows), bool)
    sample, samples = ImpressionSample(_TRAINING_SAMPLE, config.seed), 0
    for i, impressions in enumerate(shards(training)):
        occurring[impressions.user] = True
        trained[impressions.candidates] = True
        samples += sampler.count(impressions)
        if context is not None:
            pasts[training].add(i, impressions)
        elif impressions.clicked is not None:
            sample.add(impressions)
    labelled, ages = 0, ArticleAges(dataset.articles.published, len(dataset.articles))
    for i, impressions in enumerate(shards(validation)):
        popularity.add(impressions)
        ages.add(impressions)
        labelled += count_telling(impressions)
        if context is not None:
            pasts[validation].add(i, impressions)
    for split, count in ((training, samples), (validation, labelled)):
        for line in split.report.lines():
            logger.info("%s: %s", split.name, line)
        joins.refuse_strangers(dataset, split)
        if not count:
            raise TrainingError(
                f"{config.data}: the split {split.name} must hold a click beside a non-click. "
                f"Received: {joins.why_no_click(dataset, split)}"
            )

    if context is not None:
        logger.info("counting what happened before each impression")
        pasts[training].join(State(context.rules))
        context.state = pasts[training].after()
        pasts[validation].join(context.state)
        sample, _ = standardise(training, sampler, context, config.seed)
    learned = np.flatnonzero(trained[1:])
    inputs.fit(dataset.articles, learned)
    words = inputs.words
    own = joins.check(dataset, training, inputs.count_words, {}, config.max_unknown)
    if words is not None:
        logger.info("vocabulary: %s words", f"{len(words.tokenizer):,}")
        # A vocabulary has the words of the titles that it was learned from, which says nothing
        # about other titles. So each title is counted against the vocabulary of the other titles.
        unseen = words.unseen_share(dataset.articles, learned)
        own = replace(own, shares={**own.shares, "unknown_words": unseen})
    validated = joins.check(dataset, validation, inputs.count_words, own.shares, config.max_unknown)
    for split, found in ((training, own), (validation, validated)):
        logger.info("%s: %s", split.name, joins.line(found.shares))
    if config.word_vectors is not None:
        # The model reads words, because `train` has checked that it has a `word_dim`.
        words.vectors, coverage = read_word_vectors(
            config.word_vectors,
            words.tokenizer.words,
            as_dict(config.model_config)["word_dim"],
            config.seed,
        )
        logger.info(
            "word vectors: %.1f%% of the vocabulary is in %s", 100 * coverage, config.word_vectors
        )
    return TrainingData(
        training=training,
        validation=validation,
        articles=dataset.articles,
        encoded=inputs.encode(dataset.articles),
        readers=np.flatnonzero(occurring),
        samples=samples,
        sample=sample,
        baselines=standard_baselines(popularity, dataset.articles.published, config.seed),
        popularity=popularity,
        ages=ages,
        fingerprint=dataset.fingerprint([training, validation]),
        own_joins=own,
        validation_joins=validated,
    )


def standardise(
    split: Split, sampler: Sampler, one: MomentInput, seed: int
) -> tuple[ImpressionSample, int]:
    """Fits the mean and deviation of an input that is filled when a shard is read.

    Returns:
        The training sample, whose impressions have all inputs, and the number of training samples.
    """
    sample, samples = ImpressionSample(_TRAINING_SAMPLE, seed), 0

    def filled() -> Iterator[np.ndarray]:
        nonlocal samples
        for impressions in shards(split):
            if impressions.clicked is not None:
                sample.add(impressions)
            samples += sampler.count(impressions)
            yield impressions.per_candidate[one.name]

    one.standardise(filled())
    return sample, samples


def shards(split: Split) -> Iterator[Impressions]:
    """All shards of a split. The next one is read while the caller works on one."""
    return prefetch((split.read(i) for i in range(len(split))), depth=1)
