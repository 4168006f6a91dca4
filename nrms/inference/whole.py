"""Scores a split of one file at once: an upload, or tables of a Python program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nrms.data import joins
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.layout import SplitFiles
from nrms.data.split import Split
from nrms.features.context.input import Context, Moment
from nrms.features.context.start import start_before
from nrms.features.context.state import State
from nrms.inference.loaded_model import Catalogue, LoadedModel

# Gives what had happened before the impressions of a split, and what may make their scores wrong.
Before = Callable[[Split], tuple[Moment, list[str]]]


@dataclass(frozen=True)
class WholeSplit:
    """A split of one file, scored.

    Attributes:
        split: the split.
        impressions: its impressions.
        scores: float32 `(c,)`.
        joins: how its files join, with the warnings of all that may make the scores wrong.
    """

    split: Split
    impressions: Impressions
    scores: np.ndarray
    joins: Joins


def score_whole(
    model: LoadedModel,
    catalogue: Catalogue,
    dataset: Dataset,
    name: str,
    own: Mapping[str, float],
    max_unknown: float,
    before: Before | None = None,
    now: int | None = None,
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
        before: what a model that reads the past starts from. With None its own rows count for those
            after them, on the model's state.
        now: the time of impressions without times, microseconds since 1970; None where a model that
            reads the past refuses them.
        files: the split's files, where they do not lie in its folder.

    Raises:
        SchemaError: something breaks the contract.
    """
    inputs = model.inputs
    split = dataset.split(name, inputs.history.size, tuple(inputs.moment), files=files)
    doubts: list[str] = []
    if inputs.past is not None:
        moment, doubts = (before or rows_before(inputs.past.state, now))(split)
        split.past_of = lambda i: moment
    impressions = split.read(0)
    if inputs.past is not None and before is None:
        doubts += _unlabelled(inputs.past, impressions)
    joins.refuse_strangers(dataset, split, joins.FEW)
    found = joins.check(dataset, split, inputs.count_words, own, max_unknown)
    scores = model.scorer(catalogue, split.histories.rows).score(impressions)
    return WholeSplit(split, impressions, scores, replace(found, warnings=doubts + found.warnings))


def rows_before(state: State, now: int | None) -> Before:
    """The rows of the split count for those after them, and before them a state."""

    def before(split: Split) -> tuple[Moment, list[str]]:
        first = now if split.first_time is None else split.first_time
        start, doubts = start_before(state, first)
        return Moment(start, now=now), doubts

    return before


def _unlabelled(context: Context, impressions: Impressions) -> list[str]:
    if impressions.clicked is not None or not context.rules.clicks or len(impressions) < 2:
        return []
    return [
        "context: the impressions hold no clicks, which the model counts: those after the first "
        "hour are scored worse"
    ]
