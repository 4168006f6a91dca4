"""Training samples: a click against non-clicks of the same impression, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nrms.data.impressions import Impressions
from nrms.data.prefetch import prefetch
from nrms.data.split import Split


@dataclass(frozen=True)
class Position:
    """How far training has come in its data: a value, so that resuming is a matter of passing it.

    Attributes:
        epoch: epochs finished.
        batch: batches finished in the current epoch.
    """

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Batch:
    """Row numbers of `b` samples.

    Attributes:
        history: int32 of shape `(b, history)`, article rows, oldest first, 0 = padding at the end.
        candidates: int32 of shape `(b, 1 + npratio)`, article rows; column 0 is the click, 0 = no
            candidate.
    """

    history: np.ndarray
    candidates: np.ndarray

    def __len__(self) -> int:
        return len(self.history)


class TrainingBatches:
    """The batches of every epoch, a pure function of the seed and the position.

    Shards are read in a new order each epoch and shuffled inside, one at a time, so memory does not
    grow with the number of impressions. The next shard is read while this one trains.

    Args:
        split: the training split.
        npratio: non-clicked articles per click (Wu et al. 2019 call it K).
        batch_size: samples a batch; the last one of an epoch may be smaller.
        seed: of the order and the draws.
    """

    def __init__(self, split: Split, npratio: int, batch_size: int, seed: int):
        self._split = split
        self._npratio = npratio
        self._batch_size = batch_size
        self._seed = seed

    def epoch(self, start: Position) -> Iterator[tuple[Position, Batch]]:
        """Yields the batches of epoch `start.epoch` from batch `start.batch` on, each with the
        position after it.
        """
        position = start
        skip = start.batch
        for batch in self._batches(start.epoch):
            if skip:
                skip -= 1
                continue
            position = replace(position, batch=position.batch + 1)
            yield position, batch

    def _batches(self, epoch: int) -> Iterator[Batch]:
        users = np.empty(0, np.int32)
        candidates = np.empty((0, 1 + self._npratio), np.int32)
        for shard_users, shard_candidates in prefetch(self._shards(epoch), depth=1):
            users = np.concatenate([users, shard_users])
            candidates = np.concatenate([candidates, shard_candidates])
            whole = len(users) - len(users) % self._batch_size
            yield from self._cut(users[:whole], candidates[:whole])
            users, candidates = users[whole:], candidates[whole:]
        yield from self._cut(users, candidates)

    def _cut(self, users: np.ndarray, candidates: np.ndarray) -> Iterator[Batch]:
        for start in range(0, len(users), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield Batch(self._split.histories.rows[users[part]], candidates[part])

    def _shards(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for shard in np.random.default_rng((self._seed, epoch)).permutation(len(self._split)):
            rng = np.random.default_rng((self._seed, epoch, int(shard)))
            users, candidates = draw_samples(self._split.read(int(shard)), self._npratio, rng)
            order = rng.permutation(len(users))
            yield users[order], candidates[order]


def count_samples(impressions: Impressions) -> int:
    """The number of samples that `draw_samples` makes of a shard, whatever it draws."""
    clicks, _ = _clicks_and_negatives(impressions)
    return len(clicks)


def draw_samples(
    impressions: Impressions, npratio: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One sample for each click, with up to `npratio` of its impression's non-clicks, without
    replacement.

    Where an impression has fewer non-clicks, all are taken and the places left over hold 0, which
    the loss leaves out. Unknown articles are neither clicks nor non-clicks here: they have no title
    to learn from. A click without any non-click makes no sample, since its loss is 0 whatever the
    model does.

    Args:
        impressions: a labelled shard.
        npratio: non-clicks per click.
        rng: what draws.

    Returns:
        `users`, int32 of shape `(samples,)`, rows in the histories, and `candidates`, int32 of
        shape `(samples, 1 + npratio)`, article rows, the click first; samples in the order of the
        clicks.
    """
    clicks, negatives = _clicks_and_negatives(impressions)
    impression_of = _impression_of(impressions)
    first = np.searchsorted(impression_of[negatives], impression_of[clicks])
    available = (
        np.searchsorted(impression_of[negatives], impression_of[clicks], side="right") - first
    )

    # Every (sample, non-click) pair gets a random key; the npratio smallest of each sample are its
    # draw.
    sample = np.repeat(np.arange(len(clicks)), available)
    within = np.arange(len(sample)) - np.repeat(np.cumsum(available) - available, available)
    pair = negatives[np.repeat(first, available) + within]
    order = np.lexsort((rng.random(len(pair)), sample))
    # sorting moves pairs only inside their sample, so places stay what they were
    drawn = within < npratio
    candidates = np.zeros((len(clicks), 1 + npratio), np.int32)
    candidates[:, 0] = impressions.candidates[clicks]
    candidates[sample[drawn], 1 + within[drawn]] = impressions.candidates[pair[order][drawn]]
    return impressions.user[impression_of[clicks]], candidates


def _impression_of(impressions: Impressions) -> np.ndarray:
    return np.repeat(np.arange(len(impressions)), np.diff(impressions.offsets))


def _clicks_and_negatives(impressions: Impressions) -> tuple[np.ndarray, np.ndarray]:
    """Places, among the candidates, of the clicks that make a sample and of all
    known non-clicks.
    """
    if impressions.clicked is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    known = impressions.candidates != 0
    negatives = np.flatnonzero(known & ~impressions.clicked)
    impression_of = _impression_of(impressions)
    has_negative = np.zeros(len(impressions), bool)
    has_negative[impression_of[negatives]] = True
    return np.flatnonzero(known & impressions.clicked & has_negative[impression_of]), negatives
