"""A scored upload as the answer's parts: counts, metrics, histogram, rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from api.serving import Scored
from nrms.data.columns import unnest
from nrms.data.impressions import Impressions
from nrms.evaluation.ranking import METRICS, MetricSums, impression_metrics
from nrms.scoring import predictions

_BINS = 40
_LISTED = 200_000  # candidates and clicks in the rows of a JSON answer, at most: each is a Python object for a while
# Counted under names of their own, or not worth a line.
_PLAIN = {"impressions", "candidates", "users", "history_entries", "unknown_candidate", "articles", "clicks"}


def counts_and_metrics(scored: Scored) -> tuple[dict[str, Any], dict[str, float] | None]:
    """The counts; and the ranking metrics, None where nothing is labelled or every impression has one class."""
    impressions = scored.impressions
    counts = {
        "impressions": len(impressions),
        "candidates": len(scored.scores),
        "unknown_articles": int(np.count_nonzero(impressions.candidates == 0)),
        "empty_histories": scored.empty_histories,
        "handled": {name: count for name, count in scored.report.as_dict().items() if name not in _PLAIN},
    }
    if impressions.clicked is None:
        return counts, None
    sums = MetricSums()
    sums.add(impression_metrics(impressions.offsets, scored.scores, impressions.clicked))
    found = sums.result()
    counts["skipped_one_class"] = found["skipped_one_class"]
    return counts, {name: found[name] for name in METRICS} if METRICS[0] in found else None


def histogram(scored: Scored) -> dict[str, Any]:
    """How scores are spread, over all candidates and, where clicks were given, over clicks and non-clicks."""
    scores, clicked = scored.scores, scored.impressions.clicked
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    kinds = {"all": scores}
    if clicked is not None:
        kinds |= {"clicked": scores[clicked], "not_clicked": scores[~clicked]}
    counted = {kind: np.histogram(values, edges)[0].tolist() for kind, values in kinds.items()}
    return {"edges": edges.tolist(), **counted}


def rows(scored: Scored, count: int, titles: bool) -> list[dict[str, Any]]:
    """The first `count` impressions, or as many as an answer can hold; with `titles`, those of their candidates."""
    impressions = scored.impressions
    listed = impressions.offsets if impressions.clicks is None else impressions.offsets + unnest(impressions.clicks)[0]
    part = _first(impressions, min(count, int(np.searchsorted(listed, _LISTED, "right")) - 1))
    table = predictions(part, scored.scores[: len(part.candidates)])
    if titles:
        known = pa.array(part.candidates - 1, mask=part.candidates == 0)
        names = pc.take(scored.articles.titles, known)
        table = table.append_column("titles", pa.ListArray.from_arrays(pa.array(part.offsets, pa.int32()), names))
    return table.to_pylist()


def _first(impressions: Impressions, count: int) -> Impressions:
    """The first `count` impressions of a shard, what `predictions` needs of them."""
    count = min(count, len(impressions))
    end = int(impressions.offsets[count])
    return replace(
        impressions,
        impression_id=impressions.impression_id[:count],
        user_id=impressions.user_id[:count],
        user=impressions.user[:count],
        offsets=impressions.offsets[: count + 1],
        candidates=impressions.candidates[:end],
        candidate_ids=impressions.candidate_ids[:end],
        clicks=None if impressions.clicks is None else impressions.clicks[:count],
    )
