"""The batches of every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nrms.data.prefetch import prefetch
from nrms.data.split import Split
from nrms.training.samplers import Sampler, Samples

_BATCHES = 32  # so many batches are sorted by length together


@dataclass(frozen=True)
class Position:
    """How far training has come in its data. It is a value, so a training is resumed by passing it.

    Attributes:
        epoch: epochs finished.
        batch: batches finished in the current epoch.
    """

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Batch:
    """Named arrays of `b` samples.

    Attributes:
        arrays: `history`, int32 of shape `(b, history)`, rows of articles, oldest first, 0 =
            padding at the end; `candidates`, int32 of shape `(b, candidates)`, rows of articles, 0
            = an unknown article or no candidate; `labels`, float32 of that shape, 1 for a click;
            `mask`, bool of that shape, False where there is no candidate; and what the model reads
            of the moment, of shape `(b, ...)` or `(b, candidates, ...)`.
    """

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["history"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


class TrainingBatches:
    """The batches of every epoch, a pure function of the seed and the position.

    Shards are read in a new order each epoch and shuffled inside, one at a time, so memory does not
    grow with the number of impressions. The next shard is read while this one trains.

    Args:
        split: the training split.
        sampler: makes the samples of a shard.
        batch_size: samples of a batch; the last batch of an epoch may be smaller.
        seed: seed of the order and of the samples that are drawn.
    """

    def __init__(self, split: Split, sampler: Sampler, batch_size: int, seed: int):
        self._split = split
        self._sampler = sampler
        self._batch_size = batch_size
        self._seed = seed

    def epoch(self, start: Position) -> Iterator[tuple[Position, Batch]]:
        """Yields the batches of epoch `start.epoch` from batch `start.batch` on, each with the
        position after it.
        """
        position = start
        skip = start.batch
        for samples in self._cuts(start.epoch):
            if skip:
                skip -= 1
                continue
            position = replace(position, batch=position.batch + 1)
            yield position, self._batch(samples)

    def _cuts(self, epoch: int) -> Iterator[Samples]:
        left: Samples | None = None
        for samples in prefetch(self._shards(epoch), depth=1):
            samples = samples if left is None else Samples.joined([left, samples])
            whole = len(samples) - len(samples) % self._batch_size
            for start in range(0, whole, self._batch_size):
                yield samples.cut(start, start + self._batch_size)
            left = samples.cut(whole, len(samples))
        if left is not None and len(left):
            yield left

    def _batch(self, samples: Samples) -> Batch:
        history = {"history": self._split.histories.rows[samples.user]}
        return Batch(history | samples.padded(self._sampler.width))

    def _shards(self, epoch: int) -> Iterator[Samples]:
        for shard in np.random.default_rng((self._seed, epoch)).permutation(len(self._split)):
            rng = np.random.default_rng((self._seed, epoch, int(shard)))
            samples = self._sampler.draw(self._split.read(int(shard)), rng)
            yield samples.take(self._order(samples, rng))

    def _order(self, samples: Samples, rng: np.random.Generator) -> np.ndarray:
        """A random order, int64. Where the sampler asks for it, batches are made of samples of
        like length, and their order is random, too.
        """
        order = rng.permutation(len(samples))
        if not self._sampler.by_length:
            return order
        lengths, size = np.diff(samples.offsets)[order], self._batch_size
        window = np.arange(len(order)) // (_BATCHES * size)
        order = order[np.lexsort((lengths, window))]
        batches = np.split(order, np.arange(size, len(order), size))
        whole = [batches[i] for i in rng.permutation(len(order) // size)]
        return np.concatenate([*whole, *batches[len(whole) :]])
