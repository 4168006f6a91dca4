"""Counts of irregular data that was handled, and not refused with a SchemaError."""

from collections import Counter
from collections.abc import Mapping
from typing import SupportsInt

# Lines are printed in this order. The keys must not change, because logs, trackers and artifacts
# use them.
OUTCOMES = {
    "articles": "articles",
    "null_title": "articles without a title (read as an empty title)",
    "users": "users with a history row",
    "null_history": "users whose history is null (read as empty)",
    "history_entries": "history entries",
    "unknown_history_article": "history entries of articles not in articles.parquet (dropped)",
    "late_history": "history entries recorded at or after the user's first impression (dropped)",
    "late_history_clicked": "of these were clicked by the user in this split",
    "untimed_history": "history entries that could not be checked for being recorded after the "
    "user's first impression (no times; kept)",
    "impressions": "impressions",
    "empty_shard": "behaviours files without a row",
    "unlabelled": "impressions in files without clicks (unlabelled)",
    "null_clicks": "impressions with null clicks in a labelled file (no click)",
    "no_click": "impressions without a clicked candidate (metrics skip them)",
    "null_time": "impressions without a time",
    "user_without_history": "impressions of a user without a history row (empty history)",
    "unknown_device": "impressions whose device_type is beyond 32 bits (device unknown)",
    "empty_inview": "impressions with an empty or null in-view list (nothing to score)",
    "candidates": "candidates",
    "unknown_candidate": "candidates not in articles.parquet (they get their impression's mean "
    "score)",
    "duplicate_candidate": "candidates that repeat an earlier one of the same impression (kept)",
    "clicks": "clicks",
    "unknown_click": "clicks on articles not in articles.parquet",
    "click_not_in_view": "clicks on articles that were not in view (ignored)",
}


class DataReport:
    """Counts by outcome. Reports add up: `shard_report + other_report`.

    Example:
        >>> report = DataReport({"null_time": 2}) + DataReport({"null_time": 1})
        >>> report.lines()
        ['3 impressions without a time']
    """

    def __init__(self, counts: Mapping[str, SupportsInt] | None = None) -> None:
        self._counts: Counter[str] = Counter()
        for outcome, count in (counts or {}).items():
            self.add(outcome, count)

    def add(self, outcome: str, count: SupportsInt) -> None:
        """Count `count` more of an outcome, a key of `OUTCOMES`."""
        if outcome not in OUTCOMES:
            raise KeyError(f"An outcome must be one of {', '.join(OUTCOMES)}. Received: {outcome}")
        self._counts[outcome] += int(count)

    def __add__(self, other: "DataReport") -> "DataReport":
        return DataReport(dict(self._counts + other._counts))

    def __getitem__(self, outcome: str) -> int:
        return self._counts[outcome]

    def as_dict(self) -> dict[str, int]:
        """The outcomes that occurred, in the order of `OUTCOMES`."""
        return {outcome: self._counts[outcome] for outcome in OUTCOMES if self._counts[outcome]}

    def lines(self) -> list[str]:
        """One sentence for each outcome that occurred."""
        return [f"{count:,} {OUTCOMES[outcome]}" for outcome, count in self.as_dict().items()]
