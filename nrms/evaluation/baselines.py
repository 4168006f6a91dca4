"""Rankings that need no model, to print beside one: random, popularity, and the oracle of demo data.

A baseline is a function from `Impressions` to float32 scores `[c]`, or to None where the data allows none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nrms.data.impressions import Impressions

Baseline = Callable[[Impressions], np.ndarray | None]

_HOUR = 3_600_000_000  # microseconds


def standard_baselines(popularity: Popularity, seed: int) -> dict[str, Baseline]:
    """The baselines that a report prints, by name: `random` (drawn from `seed`), `popularity`, `oracle`."""
    rng = np.random.default_rng(seed)
    return {
        "random": lambda impressions: rng.random(len(impressions.candidates), np.float32),
        "popularity": popularity.scores,
        "oracle": lambda impressions: impressions.oracle,
    }


class Popularity:
    """Counts an article's recent clicks, as a counter on the live site would.

    An impression at time `t` scores an article by its clicks in `[t - hours, t)`: strictly before, so never
    by its own click. Clicks of the evaluated split count too, since at `t` the live counter has seen them;
    hence all shards of both splits are added before the first one is scored, in any order. An impression
    without a time gets the article's clicks in the training split. An unknown article (row 0) has no clicks.

    Memory: 8 bytes for each click that can matter, 20 before and while the first shard is scored, and 8 for each
    article. Give `start` so that older training clicks are dropped as they come.

    Args:
        hours: length of the window, > 0.
        start: time of the first impression to be scored (`Split.time_range[0]`); None keeps all clicks.

    Example:
        popularity = Popularity(hours=24, start=validation.time_range[0])
        for i in range(len(train)):
            popularity.add_training(train.read(i))
        for i in range(len(validation)):
            popularity.add_evaluated(validation.read(i))
        scores = popularity.scores(validation.read(0))
    """

    def __init__(self, hours: float = 24, start: np.datetime64 | None = None) -> None:
        self._window = round(hours * _HOUR)
        self._since = None if start is None else _microseconds(start) - self._window
        self._training_clicks = np.zeros(1, np.int64)
        self._timed_clicks: list[tuple[np.ndarray, np.ndarray]] = []  # articles and microseconds, not sorted yet
        # One integer for each click, sorted: article * span + time in units since the origin. A span is longer than
        # all clicks' times, so that a moment after them has its place, too.
        self._keys = np.zeros(0, np.int64)
        self._articles, self._origin, self._span, self._unit = 0, 0, 1, 1

    def add_training(self, impressions: Impressions) -> None:
        """Collects the clicks of a training shard; an unlabelled one has none."""
        clicked = impressions.candidates[_clicks(impressions)]
        counts = np.bincount(clicked, minlength=len(self._training_clicks))
        counts[: len(self._training_clicks)] += self._training_clicks
        counts[0] = 0
        self._training_clicks = counts
        self.add_evaluated(impressions)

    def add_evaluated(self, impressions: Impressions) -> None:
        """Collects the clicks of a shard to be evaluated, those with a time: no other is known to be past."""
        if impressions.time is None:
            return
        at = _clicks(impressions)
        articles = impressions.candidates[at]
        owner = np.searchsorted(impressions.offsets, at, side="right") - 1
        times = impressions.time[owner]
        kept = (articles > 0) & ~np.isnat(times)
        if self._since is not None:
            kept &= _microseconds(times) >= self._since
        self._timed_clicks.append((articles[kept], _microseconds(times[kept])))

    def scores(self, impressions: Impressions) -> np.ndarray:
        """Clicks of each candidate, float32 `[c]`."""
        articles = impressions.candidates
        training = np.append(self._training_clicks, 0)  # the last: articles that no training click names
        untimed = training[np.minimum(articles, len(training) - 1)].astype(np.float32)
        if impressions.time is None:
            return untimed
        self._sort_clicks()
        now = np.repeat(_microseconds(impressions.time), np.diff(impressions.offsets))
        base = np.minimum(articles, self._articles).astype(np.int64) * self._span

        def place(moment: np.ndarray) -> np.ndarray:
            return base + np.clip(moment // self._unit - self._origin, 0, self._span - 1)

        # Sorted, since neighbouring look-ups then touch neighbouring keys: seven times as fast among ten million.
        order = np.argsort(articles, kind="stable")
        before, old = (np.searchsorted(self._keys, place(moment)[order]) for moment in (now, now - self._window))
        recent = np.empty(len(articles), np.float32)
        recent[order] = before - old
        return np.where(np.repeat(np.isnat(impressions.time), np.diff(impressions.offsets)), untimed, recent)

    def _sort_clicks(self) -> None:
        parts = self._timed_clicks
        if not parts:
            return
        if len(self._keys):
            parts.append((self._keys // self._span, (self._keys % self._span + self._origin) * self._unit))
        moments = [bound for _, times in parts if len(times) for bound in (int(times.min()), int(times.max()))] or [0]
        # Articles from here on have no click.
        self._articles = 1 + max(int(articles.max(initial=0)) for articles, _ in parts)
        length = 2 + max(moments) - min(moments)
        # Microseconds, but for a catalogue and a time too large for 63 bits: a million articles over 53 days.
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
    """Places of the clicked candidates in the flat arrays."""
    return np.zeros(0, np.int64) if impressions.clicked is None else np.flatnonzero(impressions.clicked)


def _microseconds(times: np.ndarray | np.datetime64) -> np.ndarray:
    return np.asarray(times, "datetime64[us]").astype(np.int64)
