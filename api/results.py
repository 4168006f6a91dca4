"""A scored upload as the answer's parts: counts, metrics, histogram, and its rows as JSON or
Parquet.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.served_model import Scored
from nrms.data.columns import unnest
from nrms.data.impressions import Impressions
from nrms.evaluation.baselines import Popularity
from nrms.evaluation.ranking import METRICS, MetricSums, impression_metrics
from nrms.inference.scorer import predictions

_BINS = 40
_ROWS, _TITLES = 64, 200  # that are Python objects at once
# candidates and clicks in the rows of a JSON answer, at most: each is written by Python
_LISTED = 200_000
# Counted under names of their own, or not worth a line.
_PLAIN = {
    "impressions",
    "candidates",
    "users",
    "history_entries",
    "unknown_candidate",
    "articles",
    "clicks",
}


def counts_and_metrics(scored: Scored) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The counts; and the ranking metrics, None where nothing is labelled or every impression has
    one class.

    Where there are times, the metrics have `baselines`: what popularity would reach, counted in
    this upload alone.
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
    """How scores are spread, over all candidates and, where clicks were given, over clicks and
    non-clicks.

    A few scores far off would squeeze all others into one bin: they are counted in the outermost
    bins, and in `outside`, below and above.
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
    """Of all scores, or, if that is more than twice as wide, of all but a thousandth (at least one)
    on each side.
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


def write_json(
    file: IO[bytes], parts: dict[str, Any], scored: Scored, count: int, titles: bool
) -> None:
    """Writes an answer: these parts and the first `count` impressions, or as many as an answer can
    hold.

    A few rows, and a few titles, at a time: what is written is never in memory as a whole.

    Args:
        file: takes bytes.
        parts: what else the answer says.
        scored: the upload.
        count: rows at most.
        titles: whether the rows carry their candidates' titles.
    """
    impressions = scored.impressions
    listed = (
        impressions.offsets
        if impressions.clicks is None
        else impressions.offsets + unnest(impressions.clicks)[0]
    )
    part = _first(impressions, min(count, int(np.searchsorted(listed, _LISTED, "right")) - 1))
    total = len(impressions)
    file.write(
        _json({**parts, "rows_total": total, "truncated": len(part) < total})[:-1] + b',"rows":['
    )
    table = predictions(part, scored.scores[: len(part.candidates)])
    batch: list[dict[str, Any]] = []
    for number in range(len(part)):
        if number % _ROWS == 0:
            batch = table.slice(number, _ROWS).to_pylist()
        file.write(b"," * (number > 0) + _json(batch[number % _ROWS])[:-1])
        if titles:
            file.write(b',"titles":[')
            shown = part.candidates[slice(*part.offsets[number : number + 2])]
            for start in range(0, len(shown), _TITLES):
                known = shown[start : start + _TITLES]
                names = pc.take(
                    scored.articles.titles, pa.array(known - 1, mask=known == 0)
                ).to_pylist()
                file.write(b"," * (start > 0) + _json(names)[1:-1])
            file.write(b"]")
        file.write(b"}")
    file.write(b"]}")


def write_parquet(file: IO[bytes], scored: Scored) -> None:
    """Writes all rows as the predictions file of the nightly job."""
    pq.write_table(
        predictions(scored.impressions, scored.scores),
        file,
        compression="zstd",
        write_page_checksum=True,
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


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
