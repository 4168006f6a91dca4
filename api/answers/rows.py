"""The rows of a scored upload, as JSON or Parquet."""

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
from nrms.inference.table import prediction_table

_ROWS, _TITLES = 64, 200  # so many are Python objects at the same time
# candidates and clicks in the rows of a JSON answer, at most, because Python writes each of them
_LISTED = 200_000


def write_json(
    file: IO[bytes], parts: dict[str, Any], scored: Scored, count: int, titles: bool
) -> None:
    """Writes an answer: these parts and the first `count` impressions, or as many as an answer can
    hold.

    It writes a few rows and a few titles at a time, so the answer is never in memory as a whole.

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
    table = prediction_table(part, scored.scores[: len(part.candidates)])
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
        prediction_table(scored.impressions, scored.scores),
        file,
        compression="zstd",
        write_page_checksum=True,
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _first(impressions: Impressions, count: int) -> Impressions:
    """The first `count` impressions of a shard, with what `prediction_table` needs of them."""
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
