"""Makes training samples: a click with non-clicks of its impression, or a whole impression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nrms.data.columns import list_places, list_rows
from nrms.data.impressions import Impressions


@dataclass(frozen=True)
class Samples:
    """Samples of one or more shards: `s` lists with `c` candidates in total.

    Attributes:
        user: rows in the histories, int32 of shape `(s,)`.
        offsets: int64 of shape `(s + 1,)`; the candidates of sample i are `offsets[i]:offsets[i +
            1]`.
        per_sample: named arrays of shape `(s, ...)`.
        per_candidate: named arrays of shape `(c, ...)`; among them `candidates`, int32 rows of
            articles, and `labels`, float32, 1 for a click and 0 otherwise.
    """

    user: np.ndarray
    offsets: np.ndarray
    per_sample: Mapping[str, np.ndarray]
    per_candidate: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, order: np.ndarray) -> Samples:
        """The samples of these rows, from 0, in the order of `order`, int64."""
        offsets, places = list_places(self.offsets, order)
        return Samples(
            self.user[order],
            offsets,
            {name: array[order] for name, array in self.per_sample.items()},
            {name: array[places] for name, array in self.per_candidate.items()},
        )

    def cut(self, start: int, end: int) -> Samples:
        """Samples `start` up to, not including, `end`, without a copy."""
        first, last = self.offsets[start], self.offsets[min(end, len(self))]
        return Samples(
            self.user[start:end],
            self.offsets[start : end + 1] - first,
            {name: array[start:end] for name, array in self.per_sample.items()},
            {name: array[first:last] for name, array in self.per_candidate.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """The samples of all parts, of which there is at least one, in order."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([part.user for part in parts]),
            np.append(0, np.cumsum(lengths)),
            _joined([part.per_sample for part in parts]),
            _joined([part.per_candidate for part in parts]),
        )

    def padded(self, width: int) -> dict[str, np.ndarray]:
        """The arrays of a batch: those of samples; those of candidates in the shape
        `(s, candidates, ...)`, with at least `width` candidates, and zeros after a sample's last
        one; and `mask`, bool `(s, candidates)`, False there.
        """
        lengths = np.diff(self.offsets)
        mask = np.arange(max(width, int(lengths.max(initial=0)))) < lengths[:, None]
        arrays = dict(self.per_sample)
        for name, array in self.per_candidate.items():
            arrays[name] = np.zeros((*mask.shape, *array.shape[1:]), array.dtype)
            arrays[name][mask] = array
        return {**arrays, "mask": mask}


class Sampler(Protocol):
    """Makes samples of a shard.

    Attributes:
        width: the least number of candidates in the lists of a batch.
        by_length: whether batches are made of samples of like length, because lengths differ much.
    """

    width: int
    by_length: bool

    def count(self, impressions: Impressions) -> int:
        """The number of samples that `draw` makes of a shard, which does not depend on `rng`."""

    def draw(self, impressions: Impressions, rng: np.random.Generator) -> Samples:
        """The samples of a shard, in the order of its clicks or impressions; none where it is
        unlabelled.
        """


class Clicks:
    """One sample for each click, with up to `npratio` of its impression's non-clicks, without
    replacement.

    Where an impression has fewer non-clicks, all are taken. Unknown articles are left out, because
    nothing can be learned from them. A click without any non-click makes no sample, because its
    loss is always 0.

    Args:
        npratio: non-clicks for each click, which Wu et al. (2019) call K.
    """

    def __init__(self, npratio: int) -> None:
        self._npratio = npratio
        self.width, self.by_length = 1 + npratio, False

    def count(self, impressions: Impressions) -> int:
        """See `Sampler`."""
        clicks, _ = _clicks_and_negatives(impressions)
        return len(clicks)

    def draw(self, impressions: Impressions, rng: np.random.Generator) -> Samples:
        """See `Sampler`; the click is the first candidate of its sample."""
        clicks, negatives = _clicks_and_negatives(impressions)
        impression_of = list_rows(impressions.offsets)
        first = np.searchsorted(impression_of[negatives], impression_of[clicks])
        available = (
            np.searchsorted(impression_of[negatives], impression_of[clicks], side="right") - first
        )

        # Each pair of a sample and a non-click gets a random key. Those with the npratio smallest
        # keys of each sample are drawn.
        sample = np.repeat(np.arange(len(clicks)), available)
        within = np.arange(len(sample)) - np.repeat(np.cumsum(available) - available, available)
        pair = negatives[np.repeat(first, available) + within]
        order = np.lexsort((rng.random(len(pair)), sample))
        # Sorting moves pairs only within their sample, so `within` still numbers them from 0.
        drawn = within < self._npratio
        offsets = np.append(0, np.cumsum(1 + np.minimum(available, self._npratio)))
        places = np.empty(offsets[-1], np.int64)
        places[offsets[:-1]] = clicks
        places[offsets[sample[drawn]] + 1 + within[drawn]] = pair[order][drawn]
        return _samples(impressions, impression_of[clicks], offsets, places)


class Lists:
    """One sample for each impression with a click and a non-click. It has all candidates, unknown
    ones included.
    """

    width, by_length = 0, True

    def count(self, impressions: Impressions) -> int:
        """See `Sampler`."""
        return len(_telling(impressions))

    def draw(self, impressions: Impressions, rng: np.random.Generator) -> Samples:
        """See `Sampler`; `rng` is not used."""
        rows = _telling(impressions)
        return _samples(impressions, rows, *list_places(impressions.offsets, rows))


class Within:
    """The samples of a part of the time.

    Args:
        sampler: makes samples of impressions.
        since: the first time that belongs to the part, datetime64; None for any.
        until: the first time after it.
    """

    def __init__(
        self, sampler: Sampler, since: np.datetime64 | None, until: np.datetime64 | None
    ) -> None:
        self._sampler, self._since, self._until = sampler, since, until
        self.width, self.by_length = sampler.width, sampler.by_length

    def count(self, impressions: Impressions) -> int:
        """See `Sampler`."""
        return self._sampler.count(self._part(impressions))

    def draw(self, impressions: Impressions, rng: np.random.Generator) -> Samples:
        """See `Sampler`."""
        return self._sampler.draw(self._part(impressions), rng)

    def _part(self, impressions: Impressions) -> Impressions:
        if impressions.time is None:
            return impressions
        inside = ~np.isnat(impressions.time)
        if self._since is not None:
            inside &= impressions.time >= self._since
        if self._until is not None:
            inside &= impressions.time < self._until
        return impressions if inside.all() else impressions.take(np.flatnonzero(inside))


def sampler_of(name: str, npratio: int) -> Sampler:
    """The sampler that a model names.

    Args:
        name: `clicks` or `lists`, see `nrms.architectures.registry`.
        npratio: see `Clicks`.
    """
    return Clicks(npratio) if name == "clicks" else Lists()


def _samples(
    impressions: Impressions, rows: np.ndarray, offsets: np.ndarray, places: np.ndarray
) -> Samples:
    """The samples of the impressions `rows`, with the candidates at `places`, both int64."""
    per_candidate = {name: array[places] for name, array in impressions.per_candidate.items()}
    clicked = np.zeros(0, bool) if impressions.clicked is None else impressions.clicked[places]
    per_candidate["candidates"] = impressions.candidates[places]
    per_candidate["labels"] = clicked.astype(np.float32)
    per_sample = {name: array[rows] for name, array in impressions.per_impression.items()}
    return Samples(impressions.user[rows], offsets, per_sample, per_candidate)


def count_telling(impressions: Impressions) -> int:
    """The number of impressions with a click and a non-click, by which a ranking is measured."""
    return len(_telling(impressions))


def _telling(impressions: Impressions) -> np.ndarray:
    """The rows of the impressions with a click and a non-click, int64."""
    if impressions.clicked is None:
        return np.empty(0, np.int64)
    clicked = list_rows(impressions.offsets)[impressions.clicked]
    clicks = np.bincount(clicked, minlength=len(impressions))
    return np.flatnonzero((clicks > 0) & (clicks < np.diff(impressions.offsets)))


def _clicks_and_negatives(impressions: Impressions) -> tuple[np.ndarray, np.ndarray]:
    """The positions among the candidates, int64, of the clicks that make a sample, and of all known
    non-clicks.
    """
    if impressions.clicked is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    known = impressions.candidates != 0
    negatives = np.flatnonzero(known & ~impressions.clicked)
    impression_of = list_rows(impressions.offsets)
    has_negative = np.zeros(len(impressions), bool)
    has_negative[impression_of[negatives]] = True
    return np.flatnonzero(known & impressions.clicked & has_negative[impression_of]), negatives


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
