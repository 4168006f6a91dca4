"""Training: samples a second and time to a validation AUC, ours against the naive form of the same
model.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jobs.bench.machine import encoder_arithmetic, figure, matmul_peak, peak_memory
from jobs.bench.naive import DenseAdam, NaiveNRMS, naive_weights, shared_weights
from jobs.cli import set_up_process
from nrms.architectures.nrms import NrmsConfig
from nrms.config import PositiveInt, Seed, option
from nrms.data.dataset import Dataset
from nrms.evaluation.evaluation import Evaluation
from nrms.features.inputs import History, Inputs, with_unknown
from nrms.features.title import Title
from nrms.inference.loaded_model import LoadedModel
from nrms.models.build import build_model
from nrms.models.two_tower import TwoTower
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.storage.scratch import scratch_folder
from nrms.training.batches import Batch, Position, TrainingBatches
from nrms.training.samplers import Clicks
from nrms.training.step import make_train_step

NPRATIO, TITLE_SIZE, BATCH, LARGE_BATCH = 4, 30, 64, 1024
ROUND_SECONDS = 3.0
NAIVE = f"naive, batch {BATCH}"
# By name: whether it is the naive form, the batch size, the precision. The naive form with 1,024
# samples a batch does not fit into memory.
CASES = {
    NAIVE: (True, BATCH, "float32"),
    f"ours, batch {BATCH}": (False, BATCH, "float32"),
    f"ours, batch {LARGE_BATCH}": (False, LARGE_BATCH, "float32"),
    f"ours, batch {BATCH}, bfloat16": (False, BATCH, "mixed_bfloat16"),
    f"ours, batch {LARGE_BATCH}, bfloat16": (False, LARGE_BATCH, "mixed_bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured"""

    articles: PositiveInt = option(20_000, "articles of the demo data")
    users: PositiveInt = option(10_000, "readers of the demo data")
    impressions: PositiveInt = option(50_000, "training impressions of the demo data")
    history_size: PositiveInt = option(20, "clicks of a user that the model sees")
    rounds: PositiveInt = option(5, "measurements of each case, in turns; their median counts")
    auc_batches: PositiveInt = option(
        60, "batches of 64 whose validation AUC the naive form sets as the target"
    )
    seed: Seed = option(1, "seed of the demo data")
    json: Path | None = option(
        None, "file for the figures: a list of objects with name, ours, naive, ratio, unit"
    )


class Site:
    """The demo data of the benchmark.

    Attributes:
        training: the training split.
        validation: the validation split.
        titles: int32 word ids, `(articles + 1, TITLE_SIZE)`.
        vocabulary_size: number of word ids.
        articles: of both splits.
        inputs: what a model reads.
        catalogue: that of all articles, `(articles + 1, ...)` by name.
    """

    def __init__(self, folder: Path, options: Options):
        site = DemoSite(
            seed=options.seed,
            articles=options.articles,
            users=options.users,
            impressions=options.impressions,
            validation_impressions=options.impressions // 10,
        )
        write_dataset(
            site, str(folder), shard_rows=100_000, overwrite=False, progress=lambda *_: None
        )
        dataset = Dataset.open(str(folder), folder / "cache")
        self.training = dataset.split("train", options.history_size)
        self.validation = dataset.split("validation", options.history_size)
        self.articles = dataset.articles
        self.inputs = Inputs([Title(TITLE_SIZE)], History(options.history_size))
        self.inputs.fit(self.articles, np.arange(len(self.articles)))
        self.vocabulary_size = len(self.inputs.words.tokenizer)
        encoded = self.inputs.encode(self.articles)
        self.catalogue = {name: with_unknown(array) for name, array in encoded.items()}
        self.titles = self.catalogue["title"]

    def model(self, train_word_vectors: bool, precision: str = "float32") -> TwoTower:
        """A model with the paper's dimensions, the same weights each time."""
        keras.utils.set_random_seed(1)
        config = NrmsConfig(train_word_vectors=train_word_vectors)
        return build_model(config, self.inputs, precision)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Endless batches of full size, the same ones in each call."""
        source = TrainingBatches(self.training, Clicks(NPRATIO), batch_size, seed=1)
        for epoch in itertools.count():
            yield from (
                batch for _, batch in source.epoch(Position(epoch)) if len(batch) == batch_size
            )

    def auc(self, model: TwoTower) -> float:
        """Per-impression validation AUC."""
        histories, evaluation = self.validation.histories, Evaluation()
        loaded = LoadedModel.of(model, self.inputs)
        scorer = loaded.scorer(loaded.catalogue(self.articles), histories.rows)
        for i in range(len(self.validation)):
            shard = self.validation.read(i)
            evaluation.add(shard, histories.lengths[shard.user], scorer.score(shard))
        return evaluation.metrics()["auc"]

    def arithmetic(self, batch: Batch, model: TwoTower) -> float:
        """Floating-point operations that training on `batch` takes, none of them on padding, a
        multiply-add as 2.
        """
        news = model.news_encoder
        clicked = np.unique(batch["history"][batch["history"] > 0])
        titles = self.titles[np.union1d(clicked, batch["candidates"][batch["candidates"] > 0])]
        words = len(np.unique(titles[titles > 0]))
        # The gradients take twice the operations of the result. Frozen word vectors have no
        # gradients.
        times = 3 if news.train_word_vectors else 2
        projection, rest = encoder_arithmetic(
            news, words, news.word_dim, np.count_nonzero(titles, axis=1)
        )
        total = times * projection + 3 * rest
        lengths = np.count_nonzero(batch["history"], axis=1)
        return total + 3 * sum(
            encoder_arithmetic(
                model.user_encoder, len(clicked), news.heads * news.head_dim, lengths
            )
        )


@dataclass
class Case:
    """One way to train, measured in rounds that alternate with those of the others.

    Attributes:
        step: trains on one batch and waits until that is done.
        batches: where they come from.
        arithmetic: floating-point operations of a batch.
        speeds: samples a second of each round.
        gflops: arithmetic a second of each round.
    """

    step: Callable[[Batch], None]
    batches: Iterator[Batch]
    arithmetic: Callable[[Batch], float]
    speeds: list[float] = field(default_factory=list)
    gflops: list[float] = field(default_factory=list)

    def round(self) -> None:
        """Trains for a few seconds and notes the speed."""
        batches = []
        start = time.perf_counter()
        while (seconds := time.perf_counter() - start) < ROUND_SECONDS:
            batches.append(next(self.batches))
            self.step(batches[-1])
        self.speeds.append(sum(map(len, batches)) / seconds)
        self.gflops.append(sum(map(self.arithmetic, batches)) / seconds / 1e9)

    @property
    def speed(self) -> float:
        """Median samples a second."""
        return statistics.median(self.speeds)


def naive_step(site: Site, like: TwoTower, lr: float) -> tuple[NaiveNRMS, Callable[[Batch], None]]:
    """The naive model with the weights of `like`, and its step: Keras' own."""
    model = NaiveNRMS(like)
    model.compile(DenseAdam(lr), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        return site.titles[batch["history"]], site.titles[batch["candidates"]]

    model(inputs(next(site.batches(2))))
    model.set_weights(naive_weights(like.get_weights()))
    return model, lambda batch: model.train_on_batch(inputs(batch), np.zeros(len(batch), np.int32))


def our_step(site: Site, model: TwoTower, lr: float) -> Callable[[Batch], None]:
    """The step that `jobs.train` takes."""
    optimizer = keras.optimizers.Adam(lr)
    optimizer.build(model.trainable_variables)
    step = make_train_step(
        model, optimizer, site.inputs, site.catalogue, tf.distribute.get_strategy()
    )
    return lambda batch: step(batch.arrays).numpy()


def make_case(site: Site, name: str, train_word_vectors: bool) -> Case:
    """The case of that name in `CASES`, compiled."""
    naive, batch_size, precision = CASES[name]
    model = site.model(train_word_vectors, precision)
    step = naive_step(site, model, 1e-4)[1] if naive else our_step(site, model, 1e-4)
    case = Case(step, site.batches(batch_size), lambda batch: site.arithmetic(batch, model))
    case.step(next(case.batches))
    return case


def measure_speed(site: Site, rounds: int) -> list[dict[str, Any]]:
    """Prints a table for frozen and one for trainable word vectors; gives the ratios."""
    peaks = {dtype: matmul_peak(dtype) for dtype in ("float32", "bfloat16")}
    print(
        "matrix-multiply peak: "
        + ", ".join(f"{dtype} {peak:.0f} GFLOP/s" for dtype, peak in peaks.items())
    )
    found = []
    for kind in ("frozen", "trainable"):
        cases = {name: make_case(site, name, kind == "trainable") for name in CASES}
        for _ in range(rounds):
            for case in cases.values():
                case.round()
        print(f"\nword vectors {kind:<18} samples/s   ratio  of matmul peak")
        for name, case in cases.items():
            row = figure(
                f"train, {kind} word vectors, {name}", case.speed, cases[NAIVE].speed, "samples/s"
            )
            share = ""
            if name != NAIVE:
                found.append(row)
                peak = peaks[CASES[name][2].removeprefix("mixed_")]
                share = f"{statistics.median(case.gflops) / peak:.0%}"
            print(f"  {name:<28} {case.speed:>9.0f} {row['ratio']:>7.1f} {share:>15}")
    return found


def measure_memory(folder: Path, options: Options) -> list[dict[str, Any]]:
    """Peak memory of a process that trains in one way only, with trainable word vectors; a row for
    each of ours.
    """
    peaks = {}
    for name in CASES:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=set_up_process) as process:
            peaks[name] = process.submit(_memory_of, folder, options, name).result()
    print("\npeak memory: " + "; ".join(f"{name} {peak:.1f} GB" for name, peak in peaks.items()))
    return [
        figure(f"peak memory, {name}", peaks[name], peaks[NAIVE], "GB")
        for name in CASES
        if name != NAIVE
    ]


def _memory_of(folder: Path, options: Options, name: str) -> float:
    case = make_case(Site(folder, options), name, train_word_vectors=True)
    for batch in itertools.islice(case.batches, 3):
        case.step(batch)
    return peak_memory()


def measure_loader(site: Site, fastest: float) -> dict[str, Any]:
    """Samples a second of the loader alone, beside the fastest training."""
    start, samples = time.perf_counter(), 0
    for _, batch in TrainingBatches(site.training, Clicks(NPRATIO), LARGE_BATCH, seed=1).epoch(
        Position()
    ):
        samples += len(batch)
    speed = samples / (time.perf_counter() - start)
    print(
        f"\nloader alone: {speed:,.0f} samples/s, {speed / fastest:.0f} times the fastest training"
    )
    return {
        "name": "loader alone",
        "ours": round(speed, 1),
        "naive": None,
        "ratio": None,
        "unit": "samples/s",
    }


def measure_time_to_auc(
    site: Site, batches: int, check_every: int = 2, lr: float = 1e-3
) -> dict[str, Any]:
    """Training time of the naive form for `batches` batches, and of ours until it has reached that
    validation AUC.

    Both start from the same weights and see the same batches. The first batch, which compiles, and
    validating are not timed.
    """
    model = site.model(train_word_vectors=True)
    before = site.auc(model)
    naive, train_naive = naive_step(site, model, lr)
    train_ours = our_step(site, model, lr)

    def trained(step: Callable[[Batch], None]) -> Iterator[float]:
        seconds = 0.0
        for i, batch in enumerate(site.batches(BATCH)):
            start = time.perf_counter()
            step(batch)
            seconds += time.perf_counter() - start if i else 0.0
            yield seconds

    naive_seconds = next(itertools.islice(trained(train_naive), batches - 1, None))
    judge = site.model(train_word_vectors=True)
    judge.set_weights(shared_weights(naive.get_weights()))
    target, reached = site.auc(judge), 0.0
    ours = enumerate(trained(train_ours), start=1)
    i, our_seconds = 0, math.inf
    while reached < target and i < 5 * batches:
        i, our_seconds = next(itertools.islice(ours, check_every - 1, None))
        reached = site.auc(model)
    verdict = f"ratio {naive_seconds / our_seconds:.1f}" if reached >= target else "not reached"
    print(
        f"\ntime to validation AUC {target:.4f} (untrained: {before:.4f}), batch {BATCH}: "
        f"naive {naive_seconds:.1f} s, {batches} batches; "
        f"ours {our_seconds:.1f} s, {i} batches, AUC {reached:.4f}; {verdict}"
    )
    name = (
        "time to the same validation AUC"
        if reached >= target
        else f"time to AUC {reached:.4f} of {target:.4f}"
    )
    return figure(name, our_seconds, naive_seconds, "s")


def run_benchmark(options: Options) -> list[dict[str, Any]]:
    """Makes the data, measures everything, prints it; gives one row a case."""
    with scratch_folder() as folder:
        site = Site(folder, options)
        print(
            f"data: {options.articles:,} articles, {options.users:,} users, "
            f"{options.impressions:,} impressions, history {options.history_size}, vocabulary "
            f"{site.vocabulary_size:,}, titles of "
            f"{np.count_nonzero(site.titles, axis=1)[1:].mean():.1f} words"
        )
        rows = measure_speed(site, options.rounds)
        rows += measure_memory(folder, options)
        rows.append(
            measure_loader(site, max(row["ours"] for row in rows if row["unit"] == "samples/s"))
        )
        rows.append(measure_time_to_auc(site, options.auc_batches))
    return rows
