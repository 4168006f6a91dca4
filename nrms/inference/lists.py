"""Scores with a model that reads all candidates of an impression at once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np

from nrms.features.spec import Spec
from nrms.inference.runtime import Runtime, Scorable

logger = logging.getLogger(__name__)

# So many candidates, padding included, are scored at once. More are no faster, and what compares
# each with all of its list takes memory.
_CANDIDATES = 4096
LIST_SCORER, MASK = "list_scorer", "mask"


class ListScorer:
    """Scores impressions list by list. An unknown candidate is scored like the others, by what the
    model reads of the moment. Scores depend on the arguments alone: no file, bucket or clock is
    read.

    Args:
        runtime: has the graph `list_scorer`, which gives scores, float32 `(lists, candidates)`. Its
            inputs are those of articles and of candidates, `(lists, candidates, ...)`, those of
            impressions, `(lists, ...)`, and `mask`, bool `(lists, candidates)`, False where a list
            has no candidate.
        catalogue: what the model reads of articles, `(articles + 1, ...)` by name; row 0 is zeros.
        moment: the form of the inputs of impressions and candidates, by name. Where a shard lacks
            one of them, zeros are used, and a warning says so.
        needed: names of those that no shard may lack.
    """

    def __init__(
        self,
        runtime: Runtime,
        catalogue: Mapping[str, np.ndarray],
        moment: Mapping[str, Spec],
        needed: Collection[str] = (),
    ) -> None:
        self._runtime = runtime
        self._catalogue = catalogue
        self._moment = moment
        self._names = runtime.inputs[LIST_SCORER]
        self._needed = needed
        self._said: set[str] = set()

    def prepare(self, users: np.ndarray) -> None:
        """Does nothing, because readers are not encoded beforehand."""

    def score(self, impressions: Scorable) -> np.ndarray:
        """Scores every candidate of a shard: float32 `(c,)`, in their order; higher is better."""
        lengths = np.diff(impressions.offsets)
        scores = np.zeros(len(impressions.candidates), np.float32)
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        start = 0
        while start < len(order):
            longest = int(lengths[order[start]])
            lists = order[start : start + max(1, _CANDIDATES // longest)]
            mask = np.arange(longest) < lengths[lists, None]
            places = np.where(mask, impressions.offsets[lists, None] + np.arange(longest), 0)
            arrays = {
                name: self._array(name, impressions, lists, places, mask) for name in self._names
            }
            scores[places[mask]] = self._runtime.run(LIST_SCORER, arrays)[mask]
            start += len(lists)
        return scores

    def _array(
        self,
        name: str,
        impressions: Scorable,
        lists: np.ndarray,
        places: np.ndarray,
        mask: np.ndarray,
    ) -> np.ndarray:
        if name == MASK:
            return mask
        if name in self._catalogue:
            return self._catalogue[name][np.where(mask, impressions.candidates[places], 0)]
        if name in impressions.per_impression:
            return impressions.per_impression[name][lists]
        if name in impressions.per_candidate:
            values = impressions.per_candidate[name][places]
            values[~mask] = 0
            return values
        assert name not in self._needed, f"nobody told what had happened before: {name}"
        if name not in self._said:
            self._said.add(name)
            logger.warning("the model reads %s, which the data lack: 0 is used everywhere", name)
        spec = self._moment[name]
        sizes = {"lists": len(lists), "candidates": mask.shape[1]}
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in spec.axes]
        return np.zeros(shape, spec.dtype)
