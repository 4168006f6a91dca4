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

from jobs.bench.machine import figure
from nrms import bundles
from nrms.config import PositiveInt, Seed, Text, option
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.evaluation import plots
from nrms.evaluation.ranking import impression_metrics
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
    import pyarrow as pa

    readers = rng.integers(0, max(1, lists // 4), lists)
    return Events(
        *(time_, readers, np.full(lists, -1), offsets, article, clicked),
        pa.array(ids),
        pa.array(np.arange(max(1, lists // 4))),
    )
