"""Whether a log is long enough for its splits, and whether the articles belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import polars as pl

from nrms.data.mistakes import first
from nrms.data.schema import schema_error
from nrms.sources.config import LogConfig
from nrms.sources.log_rows import LogRows

_NAMED = 3  # so many articles that are missing are named


def check_splits(log: LogRows, config: LogConfig, rows: Mapping[str, int]) -> None:
    """Raises SchemaError where a split has no impressions.

    Args:
        log: the log, which has been read.
        config: the days of the splits.
        rows: the number of impressions of each split.
    """
    if log.first > log.last:
        raise schema_error(
            "A log must have rows.",
            f"{log.rows:,}, none of them good",
            log.files.uri,
            "Check --input.",
        )
    if not all(rows.values()):
        counts = " and ".join(f"{count:,} to {split}" for split, count in rows.items())
        raise schema_error(
            "A log must have impressions after the first --history-days "
            f"({config.history_days:g}) to train on, and in the last --validation-days "
            f"({config.validation_days:g}) to validate on.",
            f"rows from {clock(log.first)} to {clock(log.last)}, which leaves {counts}",
            log.files.uri,
            "Give a longer log or fewer days.",
        )


def missing_articles(log: pl.Series, articles: pl.Series, uri: str) -> list[str]:
    """A line that counts the articles of the log that are not among those given, and names the
    first; no line where all are there.

    Args:
        log: the ids of the articles in the log, text without duplicates.
        articles: the ids of those given, text.
        uri: where these came from, for messages.

    Raises:
        SchemaError: none of them is there.
    """
    missing = log.filter(~log.is_in(articles.implode())).sort()
    if len(missing) == len(log):
        raise schema_error(
            "The articles of --input must be in --articles-input.",
            f"in the log {first(log.sort().to_arrow())}, and here {first(articles.to_arrow())}",
            uri,
            "Give the articles of the same site, with ids written in one way.",
        )
    if not len(missing):
        return []
    named = ", ".join(missing.head(_NAMED))
    return [
        f"{len(missing):,} of {len(log):,} articles of the log are not in --articles-input: "
        f"{named}{' and others' if len(missing) > _NAMED else ''}"
    ]


def clock(time: int) -> str:
    """A time of microseconds since 1970 for messages, in UTC."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
