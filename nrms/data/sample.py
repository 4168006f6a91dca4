"""A sample of impressions of limited size, to measure the same ones again and again."""

from __future__ import annotations

import numpy as np

from nrms.data.columns import list_rows
from nrms.data.impressions import Impressions


class ImpressionSample:
    """A uniform sample, without replacement, of the impressions with a click and a non-click. It
    depends on the seed and the shards alone.

    Args:
        size: at most so many impressions are kept.
        seed: seed of the draw.

    Attributes:
        shards: what was drawn, one piece for each shard of which something was drawn.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._rng = size, np.random.default_rng((seed, size))
        self._keys: list[np.ndarray] = []
        self.shards: list[Impressions] = []

    def add(self, impressions: Impressions) -> None:
        """Draws from a labelled shard."""
        rows = list_rows(impressions.offsets)
        clicks = np.bincount(rows[impressions.clicked], minlength=len(impressions))
        telling = np.flatnonzero((clicks > 0) & (clicks < np.diff(impressions.offsets)))
        keys = self._rng.random(len(telling))
        # The impressions with the smallest keys of all shards are kept.
        kept = np.sort(np.argsort(keys)[: self._size])
        self._keys.append(keys[kept])
        self.shards.append(impressions.take(telling[kept]))
        limit = np.append(np.sort(np.concatenate(self._keys)), np.inf)[: self._size + 1][-1]
        pieces = [
            (keys, shard, np.flatnonzero(keys < limit))
            for keys, shard in zip(self._keys, self.shards, strict=True)
        ]
        pieces = [piece for piece in pieces if len(piece[2])]
        self._keys = [keys[kept] for keys, _, kept in pieces]
        self.shards = [
            shard if len(kept) == len(shard) else shard.take(kept) for _, shard, kept in pieces
        ]
