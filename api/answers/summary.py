"""A scored upload in figures: counts, metrics, and how the scores are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from api.served_model import Scored
from nrms.data.impressions import Impressions
from nrms.evaluation.baselines import Popularity
from nrms.evaluation.ranking import METRICS, MetricSums, impression_metrics

_BINS = 40
# These are counted under names of their own, or are not worth a line.
_PLAIN = {
    "impressions",
    "candidates",
    "users",
    "history_entries",
    "unknown_candidate",
    "articles",
    "clicks",
}


@dataclass(frozen=True)
class Summary:
    """The figures.

    Attributes:
        counts: what was in the upload.
        metrics: of the ranking; None where nothing is labelled or every impression has one class.
        histogram: how the scores are spread, see `histogram`.
    """

    counts: dict[str, Any]
    metrics: dict[str, Any] | None
    histogram: dict[str, Any]


def summarize(scored: Scored) -> Summary:
    """Counts what is in an upload and measures its scores."""
    return Summary(*_counts_and_metrics(scored), histogram(scored))


def _counts_and_metrics(scored: Scored) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The counts, and the ranking metrics, which are None where nothing is labelled or every
    impression has one class.

    Where impressions have times, the metrics hold `baselines`: what popularity would reach, counted
    in this upload alone.
    """
    impressions = scored.impressions
    counts: dict[str, Any] = {
        "impressions": len(impressions),
        "candidates": len(scored.scores),
        "unknown_articles": int(np.count_nonzero(impressions.candidates == 0)),
        "empty_histories": scored.empty_histories,
        "handled": {
            name: count for name, count in scored.report.as_dict().items() if name not in _PLAIN
        },
    }
    if impressions.clicked is None:
        return counts, None
    found = _ranking(impressions, scored.scores)
    counts["skipped_one_class"] = found["skipped_one_class"]
    if METRICS[0] not in found:
        return counts, None
    metrics: dict[str, Any] = {name: found[name] for name in METRICS}
    popularity = Popularity()
    popularity.add(impressions)
    recent = popularity.scores(impressions)
    if recent is not None:
        found = _ranking(impressions, recent)
        metrics["baselines"] = {"popularity": {name: found[name] for name in METRICS}}
    return counts, metrics


def _ranking(impressions: Impressions, scores: np.ndarray) -> dict[str, float]:
    assert impressions.clicked is not None
    sums = MetricSums()
    sums.add(impression_metrics(impressions.offsets, scores, impressions.clicked))
    return sums.result()


def histogram(scored: Scored) -> dict[str, Any]:
    """How the scores of all candidates are spread and, where clicks were given, those of clicks and
    of non-clicks.

    A few scores far from the others would squeeze these into one bin. So they are counted in the
    first and the last bin, and `outside` says how many lie below and above.
    """
    scores, clicked = scored.scores, scored.impressions.clicked
    low, high = _range(scores)
    edges = np.linspace(low, high, _BINS + 1)
    kinds = {"all": scores}
    if clicked is not None:
        kinds |= {"clicked": scores[clicked], "not_clicked": scores[~clicked]}
    counted = {
        kind: np.histogram(np.clip(values, low, high), edges)[0].tolist()
        for kind, values in kinds.items()
    }
    outside = [int(np.count_nonzero(scores < low)), int(np.count_nonzero(scores > high))]
    return {"edges": edges.tolist(), **counted, **({"outside": outside} if any(outside) else {})}


def _range(scores: np.ndarray) -> tuple[float, float]:
    """The range of the bins: that of all scores or, if it is more than twice as wide, the range
    without a thousandth of the scores (at least one) at each end.
    """
    if not len(scores):
        return 0.0, 1.0
    low, high = float(scores.min()), float(scores.max())
    cut = max(1, len(scores) // 1000)
    if len(scores) > 2 * cut:
        ordered = np.partition(scores, [cut, len(scores) - 1 - cut])
        inner_low, inner_high = float(ordered[cut]), float(ordered[-1 - cut])
        if inner_high > inner_low and high - low > 2 * (inner_high - inner_low):
            low, high = inner_low, inner_high
    return low, high if high > low else low + 1
