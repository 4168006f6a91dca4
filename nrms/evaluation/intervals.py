"""How far a mean may be from the true one: a bootstrap over impressions, whose result does not
depend on the order of shards.

A replicate draws each impression a Poisson(1) number of times (Chamandy et al., "Estimating
uncertainty for massive data streams", 2012). The number is a hash of the impression and the
replicate, so it does not depend on what was added before, by whom, or where. Hence intervals of
parts add up to that of the whole, to the last digit.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from nrms.data.columns import hashes

LEVEL = 0.95
REPLICATES = 1000  # of an interval, and of the draws made at once
# Impressions are put into so many groups, by hash, and a group is drawn as one. The mean has the
# same spread, but memory and time do not grow with the impressions.
GROUPS = 4096
# Metrics are summed as whole numbers of 1 / UNIT, because the sum of integers has no order
UNIT = 2**32
_AT_ONCE = 64  # groups that are drawn at once


class AucInterval:
    """The 95% interval of a mean AUC. Intervals of parts add up: `part + other_part`.

    Example:
        interval = AucInterval()
        keys = impression_keys(shard.impression_id, shard.user_id)
        interval.add(keys, impression_metrics(...).auc)
        low, high = interval.result()
    """

    def __init__(self) -> None:
        self._sums = np.zeros((2, GROUPS), np.int64)  # of AUCs, and how many

    def add(self, keys: np.ndarray, auc: np.ndarray) -> None:
        """Adds a shard.

        Args:
            keys: uint64 `[n]`, see `impression_keys`.
            auc: float64 `[n]`; an undefined one is NaN and is left out.
        """
        counted = ~np.isnan(auc)
        group = (keys[counted] % GROUPS).astype(np.int64)
        np.add.at(self._sums[0], group, np.rint(auc[counted] * UNIT).astype(np.int64))
        self._sums[1] += np.bincount(group, minlength=GROUPS)

    def __add__(self, other: AucInterval) -> AucInterval:
        total = AucInterval()
        total._sums = self._sums + other._sums
        return total

    def result(self) -> list[float] | None:
        """Low and high end; None where fewer than two impressions have an AUC."""
        if self._sums[1].sum() < 2:
            return None
        sums, counts = self._sums @ draws()
        means = sums[counts > 0] / counts[counts > 0] / UNIT
        tail = (1 - LEVEL) / 2
        return np.quantile(means, [tail, 1 - tail]).tolist()


def impression_keys(impression_id: pa.Array, user_id: pa.Array) -> np.ndarray:
    """Keys on which the draws of impressions depend: uint64 `[n]`. They include the user, because
    on some sites several impressions have the same id.
    """
    return hashes(hashes(impression_id) ^ (hashes(user_id) * np.uint64(3)))


@functools.lru_cache(maxsize=1)
def draws(seed: int = 0, block: int = 0) -> np.ndarray:
    """How often each replicate of a block draws each group: int64 `(groups, replicates)`,
    Poisson(1).

    Args:
        seed: other seeds give other draws; at least 0, below 2^32.
        block: the number of the block, from 0 and below 1000.
    """
    probability = np.exp(-1) / np.cumprod([1.0, *range(1, 16)])
    chance = np.cumsum(probability)
    drawn = np.empty((GROUPS, REPLICATES), np.int64)
    # A few groups at a time, whose numbers stay in the processor's cache: thrice as fast.
    for start in range(0, GROUPS, _AT_ONCE):
        part = drawn[start : start + _AT_ONCE]
        first = ((1000 * seed + block) * GROUPS + start) * REPLICATES
        numbers = np.uint64(first) + np.arange(part.size, dtype=np.uint64)
        uniform = (hashes(numbers) / 2.0**64).reshape(part.shape)
        times = np.zeros(part.shape, np.int8)
        for level in chance:  # thrice as fast as a search
            times += uniform >= level
        part[:] = times
    return drawn
