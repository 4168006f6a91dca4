"""What is kept of a scored request: its figures in `/metrics`, and a record in the prediction
log.
"""

from __future__ import annotations

from datetime import UTC, datetime

from api.answers.summary import Summary
from api.prediction_log import Record
from api.service import Service
from nrms.data.joins import Joins


def record(
    service: Service,
    request_id: str,
    model_version: str,
    body_sha256: str,
    summary: Summary,
    joins: Joins,
    seconds: dict[str, float],
) -> None:
    """Counts a scored request and adds it to the prediction log. The arguments are those of
    `api.prediction_log.Record`.
    """
    counts, histogram = summary.counts, summary.histogram
    service.metrics.count_scored(counts, joins, seconds)
    service.log.add(
        Record(
            time=datetime.now(UTC),
            request_id=request_id,
            model_version=model_version,
            body_sha256=body_sha256,
            impressions=counts["impressions"],
            candidates=counts["candidates"],
            unknown_articles=counts["unknown_articles"],
            empty_histories=counts["empty_histories"],
            seconds=seconds,
            histogram_edges=histogram["edges"],
            histogram=histogram["all"],
        )
    )
