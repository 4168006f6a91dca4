"""Tells impressions whose clicked article is new: published, or else first shown, less than an hour
before.
"""

from __future__ import annotations

import numpy as np

from nrms.data.impressions import Impressions

_HOUR = 3_600_000_000  # microseconds
_NEVER = np.iinfo(np.int64).max // 2  # later than all times, and far from overflow
# What is known of a click. Of several in an impression, the first of these counts: if one article
# is new, the youngest is.
_NEW, _DOUBT, _OLDER, _NONE = 0, 1, 2, 3


class ArticleAges:
    """Knows when each article was published or, without such a time, first shown in the split.

    What is shown in the split's first hour may have been shown before the split began. So of an
    article without a time of publishing that is first shown then, nothing is known until an hour
    has passed. All shards of the split are added, in any order, before the first one is asked for.

    Memory: 16 bytes for each article.

    Args:
        published: `Articles.published`.
        articles: the number of articles.

    Example:
        ages = ArticleAges(articles.published, len(articles))
        for i in range(len(split)):
            ages.add(split.read(i))
        is_new, known = ages.of_clicks(split.read(0))
    """

    def __init__(self, published: np.ndarray | None, articles: int) -> None:
        self._published = np.full(articles + 1, np.datetime64("NaT"), "datetime64[us]")
        if published is not None:
            self._published[1:] = published
        self._shown = np.full(articles + 1, _NEVER)
        self._start = _NEVER

    @property
    def complete(self) -> bool:
        """Whether each article has a time of publishing, so that no shard need be added."""
        return not np.isnat(self._published[1:]).any()

    def add(self, impressions: Impressions) -> None:
        """Notes when the articles of a shard are shown."""
        if impressions.time is None:
            return
        times = impressions.time.astype(np.int64)
        times[np.isnat(impressions.time)] = _NEVER
        self._start = min(self._start, int(times.min(initial=_NEVER)))
        shown = np.repeat(times, np.diff(impressions.offsets))
        np.minimum.at(self._shown, impressions.candidates, shown)

    def are_new(self, articles: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether articles are new at these times, and whether that is known: both bool, of the
        shape of `articles`. It is not known of the unknown article, nor without a time.

        Args:
            articles: rows of articles, int32 of any shape.
            now: datetime64[us], of a shape that fits.
        """
        published, shown = self._published[articles], self._shown[articles]
        timed = ~np.isnat(published)
        born = np.where(timed, published.astype(np.int64), shown)
        young = now.astype(np.int64) - born < _HOUR
        doubtful = np.isnat(now) | (articles == 0)
        doubtful |= ~timed & young & (shown < self._start + _HOUR)
        return young, ~doubtful

    def of_clicks(self, impressions: Impressions) -> tuple[np.ndarray, np.ndarray]:
        """Whether the youngest of each impression's clicked articles is new, and whether that is
        known: both bool `[n]`. It is not known without a click or a time, nor of a click on an
        article that is not in the article table.

        Args:
            impressions: a shard with times and clicks.
        """
        assert impressions.time is not None
        assert impressions.clicked is not None
        at = np.flatnonzero(impressions.clicked)
        owner = np.searchsorted(impressions.offsets, at, side="right") - 1
        young, known = self.are_new(impressions.candidates[at], impressions.time[owner])
        found = np.full(len(impressions), _NONE)
        np.minimum.at(found, owner, np.where(~known, _DOUBT, np.where(young, _NEW, _OLDER)))
        return found == _NEW, (found == _NEW) | (found == _OLDER)
