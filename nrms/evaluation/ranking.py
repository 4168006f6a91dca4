"""Exact per-impression ranking metrics over ragged shards: AUC, MRR, nDCG@5, nDCG@10, and ranks.

The definitions are the field's (MIND: Wu et al., ACL 2020, and its evaluation script; EB-NeRD's
benchmark): each metric is computed within an impression and averaged over impressions.

- AUC: share of (click, non-click) pairs in which the click scores higher.
- MRR: mean over the impression's clicks of `1 / rank`.
- nDCG@k: gain `2^click - 1`, discount `1 / log2(rank + 1)`, over the best order's value.

Tied scores have no order of their own, so every metric is its **expected value over all orders of
the ties**: a tied pair counts one half in AUC (as in scikit-learn), and a tied candidate gets the
mean reciprocal rank and the mean discount of the positions that its ties share. Neither the order
of candidates nor a seed matters.

Shards are ragged: impression `i` owns the candidates `offsets[i]:offsets[i + 1]` of the flat
arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nrms.errors import SchemaError

METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10")


@dataclass(frozen=True)
class ImpressionMetrics:
    """The metrics of each impression.

    Attributes:
        values: float64 `[4, n]`, rows as in `METRICS`; NaN for an impression without a click or
            without a non-click, where AUC is undefined.
        candidates: number of candidates in all impressions.
    """

    values: np.ndarray
    candidates: int

    @property
    def auc(self) -> np.ndarray:
        """AUC, float64 `[n]`."""
        return self.values[0]


@dataclass
class MetricSums:
    """Averages over impressions, shard after shard. They equal the averages over all at once, up to
    the rounding of float64.
    """

    totals: np.ndarray | None = None
    impressions: int = 0
    candidates: int = 0
    skipped_one_class: int = 0

    def add(self, metrics: ImpressionMetrics) -> None:
        """Adds one shard."""
        totals = np.nansum(metrics.values, axis=1)
        self.totals = totals if self.totals is None else self.totals + totals
        self.impressions += metrics.values.shape[1]
        self.candidates += metrics.candidates
        self.skipped_one_class += int(np.isnan(metrics.auc).sum())

    def result(self) -> dict[str, float]:
        """`impressions`, `candidates`, `skipped_one_class`, and the means over the impressions not
        skipped: `auc`, `mrr`, `ndcg@5`, `ndcg@10`, which are absent when all were skipped.
        """
        counted = self.impressions - self.skipped_one_class
        means = {}
        if self.totals is not None and counted:
            means = dict(zip(METRICS, np.asarray(self.totals / counted).tolist(), strict=True))
        return means | {
            "impressions": self.impressions,
            "candidates": self.candidates,
            "skipped_one_class": self.skipped_one_class,
        }


@dataclass(frozen=True)
class GroupMean:
    """The mean of a group, of one quantity (floats) or of several (float64 `[m]`). Those of shards
    can be added.

    Attributes:
        total: sum of the values.
        squares: sum of their squares.
        count: number of values, the same for all quantities.
    """

    total: float | np.ndarray
    squares: float | np.ndarray
    count: int

    def __add__(self, other: GroupMean) -> GroupMean:
        return GroupMean(
            self.total + other.total, self.squares + other.squares, self.count + other.count
        )

    def __getitem__(self, row: int) -> GroupMean:
        """The mean of one of several quantities."""
        return GroupMean(
            float(np.asarray(self.total)[row]), float(np.asarray(self.squares)[row]), self.count
        )

    @property
    def mean(self) -> float | np.ndarray:
        """The mean."""
        return self.total / self.count

    @property
    def standard_error(self) -> float | np.ndarray:
        """Standard error of the mean; 0 for a single value, as its spread is unknown."""
        variance = np.maximum(0.0, self.squares / self.count - self.mean**2)
        return (variance / max(1, self.count - 1)) ** 0.5


def impression_metrics(
    offsets: np.ndarray,
    scores: np.ndarray,
    clicked: np.ndarray,
    order: np.ndarray | None = None,
) -> ImpressionMetrics:
    """Computes all metrics of a shard from one sort, without Python per impression.

    Args:
        offsets: int64 `[n + 1]`.
        scores: float32 `[c]`, higher is better; infinities are allowed.
        clicked: bool `[c]`.
        order: `best_first` of these scores, where it is known already.

    Raises:
        SchemaError: a score is NaN.
        ValueError: the lengths of the arrays do not match.
    """
    if len(clicked) != len(scores):
        raise ValueError(
            f"`clicked` must be as long as `scores`. Received: {len(clicked)} and {len(scores)}."
        )
    impression, key = _keys(offsets, scores)
    if order is None:
        order = np.argsort(key, kind="stable")
    lengths = np.diff(offsets)

    # From here on only clicks are needed, and they are few. A tie is a run of equal keys within an
    # impression.
    at = np.flatnonzero(np.asarray(clicked, bool)[order])
    key = key[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    run = np.searchsorted(starts, at, side="right") - 1
    owner = impression[at]
    first = starts[run] - offsets[owner]
    end = np.append(starts, len(key))[run + 1] - offsets[owner]

    clicks = np.bincount(owner, minlength=len(lengths))
    rank = np.arange(1, lengths.max(initial=0) + 1)

    def per_impression(weight: np.ndarray) -> np.ndarray:
        """Sum over an impression's clicks of `weight[rank]`, averaged over the ranks that a tie
        shares.
        """
        upto = np.append(0.0, np.cumsum(weight))
        return np.bincount(owner, (upto[end] - upto[first]) / (end - first), minlength=len(lengths))

    def ndcg(k: int) -> np.ndarray:
        discount = np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)
        best = np.append(0.0, np.cumsum(discount))
        return per_impression(discount) / best[clicks]

    with np.errstate(divide="ignore", invalid="ignore"):
        # The number of non-clicks above a click is its rank minus the clicks at or above it (Mann
        # and Whitney).
        above = per_impression(rank) - clicks * (clicks + 1) / 2
        auc = 1 - above / (clicks * (lengths - clicks))
        values = np.stack([auc, per_impression(1 / rank) / clicks, ndcg(5), ndcg(10)])
    values[:, (clicks == 0) | (clicks == lengths)] = np.nan
    return ImpressionMetrics(values, len(scores))


def ranks(offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The rank of each candidate in its impression: int32 `[c]`, 1 = best, equal scores in the
    given order.

    Raises:
        SchemaError: a score is NaN.
        ValueError: the lengths of the arrays do not match.
    """
    impression, key = _keys(offsets, scores)
    order = np.argsort(key, kind="stable")
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(1, len(order) + 1) - np.asarray(offsets)[impression]
    return places


def best_first(offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The places of the candidates, impression by impression, in the order of `ranks`: int64 `[c]`.

    Raises:
        SchemaError: a score is NaN.
        ValueError: the lengths of the arrays do not match.
    """
    return np.argsort(_keys(offsets, scores)[1], kind="stable")


def top(offsets: np.ndarray, order: np.ndarray, k: int) -> np.ndarray:
    """The places of the k best candidates of each impression: int64 `[n, k]`, the best first; -1
    where an impression has fewer.

    Args:
        offsets: int64 `[n + 1]`.
        order: as `best_first` gives it.
        k: > 0.
    """
    offsets, place = np.asarray(offsets), np.arange(k)
    there = place < np.diff(offsets)[:, None]
    return np.append(order, -1)[np.where(there, offsets[:-1, None] + place, -1)]


def place_unknown(offsets: np.ndarray, scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Gives unknown candidates the mean score of the known ones in their impression, which is a
    neutral place.

    Args:
        offsets: int64 `[n + 1]`.
        scores: float32 `[c]`; those of unknown candidates are ignored.
        known: bool `[c]`.

    Returns:
        float32 `[c]`: `scores` itself where all candidates are known. In an impression without a
        known candidate all scores are 0.
    """
    if known.all():
        return scores
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = np.bincount(owner[known], minlength=len(offsets) - 1)
    means = np.bincount(owner[known], scores[known], minlength=len(counts)) / np.maximum(counts, 1)
    return np.where(known, scores, means[owner].astype(np.float32))


def by_group(values: np.ndarray, keys: np.ndarray) -> dict[Any, GroupMean]:
    """Means of each row of `values` by `keys`, in key order.

    Args:
        values: float64 `[m, n]`; a column with a NaN is skipped.
        keys: `[n]`, of any type that can be sorted.
    """
    counted = ~np.isnan(values).any(axis=0)
    values = values[:, counted]
    groups, member = np.unique(np.asarray(keys)[counted], return_inverse=True)
    totals, squares = (
        np.stack([np.bincount(member, row, minlength=len(groups)) for row in rows], axis=1)
        for rows in (values, values**2)
    )
    counts = np.bincount(member, minlength=len(groups)).tolist()
    return {
        key: GroupMean(*sums)
        for key, *sums in zip(groups.tolist(), totals, squares, counts, strict=True)
    }


def check_scores(offsets: np.ndarray, scores: np.ndarray) -> None:
    """Raises SchemaError when one of the scores (float `[c]`) is NaN."""
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        row = np.searchsorted(offsets, missing[0], side="right") - 1
        raise SchemaError(
            f"Scores must be numbers. Received: NaN for {len(missing):,} of {len(scores):,} "
            f"candidates, first in row {row:,} of the shard (counted from 0). The model that made "
            "them is broken: train it again, or use another version."
        )


def _keys(offsets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The impression of each candidate, and a key that sorts by impression, then by score, the best
    first: both int64 `[c]`.
    """
    offsets = np.asarray(offsets)
    scores = np.asarray(scores, np.float32)
    check_scores(offsets, scores)
    if offsets[0] != 0 or offsets[-1] != len(scores):
        raise ValueError(
            f"`offsets` must run from 0 to the number of scores. Received: {offsets[0]} to "
            f"{offsets[-1]}, {len(scores)} scores."
        )
    impression = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    # The bits of a float, read as an integer and mirrored below zero, sort as the floats do. Adding
    # 0 makes -0 equal to 0.
    bits = (scores + np.float32(0)).view(np.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return impression, (impression << 32) - ascending
