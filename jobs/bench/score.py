"""Scoring: impressions a second of `jobs.score`, article vectors cold and warm, against the naive
form of the model.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import statistics
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import pyarrow.parquet as pq

from jobs.bench.machine import encoder_arithmetic, figure, matmul_peak, peak_memory
from jobs.bench.naive import NaiveNRMS, naive_weights
from jobs.cli import set_up_process
from nrms import bundles
from nrms.architectures.nrms import NrmsConfig
from nrms.bundles.export import export_model
from nrms.config import PositiveInt, Seed, option
from nrms.data.dataset import Dataset
from nrms.features.inputs import History, Inputs
from nrms.features.title import Title
from nrms.features.tokenizer import Tokenizer
from nrms.models.build import build_model
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.storage.scratch import scratch_folder

TITLE_SIZE = 30
HISTORY_SIZES = (20, 50)
Runtime = Literal["keras", "onnx"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
WAYS: tuple[Literal["naive"] | Runtime, ...] = ("naive", *RUNTIMES)
NAIVE_BATCH = 64  # pairs of an impression and a candidate
# Stages of a night whose time does not depend on the number of impressions.
FIXED = ("model", "report")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured"""

    articles: PositiveInt = option(20_000, "articles of the demo data")
    users: PositiveInt = option(10_000, "readers of the demo data")
    impressions: PositiveInt = option(25_000, "impressions to score")
    naive_impressions: PositiveInt = option(
        40, "impressions that the naive form scores, the first ones"
    )
    rounds: PositiveInt = option(3, "measurements of each case, in turns; their median counts")
    seed: Seed = option(1, "seed of the demo data")
    json: Path | None = option(
        None, "file for the figures: a list of objects with name, ours, naive, ratio, unit"
    )


def prepare(folder: Path, options: Any) -> None:
    """Writes demo data and an untrained model of the paper's dimensions, once for each history
    size.
    """
    site = DemoSite(
        seed=options.seed,
        articles=options.articles,
        users=options.users,
        impressions=1000,
        validation_impressions=options.impressions,
    )
    write_dataset(
        site, str(folder / "data"), shard_rows=100_000, overwrite=False, progress=lambda *_: None
    )
    articles = Dataset.open(str(folder / "data"), folder).articles
    keras.utils.set_random_seed(1)
    files = folder / "bundle"
    files.mkdir()
    inputs = Inputs([Title(TITLE_SIZE)], History(max(HISTORY_SIZES)))
    inputs.fit(articles, np.arange(len(articles)))
    model = build_model(NrmsConfig(), inputs)
    graphs = export_model(model, files, inputs.specs)
    inputs.save(files)
    for size in HISTORY_SIZES:
        read = Inputs(inputs.articles, History(size)).declared
        meta = {"inputs": read, "graphs": graphs, "scoring": model.scoring}
        bundles.publish(str(folder / f"models-{size}"), files, meta)


class Nights:
    """Nights that score what `prepare` wrote into a folder; and the naive form of that model."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._dataset = Dataset.open(str(folder / "data"), folder)
        tokenizer = Tokenizer.load(folder / "bundle" / "tokenizer.json")
        self._titles = tokenizer.encode(
            ["", *self._dataset.articles.titles.to_pylist()], TITLE_SIZE
        )
        self._model = keras.models.load_model(folder / "bundle" / "model.keras", compile=False)
        self._naive = NaiveNRMS(self._model)
        self._naive((self._titles[None, :1], self._titles[None, :1]))
        self._naive.set_weights(naive_weights(self._model.get_weights()))

    def run(self, history_size: int, runtime: Runtime, warm: bool) -> dict[str, float]:
        """Scores one night. Gives the seconds of its stages."""
        output = self._folder / "predictions"
        shutil.rmtree(output, ignore_errors=True)
        if not warm:
            shutil.rmtree(
                self._folder / f"models-{history_size}" / "article_vectors", ignore_errors=True
            )
        score(
            ScoreConfig(
                model=str(self._folder / f"models-{history_size}"),
                data=str(self._folder / "data"),
                output=str(output),
                runtime=runtime,
                wandb_mode="disabled",
            )
        )
        return json.loads((output / "manifest.json").read_text())["seconds"]

    def naive(self, history_size: int, impressions: int) -> tuple[float, np.ndarray]:
        """Scores the first impressions the naive way. Gives impressions a second, without reading,
        and the scores.
        """
        split = self._dataset.split("validation", history_size)
        shard = split.read(0)
        end = int(shard.offsets[impressions])
        owner = np.repeat(shard.user[:impressions], np.diff(shard.offsets[: impressions + 1]))
        history, candidates = split.histories.rows[owner], shard.candidates[:end, None]
        batches = [slice(start, start + NAIVE_BATCH) for start in range(0, end, NAIVE_BATCH)]
        inputs = [(self._titles[history[part]], self._titles[candidates[part]]) for part in batches]
        for batch in (inputs[0], inputs[-1]):
            self._naive.predict_on_batch(batch)  # compiles
        start = time.perf_counter()
        scores = [self._naive.predict_on_batch(batch) for batch in inputs]
        seconds = time.perf_counter() - start
        return impressions / seconds, np.concatenate(scores)[:, 0]

    def scores(self) -> np.ndarray:
        """The scores in the first file of the last night."""
        table = pq.read_table(self._folder / "predictions" / "part-00000.parquet")
        return table["scores"].combine_chunks().flatten().to_numpy()

    def arithmetic(self, history_size: int) -> tuple[float, float]:
        """Floating-point operations of encoding all titles, and of encoding all users that occur,
        where each distinct item is counted once.
        """
        news, titles = self._model.news_encoder, self._titles
        words = len(np.unique(titles[titles > 0]))
        split = self._dataset.split("validation", history_size)
        histories = split.histories.rows[np.unique(split.read(0).user)]
        clicked = len(np.unique(histories[histories > 0]))
        return (
            sum(encoder_arithmetic(news, words, news.word_dim, np.count_nonzero(titles, axis=1))),
            sum(
                encoder_arithmetic(
                    self._model.user_encoder,
                    clicked,
                    news.heads * news.head_dim,
                    np.count_nonzero(histories, axis=1),
                )
            ),
        )


def measure_speed(nights: Nights, options: Options, history_size: int) -> list[dict[str, Any]]:
    """Prints a table of stages; gives the ratios to the naive form."""
    seconds = defaultdict(list)
    naive = []
    for _ in range(options.rounds):
        for runtime in RUNTIMES:
            for temperature in ("cold", "warm"):
                seconds[runtime, temperature].append(
                    nights.run(history_size, runtime, temperature == "warm")
                )
        speed, scores = nights.naive(history_size, options.naive_impressions)
        np.testing.assert_allclose(nights.scores()[: len(scores)], scores, atol=1e-4)
        naive.append(speed)
    baseline = statistics.median(naive)
    peak = matmul_peak()
    news, users = nights.arithmetic(history_size)
    print(
        f"\nhistory {history_size}: naive {baseline:.1f} impressions/s (the first "
        f"{options.naive_impressions})"
    )
    print("seconds (medians) of loading the model, writing the report, and of what counts:")
    stages = [*FIXED, *(stage for stage in seconds["keras", "cold"][0] if stage not in FIXED)]
    print(
        f"{'':<12}"
        + "".join(f"{stage:>13}" for stage in stages)
        + f"{'impressions/s':>15}{'ratio':>8}"
    )
    rows = []
    for (runtime, temperature), nights_seconds in seconds.items():
        median = {
            stage: statistics.median(night[stage] for night in nights_seconds) for stage in stages
        }
        totals = [
            sum(s for stage, s in night.items() if stage not in FIXED) for night in nights_seconds
        ]
        speed = options.impressions / statistics.median(totals)
        name = f"score, history {history_size}, {runtime}, article vectors {temperature}"
        rows.append(figure(name, speed, baseline, "impressions/s"))
        print(
            f"{runtime:<6}{temperature:<6}"
            + "".join(f"{median[stage]:>13.3f}" for stage in stages)
            + f"{speed:>15,.0f}{rows[-1]['ratio']:>8.0f}"
        )
        if temperature == "cold":
            shares = [
                f"{name} {work / median[stage] / 1e9 / peak:.0%}"
                for name, stage, work in (
                    ("catalogue", "catalogue", news),
                    ("users", "users", users),
                )
            ]
            print(f"{'':<12} of the matrix-multiply peak, {peak:.0f} GFLOP/s: {', '.join(shares)}")
    return rows


def measure_memory(folder: Path, options: Options) -> list[dict[str, Any]]:
    """Peak memory of a process that scores in one way only, shortest history,
    article vectors cold.
    """
    peaks = {}
    for way in WAYS:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=set_up_process) as process:
            peaks[way] = process.submit(_memory_of, folder, options, way, HISTORY_SIZES[0]).result()
    print(
        "\npeak memory, TensorFlow included: "
        + "; ".join(f"{way} {gb:.1f} GB" for way, gb in peaks.items())
    )
    return [figure(f"peak memory, {way}", peaks[way], peaks["naive"], "GB") for way in RUNTIMES]


def _memory_of(
    folder: Path, options: Options, way: Literal["naive"] | Runtime, history_size: int
) -> float:
    nights = Nights(folder)
    if way == "naive":
        nights.naive(history_size, options.naive_impressions)
    else:
        nights.run(history_size, way, warm=False)
    return peak_memory()


def run_benchmark(options: Options) -> list[dict[str, Any]]:
    """Makes the data, measures everything, prints it; gives one row a case."""
    with scratch_folder() as folder:
        prepare(folder, options)
        nights = Nights(folder)
        print(
            f"data: {options.articles:,} articles, {options.users:,} users, "
            f"{options.impressions:,} impressions; Parquet is read and written in all that counts"
        )
        rows = [row for size in HISTORY_SIZES for row in measure_speed(nights, options, size)]
        return rows + measure_memory(folder, options)
