"""Context: features a second, a request's time, the state's size over a month, and what a model's
AUC owes to each group of features and to how fresh the state is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.machine import figure
from nrms import bundles
from nrms.config import PositiveInt, Seed, Text, option
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.evaluation import plots
from nrms.evaluation.ranking import GroupMean, impression_metrics
from nrms.features.context.events import Events
from nrms.features.context.features import GROUPS, PLACES, Request, features
from nrms.features.context.past import Past
from nrms.features.context.state import Delays, State
from nrms.features.context.table import DAY, HOUR, MINUTE
from nrms.inference.loaded_model import LoadedModel
from nrms.storage.scratch import scratch_folder

_SECOND = 1_000_000
AGES = (0, MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY)
_REQUEST = 30  # candidates of a request


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured"""

    lists: PositiveInt = option(25_000, "lists of a made-up week, for the speed of the features")
    month_lists: PositiveInt = option(4_000, "lists of a day of a made-up month")
    rounds: PositiveInt = option(3, "measurements of each case; their median counts")
    seed: Seed = option(1, "seed of what is made up")
    model: Text | None = option(None, "context model whose AUC is taken apart; not set: none")
    data: Text | None = option(None, "data set of --model")
    split: Text = option("validation", "sub-folder of --data that is scored")
    plot: Path | None = option(None, "folder for the plots of --model")
    json: Path | None = option(
        None, "file for the figures: a list of objects with name, ours, naive, ratio, unit"
    )


def run_benchmark(options: Options) -> list[dict[str, Any]]:
    """Measures, prints, and gives a row for each figure."""
    rows = [*_speed(options), *_month(options)]
    if options.model is not None and options.data is not None:
        with scratch_folder() as cache:
            rows += _taken_apart(options, cache)
    return rows


def week(lists: int, seed: int, days: float = 7, start: int = 0, articles: int = 1500) -> Events:
    """Lists of a made-up site: of 12 candidates on average, of articles that live for two days."""
    rng = np.random.default_rng((seed, start))
    time_ = np.sort(rng.integers(0, int(days * DAY), lists)) + start
    lengths = np.minimum(5 + rng.geometric(1 / 7, lists), 100)
    offsets = np.append(0, np.cumsum(lengths))
    newest = np.repeat(time_ / DAY * articles / 7, lengths)
    age = rng.exponential(articles / 7, len(newest))
    article = np.maximum(0, newest - age).astype(np.int64)
    ids, article = np.unique(article, return_inverse=True)
    clicked = rng.random(len(article)) < 0.09
    readers = rng.integers(0, max(1, lists // 4), lists)
    return Events(
        *(time_, readers, np.full(lists, -1), offsets, article, clicked),
        pa.array(ids),
        pa.array(np.arange(max(1, lists // 4))),
    )


def _speed(options: Options) -> Iterator[dict[str, Any]]:
    """Features of a week by one thread and by two, and of a request."""
    events = week(options.lists, options.seed)
    rows = len(events.article)

    def of(part: Events) -> int:
        features(State(Delays()), part, part, Request.unknown(len(part), len(part.article)))
        return len(part.article)

    half = len(events) // 2
    halves = [events.cut(0, half), events.cut(half, len(events))]
    one, two = [], []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(options.rounds):
            start = time.perf_counter()
            of(events)
            one.append(rows / (time.perf_counter() - start))
            start = time.perf_counter()
            list(pool.map(of, halves))
            two.append(rows / (time.perf_counter() - start))
    alone, both = float(np.median(one)), float(np.median(two))
    print(f"features: {alone:,.0f} candidates/s by one thread, {both:,.0f} by two")
    yield figure("context features, two threads against one", both, alone, "candidates/s")

    state = State.of(events.cut(0, len(events) - 300), Delays())
    recent = events.cut(len(events) - 300, len(events))
    state = replace(state, pending=Events.joined([state.pending, recent.distinct()]))
    rng, seconds = np.random.default_rng(options.seed), []
    shown = np.unique(recent.article)
    for _ in range(200):
        asked = Events(
            recent.time[-1:] + MINUTE,
            recent.reader[-1:],
            recent.page[-1:],
            np.array([0, _REQUEST]),
            rng.choice(shown, _REQUEST, replace=False),
            np.zeros(_REQUEST, bool),
            recent.articles,
            recent.readers,
        ).compact()
        start = time.perf_counter()
        features(state, Events.empty(), asked, Request.unknown(1, _REQUEST))
        seconds.append(time.perf_counter() - start)
    p50, p99 = (1000 * float(np.percentile(seconds, at)) for at in (50, 99))
    print(f"features of a request of {_REQUEST} candidates: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    yield figure("features of a request, p50 against 2 ms", p50, 2.0, "ms")


def _month(options: Options) -> Iterator[dict[str, Any]]:
    """The keys and bytes of the state at the end of each day of a month."""
    state, sizes = State(Delays()), []
    for day in range(30):
        events = week(options.month_lists, options.seed, 1, day * DAY)
        state = (state + State.of(events, state.rules)).settled().compact()
        tables = state.tables.values()
        size = sum(table.sums.nbytes + 5 * table.key.nbytes for table in tables)
        sizes.append((len(state), size / 1e6))
    for day in (7, 14, 21, 30):
        keys, megabytes = sizes[day - 1]
        print(f"state after {day} days: {keys:,} keys, {megabytes:.1f} MB")
    yield figure("state after a month against two weeks", sizes[-1][1], sizes[13][1], "MB")


def _taken_apart(options: Options, cache: Path) -> Iterator[dict[str, Any]]:
    """AUC with each group of features permuted between candidates, and with a state that knows of
    everything but what happened lately.
    """
    assert options.model is not None
    assert options.data is not None
    model = LoadedModel.open(bundles.load(options.model, cache, ["onnx"]))
    context = model.inputs.past
    dataset = Dataset.open(options.data, cache, model.inputs.columns)
    catalogue = model.catalogue(dataset.articles)
    split = dataset.split(options.split, model.inputs.history.size, tuple(model.inputs.moment))
    scorer = model.scorer(catalogue, split.histories.rows)
    rules = context.rules
    by_age, by_group = {}, {}

    def auc(change: Any = lambda impressions: impressions) -> tuple[np.ndarray, float]:
        found = []
        for i in range(len(split)):
            impressions = change(split.read(i))
            scores = scorer.score(impressions)
            found.append(impression_metrics(impressions.offsets, scores, impressions.clicked).auc)
        values = np.concatenate(found)
        return values, float(values.mean())

    for number, age in enumerate(AGES):
        context.rules = replace(rules, event=age)
        (folder := cache / f"age-{number}").mkdir()
        split.past_of = None
        Past(split, context, folder).count(replace(context.state, rules=context.rules))
        by_age[_age(age)] = auc()
        print(f"AUC with a state {_age(age)} old: {by_age[_age(age)][1]:.4f}")
    context.rules = rules
    (folder := cache / "own").mkdir()
    split.past_of = None
    Past(split, context, folder).count(context.state)
    whole = auc()
    rng = np.random.default_rng(options.seed)
    for group, names in GROUPS.items():
        columns = [PLACES[name] for name in names if name != "compared"]

        def permuted(impressions: Impressions, columns: list[int] = columns) -> Impressions:
            array = impressions.per_candidate[context.name].copy()
            array[:, columns] = array[rng.permutation(len(array))][:, columns]
            return replace(
                impressions, per_candidate={**impressions.per_candidate, context.name: array}
            )

        by_group[group] = auc(permuted)
        print(f"AUC with `{group}` permuted: {by_group[group][1]:.4f} of {whole[1]:.4f}")
        yield figure(f"AUC without {group}", whole[1], by_group[group][1], "AUC")
    if options.plot is not None:
        options.plot.mkdir(parents=True, exist_ok=True)
        for name, found, title, label in (
            ("state_age", by_age, "AUC by the age of the state", "what the state does not know"),
            ("groups", by_group, "AUC with a group of features permuted", "group"),
        ):
            groups = {key: _group(values) for key, (values, _) in found.items()}
            plots.save(plots.auc_by_group(groups, title, label), options.plot / f"{name}.png")


def _group(values: np.ndarray) -> GroupMean:
    return GroupMean(float(values.sum()), float((values**2).sum()), len(values))


def _age(microseconds: int) -> str:
    for unit, size in (("h", HOUR), ("min", MINUTE)):
        if microseconds >= size:
            return f"{microseconds // size} {unit}"
    return f"{microseconds // _SECOND} s"
