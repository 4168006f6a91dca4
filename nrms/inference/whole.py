"""Scores a split of one file at once: an upload, or tables of a Python program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from nrms.data import joins
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.layout import SplitFiles
from nrms.data.split import Split
from nrms.features.context.events import Events
from nrms.features.context.input import Context, Moment
from nrms.features.context.start import live_doubts, start_before
from nrms.features.context.state import State
from nrms.inference.loaded_model import Catalogue, LoadedModel, Scorer

# Gives what had happened before the impressions of a split, and what may make their scores wrong.
Before = Callable[[Split], tuple[Moment, list[str]]]


@dataclass(frozen=True)
class WholeSplit:
    """A split of one file, scored.

    Attributes:
        split: the split.
        impressions: its impressions.
        scores: float32 `(c,)`.
        scorer: what made them.
        joins: how its files join, with the warnings of all that may make the scores wrong.
    """

    split: Split
    impressions: Impressions
    scores: np.ndarray
    scorer: Scorer
    joins: Joins


def score_whole(
    model: LoadedModel,
    catalogue: Catalogue,
    dataset: Dataset,
    name: str,
    own: Mapping[str, float],
    max_unknown: float,
    before: Before | None = None,
    files: SplitFiles | None = None,
) -> WholeSplit:
    """Scores a split of one behaviours file, exactly as the nightly job would.

    Args:
        model: the model.
        catalogue: the articles, encoded by it.
        dataset: has the same articles.
        name: the split's folder.
        own: the joins of the split that the model was trained on.
        max_unknown: see `nrms.data.config.WarningsConfig`.
        before: what a model that reads the past starts from, see `rows_before` and `live_before`.
            With None its own rows count for those after them, on the model's state, and a file
            without times is refused.
        files: the split's files, where they do not lie in its folder.

    Raises:
        SchemaError: something breaks the contract.
    """
    inputs = model.inputs
    split = dataset.split(name, inputs.history.size, tuple(inputs.moment), files=files)
    doubts: list[str] = []
    moment: Moment | None = None
    if inputs.past is not None:
        moment, doubts = (before or rows_before(inputs.past.state, None))(split)
        split.past_of = lambda i: moment
    impressions = split.read(0)
    if inputs.past is not None and moment is not None and moment.own_rows:
        doubts += _unlabelled(inputs.past, impressions)
    joins.refuse_strangers(dataset, split, joins.FEW)
    found = joins.check(dataset, split, inputs.count_words, own, max_unknown)
    scorer = model.scorer(catalogue, split.histories.rows)
    scores = scorer.score(impressions)
    found = replace(found, warnings=doubts + found.warnings)
    return WholeSplit(split, impressions, scores, scorer, found)


def rows_before(state: State, now: int | None, readers: pa.Array | None = None) -> Before:
    """The rows of the split count for those after them, and before them a state. See `Moment`."""

    def before(split: Split) -> tuple[Moment, list[str]]:
        first = now if split.first_time is None else split.first_time
        start, doubts = start_before(state, first)
        return Moment(start, now=now, readers=readers), doubts

    return before


def live_before(state: State, now: int, readers: pa.Array | None = None) -> Before:
    """The state of now, and no row of the split. See `Moment`."""

    def before(split: Split) -> tuple[Moment, list[str]]:
        first, last = split.first_time or now, split.last_time or now
        return Moment(state, Events.empty(), now, readers), live_doubts(state, first, last)

    return before


def _unlabelled(context: Context, impressions: Impressions) -> list[str]:
    if impressions.clicked is not None or not context.rules.clicks or len(impressions) < 2:
        return []
    return [
        "context: the impressions hold no clicks, which the model counts: those after the first "
        "hour are scored worse"
    ]
