"""How much better one ranking is than another on the same impressions: a paired bootstrap.

A replicate draws an impression with both of its rankings, so what makes an impression hard or easy
for both cancels out: differences are known better than either mean. The draws are those of
`intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nrms.evaluation.intervals import GROUPS, LEVEL, REPLICATES, UNIT, draws
from nrms.evaluation.ranking import METRICS


class PairedSums:
    """The metrics of two rankings, A and B, of the same impressions. Those of parts add up: `part +
    other_part`.

    Attributes:
        count: impressions that both rankings measure.
    """

    def __init__(self) -> None:
        # by ranking, metric and group of impressions, in units of 1 / UNIT
        self._sums = np.zeros((2, len(METRICS), GROUPS), np.int64)
        self._counts = np.zeros(GROUPS, np.int64)

    def add(self, keys: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        """Adds impressions.

        Args:
            keys: uint64 `[n]`, see `intervals.impression_keys`.
            a: the metrics of A, float64 `[4, n]` as in `ImpressionMetrics.values`; a column with a
                NaN is left out.
            b: the same of B.
        """
        counted = ~np.isnan(a + b).any(axis=0)
        group = (keys[counted] % GROUPS).astype(np.int64)
        self._counts += np.bincount(group, minlength=GROUPS)
        for ranking, values in enumerate((a, b)):
            units = np.rint(values[:, counted] * UNIT).astype(np.int64)
            for metric in range(len(METRICS)):
                np.add.at(self._sums[ranking, metric], group, units[metric])

    def __add__(self, other: PairedSums) -> PairedSums:
        total = PairedSums()
        total._sums = self._sums + other._sums
        total._counts = self._counts + other._counts
        return total

    @property
    def count(self) -> int:
        """See the class."""
        return int(self._counts.sum())

    def means(self) -> np.ndarray:
        """The mean metrics of A and of B: float64 `[2, 4]`; NaN without an impression."""
        return self._sums.sum(axis=2) / UNIT / (self.count or np.nan)

    def rows(self) -> np.ndarray:
        """B's sums less A's by group, a row for each metric, then the counts: float64 `[5,
        groups]`.
        """
        return np.vstack([self._sums[1] - self._sums[0], self._counts]).astype(float)


def paired_differences(
    parts: Sequence[PairedSums], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """The differences of each part, and how sure they are.

    The interval holds 95% of the replicates' differences. `p` is how likely a difference at least
    as far from 0, on either side, would be if neither ranking were better: twice the share of the
    replicates on the other side of 0, of which one is always counted, so it is never 0.

    Args:
        parts: any impressions each, perhaps the same.
        resamples: replicates, rounded up to whole thousands.
        seed: of the draws.

    Returns:
        For each part `{metric: {"a", "b", "difference", "interval", "p"}, ..., "impressions"}`,
        where `difference` is B less A. Without an impression the metrics are absent; of one alone
        nothing is known but the difference.
    """
    found: list[dict[str, Any]] = []
    rows = np.concatenate([part.rows() for part in parts])
    # The products are of whole numbers, and exact as far as a float64 is.
    replicates = np.concatenate(
        [rows @ draws(seed, block).astype(float) for block in range(-(-resamples // REPLICATES))],
        axis=1,
    ).reshape(len(parts), len(METRICS) + 1, -1)
    for part, (*sums, counts) in zip(parts, replicates, strict=True):
        metrics: dict[str, Any] = {}
        for name, (a, b), drawn in zip(METRICS, part.means().T.tolist(), sums, strict=True):
            if part.count:
                metrics[name] = {"a": a, "b": b, "difference": b - a}
            if part.count > 1:
                differences = drawn[counts > 0] / counts[counts > 0] / UNIT
                metrics[name] |= _certainty(differences)
        found.append({**metrics, "impressions": part.count})
    return found


def span_text(found: Mapping[str, Any]) -> str:
    """The interval of a difference, as `-0.0012 to +0.0034`; empty where it is not known."""
    return " to ".join(f"{end:+.4f}" for end in found.get("interval", ()))


def p_text(found: Mapping[str, Any]) -> str:
    """The p of a difference, as `0.0002`; empty where it is not known."""
    return f"{found['p']:.4f}" if "p" in found else ""


def _certainty(differences: np.ndarray) -> dict[str, Any]:
    """The interval and p of a mean whose replicates these are."""
    tail = (1 - LEVEL) / 2
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return {
        "interval": np.quantile(differences, [tail, 1 - tail]).tolist(),
        "p": min(1.0, 2 * (1 + beyond) / (1 + len(differences))),
    }
