"""Rankings without a model, to print beside that of a model: random, popularity, newest, and the
oracle of demo data.

A baseline is a function from `Impressions` to float32 scores `[c]`, or to None where the data do
not allow it. What baselines read beyond the contract are `INPUTS` of the split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa

from nrms.data.articles import Articles
from nrms.data.columns import unnest
from nrms.data.histories import Histories
from nrms.data.impressions import Impressions, ShardInput
from nrms.data.schema import Column, schema_error
from nrms.evaluation.ranking import place_unknown
from nrms.features.context.features import PLACES

Baseline = Callable[[Impressions], np.ndarray | None]

_LOG_ODDS = [place for name, place in PLACES.items() if name.startswith("log_odds")]
_HOUR = 3_600_000_000  # microseconds


def standard_baselines(
    popularity: Popularity, published: np.ndarray | None, seed: int
) -> dict[str, Baseline]:
    """The baselines that a report prints, by name: `random` (drawn from `seed`), `popularity`,
    `newest`, `pairwise` of a split whose model reads what happened before, and `oracle` of a split
    that was opened with `INPUTS`.
    """
    rng = np.random.default_rng(seed)
    return {
        "random": lambda impressions: rng.random(len(impressions.candidates), np.float32),
        "popularity": popularity.scores,
        "newest": newest(published),
        "pairwise": pairwise,
        "oracle": lambda impressions: impressions.per_candidate.get(Oracle.name),
    }


def pairwise(impressions: Impressions) -> np.ndarray | None:
    """Ranks by what won against what: the mean, over the other candidates and the half-lives, of
    the log-odds that the candidate is clicked and the other one is not. A counter, no model.
    """
    context = impressions.per_candidate.get("context")
    return None if context is None else context[:, _LOG_ODDS].mean(axis=1)


class Oracle:
    """The planted scores of demo data, float32 `[c]`: a `ShardInput`."""

    name = "oracle"
    per: Literal["impression", "candidate"] = "candidate"
    columns: tuple[Column, ...] = (Column("oracle_scores", "numbers", required=False),)

    def fill(
        self,
        columns: Mapping[str, pa.Array],
        impressions: Impressions,
        articles: Articles,
        histories: Histories,
    ) -> np.ndarray | None:
        """See `ShardInput.fill`."""
        column = columns.get("oracle_scores")
        if column is None:
            return None
        offsets, scores = unnest(column)
        wrong = np.flatnonzero(np.diff(offsets) != np.diff(impressions.offsets))
        if len(wrong):
            raise schema_error(
                "Column `oracle_scores` must have one score for each candidate.",
                f"another number in {len(wrong):,} of {len(column):,} rows, first in row "
                f"{wrong[0]} (from 0)",
                impressions.uri,
                "Give every candidate a score or leave the column out.",
            )
        return scores.cast(pa.float32()).to_numpy(zero_copy_only=False)


INPUTS: tuple[ShardInput, ...] = (Oracle(),)


def newest(published: np.ndarray | None) -> Baseline:
    """Ranks the newest article first; an article without a time gets a neutral place.

    Args:
        published: `Articles.published`; with None there is no ranking.
    """
    if published is None or np.isnat(published).all():
        return lambda impressions: None
    known = np.append(False, ~np.isnat(published))
    # Places in the order of time are used, because a float32 cannot tell microseconds apart.
    place = np.append(0, np.unique(published, return_inverse=True)[1]).astype(np.float32)

    def scores(impressions: Impressions) -> np.ndarray:
        articles = impressions.candidates
        return place_unknown(impressions.offsets, place[articles], known[articles])

    return scores


class Popularity:
    """Counts an article's recent clicks, as a counter on the live site would.

    An impression at time `t` scores an article by its clicks in `[t - hours, t)` of the evaluated
    split: strictly before `t`, so its own click never counts. All shards of the split are added, in
    any order, before the first one is scored, so training and the nightly job give the same number
    for the same split. For an impression without a time all articles have no clicks. An unknown
    article (row 0) gets a neutral place.

    Memory: 8 bytes for each article, and 8 for each click; until the first shard has been scored,
    20 for each click.

    Args:
        hours: length of the window, > 0.

    Example:
        popularity = Popularity(hours=24)
        for i in range(len(split)):
            popularity.add(split.read(i))
        scores = popularity.scores(split.read(0))
    """

    def __init__(self, hours: float = 24) -> None:
        self._window = round(hours * _HOUR)
        # articles and microseconds, not yet sorted
        self._timed_clicks: list[tuple[np.ndarray, np.ndarray]] = []
        # One integer for each click, sorted: article * span + time in units since the origin. The
        # span is longer than the time of all clicks, so a moment after them fits in, too.
        self._keys = np.zeros(0, np.int64)
        self._articles, self._origin, self._span, self._unit = 0, 0, 1, 1

    def add(self, impressions: Impressions) -> None:
        """Collects the clicks of a shard that have a time. The others may not be past."""
        if impressions.time is None:
            return
        at = _clicks(impressions)
        articles = impressions.candidates[at]
        owner = np.searchsorted(impressions.offsets, at, side="right") - 1
        times = impressions.time[owner]
        kept = (articles > 0) & ~np.isnat(times)
        self._timed_clicks.append((articles[kept], _microseconds(times[kept])))

    def scores(self, impressions: Impressions) -> np.ndarray | None:
        """Clicks of each candidate, float32 `[c]`; None where no impression of the shard has a
        time.
        """
        if impressions.time is None or np.isnat(impressions.time).all():
            return None
        articles = impressions.candidates
        self._sort_clicks()
        now = np.repeat(_microseconds(impressions.time), np.diff(impressions.offsets))
        base = np.minimum(articles, self._articles).astype(np.int64) * self._span

        def place(moment: np.ndarray) -> np.ndarray:
            return base + np.clip(moment // self._unit - self._origin, 0, self._span - 1)

        # Look-ups are sorted, so that neighbouring ones touch neighbouring keys: among ten million
        # keys this is seven times as fast.
        order = np.argsort(articles, kind="stable")
        before, old = (
            np.searchsorted(self._keys, place(moment)[order])
            for moment in (now, now - self._window)
        )
        recent = np.empty(len(articles), np.float32)
        recent[order] = before - old
        recent[np.repeat(np.isnat(impressions.time), np.diff(impressions.offsets))] = 0
        return place_unknown(impressions.offsets, recent, articles > 0)

    def clicks(self, articles: int) -> np.ndarray:
        """All clicks that have a time on each of so many articles: int64 `[articles + 1]`."""
        self._sort_clicks()
        starts = np.minimum(np.arange(articles + 2), self._articles) * self._span
        return np.diff(np.searchsorted(self._keys, starts))

    def _sort_clicks(self) -> None:
        parts = self._timed_clicks
        if not parts:
            return
        if len(self._keys):
            parts.append(
                (self._keys // self._span, (self._keys % self._span + self._origin) * self._unit)
            )
        moments = [
            bound
            for _, times in parts
            if len(times)
            for bound in (int(times.min()), int(times.max()))
        ] or [0]
        # Articles from this row number on have no clicks.
        self._articles = 1 + max(int(articles.max(initial=0)) for articles, _ in parts)
        length = 2 + max(moments) - min(moments)
        # The unit is a microsecond, unless the keys would need more than 63 bits, as with a million
        # articles over 53 days.
        self._unit = 1 + (self._articles + 1) * length // 2**62
        self._origin = min(moments) // self._unit
        self._span = 2 + max(moments) // self._unit - self._origin
        self._keys = np.empty(sum(len(times) for _, times in parts), np.int64)
        end = len(self._keys)
        while parts:
            article, times = parts.pop()
            self._keys[end - len(times) : end] = (
                article.astype(np.int64) * self._span + times // self._unit - self._origin
            )
            end -= len(times)
        self._keys.sort()


def _clicks(impressions: Impressions) -> np.ndarray:
    """Positions of the clicked candidates in the flat arrays."""
    return (
        np.zeros(0, np.int64)
        if impressions.clicked is None
        else np.flatnonzero(impressions.clicked)
    )


def _microseconds(times: np.ndarray | np.datetime64) -> np.ndarray:
    return np.asarray(times, "datetime64[us]").astype(np.int64)
