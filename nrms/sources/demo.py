"""Demo data of any size: a made-up news site with planted topics, in the columns of EB-NeRD.

Headlines are made of the words of their article's topic (`demo_words`), readers like a few topics,
and a click depends on nothing else, so a model that reads text can learn it. As on a real site, a
few articles fill the front page, each for a short time. But this says nothing about what a reader
clicks, so counting clicks ranks hardly better than chance. The column `oracle_scores` holds the
planted utility, by which candidates are ranked as well as possible.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from nrms.sources.demo_words import Language

HOUR = 3_600_000_000  # microseconds
DAY = 24 * HOUR
START = int(np.datetime64("2024-01-01T00:00:00", "us").astype(np.int64))

# The calendar has days with articles only, then those of the histories, then the two splits.
LEAD_DAYS, HISTORY_DAYS = 2, 21
SPLIT_DAYS = {"train": 7, "validation": 2}
SPLIT_STARTS = {
    "train": LEAD_DAYS + HISTORY_DAYS,
    "validation": LEAD_DAYS + HISTORY_DAYS + SPLIT_DAYS["train"],
}
DAYS = LEAD_DAYS + HISTORY_DAYS + sum(SPLIT_DAYS.values())
# Relative visits in each hour of the day, with peaks at breakfast, at lunch and in the evening.
HOURLY = np.array(
    [4, 2, 1, 1, 2, 5, 9, 11, 10, 9, 9, 10, 11, 10, 9, 9, 10, 10, 10, 11, 12, 12, 10, 7], float
)

TOPICS = 32
SUPPLY = 0.5  # the number of articles on the n-th topic is proportional to n ** -SUPPLY
LIKED = (2, 4)  # fewest and most topics that a reader likes
UTILITY = 5.0  # most utility that a liked topic can have; a topic not liked has 0
VISITORS = 6  # so many readers saw a page for each one who clicked on it

IN_VIEW = (5, 20)  # fewest and most candidates of an impression
FRESH = 40 * HOUR  # an article leaves the front page at this age
FADE = 14 * HOUR  # in this time its placement is divided by e
TWO_CLICKS = 0.04  # share of impressions with two clicks
CHUNK = 32_768  # so many impressions, or histories of 1/16 as many readers, are drawn at once

MIN_ARTICLES = 500  # with fewer the front page could be empty at the start


class DemoSite:
    """The articles, readers and clicks of one made-up site; a `Source` for `write_dataset`.

    The same arguments give the same data, byte for byte. Each chunk of impressions has its own
    random generator, keyed by seed, split and chunk, so memory does not grow with the number of
    impressions.

    Args:
        seed: seed of all that is drawn, a whole number >= 0.
        articles: number of articles in 32 days, at least `MIN_ARTICLES`.
        users: number of readers.
        impressions: number of impressions in the train split.
        validation_impressions: number of impressions in the validation split.
        date: day to which the end of the calendar is moved, `YYYY-MM-DD`. Only the validation split
            is then written, with impressions of that day. Each date has other impressions of the
            same readers and titles.
    """

    name = "demo"

    def __init__(
        self,
        *,
        seed: int,
        articles: int,
        users: int,
        impressions: int,
        validation_impressions: int,
        date: str | None = None,
    ) -> None:
        self.rows: dict[str, int] = {"train": impressions, "validation": validation_impressions}
        site = {"seed": seed, "articles": articles, "users": users, "impressions": self.rows}
        self.parameters = dict.fromkeys(self.rows, site)
        self._day, self._moved = None, 0
        if date is not None:
            self.parameters = {"validation": {**site, "date": date}}
            start = int(np.datetime64(date, "us").astype(np.int64))
            self._day, self._moved = int(date.replace("-", "")), start - (START + (DAYS - 1) * DAY)
        self.notes: list[str] = []
        self.seed = seed
        rng = self._rng("world")
        language = Language(rng, TOPICS)
        supply = np.arange(1, TOPICS + 1) ** -SUPPLY
        self._topic = rng.choice(TOPICS, articles, p=supply / supply.sum()).astype(np.int16)
        self._published = _times(rng, 0, DAYS, 0, articles, articles)
        self._placement = rng.random(articles) ** -0.9
        self._ids = (9_500_000 + np.cumsum(rng.integers(1, 40, articles))).astype(np.int32)
        self._liking = _likings(rng, users, supply)
        self._activity = rng.lognormal(0, 1.2, users)
        self._visits = np.cumsum(self._activity) / self._activity.sum()
        self._user_ids = (10_000 + np.cumsum(rng.integers(1, 100, users))).astype(np.uint32)
        self._device = rng.choice(np.array([1, 2, 3], np.int8), users, p=[0.25, 0.68, 0.07])
        self._articles = pa.table(
            {
                "article_id": self._ids,
                "title": language.sentences(
                    rng, self._topic, 4 + rng.binomial(12, 1 / 3, articles)
                ),
                "subtitle": language.sentences(
                    rng, self._topic, 8 + rng.binomial(20, 1 / 2, articles)
                ),
                "category_str": language.topic_names(self._topic),
                "published_time": self._timestamps(self._published),
            }
        )

    def articles(self) -> pa.Table:
        """All articles in the order of publication."""
        return self._articles

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """The impressions of `split`, "train" or "validation", oldest first, in a table for each
        chunk.
        """
        impressions = self.rows[split]
        first_id = 1 if split == "train" else 1 + self.rows["train"]
        for chunk, first in enumerate(range(0, impressions, CHUNK)):
            rng = self._rng(split, chunk)
            last = min(first + CHUNK, impressions)
            start, days = (
                (SPLIT_STARTS[split], SPLIT_DAYS[split]) if self._day is None else (DAYS - 1, 1)
            )
            times = _times(rng, start, days, first, last, impressions)
            span = IN_VIEW[1] - IN_VIEW[0] + 1
            in_view = IN_VIEW[0] + (span * rng.beta(1.5, 2.0, last - first)).astype(int)
            candidates, shown = self._front_page(rng, times, in_view)
            user = self._visitors(rng, candidates, shown)
            utility = self._utility(user, candidates, shown)
            clicked = _clicks(rng, utility, 1 + (rng.random(last - first) < TWO_CLICKS))
            slot = (times - START) // (HOUR // 2)  # a session lasts until the next half hour
            ids = self._ids[candidates]
            yield pa.table(
                {
                    "impression_id": (first_id + np.arange(first, last)).astype(np.uint32),
                    "user_id": self._user_ids[user],
                    "impression_time": self._timestamps(times),
                    "device_type": self._device[user],
                    "session_id": (slot * len(self._user_ids) + user).astype(np.uint32),
                    "article_ids_inview": _lists(ids, shown),
                    "article_ids_clicked": _lists(ids, clicked),
                    "oracle_scores": _lists(utility.astype(np.float32), shown),
                }
            )

    def histories(self, split: str) -> Iterator[pa.Table]:
        """The clicks of readers in the weeks before the train split, the same for both splits.

        Each reader has one row, but about two in a hundred have none, and a few an empty history.
        """
        users = len(self._user_ids)
        for chunk, first in enumerate(range(0, users, CHUNK // 16)):
            rng = self._rng("history", chunk)
            user = np.arange(first, min(first + CHUNK // 16, users))
            user = user[rng.random(len(user)) >= 0.02]
            clicks = np.clip(
                12 * self._activity[user] * rng.lognormal(0, 0.3, len(user)), 5, 400
            ).astype(int)
            clicks[rng.random(len(user)) < 0.005] = 0
            row = np.repeat(np.arange(len(user)), clicks)
            times = rng.permutation(_times(rng, LEAD_DAYS, HISTORY_DAYS, 0, len(row), len(row)))
            by_time = np.argsort(times)
            row, times = row[by_time], times[by_time]
            candidates, shown = self._front_page(rng, times, np.full(len(row), IN_VIEW[1]))
            clicked = _clicks(rng, self._utility(user[row], candidates, shown), 1)
            article = candidates[clicked]
            # Only the first click of a reader on an article is kept.
            _, once = np.unique(row.astype(np.int64) * len(self._ids) + article, return_index=True)
            once = once[np.lexsort((times[once], row[once]))]
            offsets = pa.array(np.searchsorted(row[once], np.arange(len(user) + 1)), pa.int32())
            read = np.round(rng.lognormal(3.0, 1.2, len(once))).astype(np.float32)
            scrolled = np.round(100 * rng.beta(1.2, 0.6, len(once))).astype(np.float32)
            columns = {
                "impression_time_fixed": self._timestamps(times[once]),
                "scroll_percentage_fixed": pa.array(scrolled, mask=rng.random(len(once)) < 0.1),
                "article_id_fixed": pa.array(self._ids[article[once]]),
                "read_time_fixed": pa.array(read),
            }
            lists = {
                name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()
            }
            yield pa.table({"user_id": self._user_ids[user], **lists})

    def _rng(self, part: str, chunk: int = 0) -> np.random.Generator:
        key = [self.seed, ["world", "history", "train", "validation"].index(part), chunk]
        return np.random.default_rng(
            key if self._day is None or part != "validation" else [*key, self._day]
        )

    def _timestamps(self, microseconds: np.ndarray) -> pa.Array:
        return pa.array(microseconds + self._moved, pa.timestamp("us"))

    def _front_page(
        self, rng: np.random.Generator, times: np.ndarray, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws up to `sizes[i]` distinct articles that are shown at `times[i]` (microseconds,
        sorted).

        Returns:
            The numbers of articles (int64), and which of them are shown (bool), both of shape
            `(impressions, IN_VIEW[1])`.
        """
        fewest = IN_VIEW[0]
        draws = np.empty((len(times), 2 * IN_VIEW[1] + fewest), np.int64)
        hours = times // HOUR
        edges = np.flatnonzero(np.diff(hours, prepend=-1, append=-1))
        for start, stop in pairwise(edges):
            now = hours[start] * HOUR
            low, high = np.searchsorted(self._published, [now - FRESH, now])
            low = min(low, high - 2 * fewest)
            weights = self._placement[low:high] * np.exp((self._published[low:high] - now) / FADE)
            cumulative = np.cumsum(weights)
            points = rng.random((stop - start, 2 * IN_VIEW[1])) * cumulative[-1]
            draws[start:stop, :-fewest] = low + np.minimum(
                np.searchsorted(cumulative, points), high - low - 1
            )
            # Neighbours in the list fill a page where the same few articles were drawn again and
            # again.
            at = rng.integers(high - low, size=(stop - start, 1)) + np.arange(fewest)
            draws[start:stop, -fewest:] = low + at % (high - low)
        # Drawing again and dropping what was drawn before is weighted sampling without replacement.
        order = np.argsort(draws, axis=1, kind="stable")
        fresh = np.diff(np.take_along_axis(draws, order, 1), axis=1, prepend=-1) != 0
        first = np.empty_like(fresh)
        np.put_along_axis(first, order, fresh, 1)
        place = np.cumsum(first, axis=1)
        rows, columns = np.nonzero(first & (place <= sizes[:, None]))
        articles = np.zeros((len(times), IN_VIEW[1]), np.int64)
        shown = np.zeros(articles.shape, bool)
        at = place[rows, columns] - 1
        articles[rows, at] = draws[rows, columns]
        shown[rows, at] = True
        return articles, shown

    def _utility(self, user: np.ndarray, articles: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """The planted utility of each shown article for the reader, float; -inf elsewhere."""
        return np.where(
            shown, UTILITY * self._liking[user[:, None], self._topic[articles]], -np.inf
        )

    def _visitors(
        self, rng: np.random.Generator, articles: np.ndarray, shown: np.ndarray
    ) -> np.ndarray:
        """Draws the reader who clicked on each page, one of `VISITORS` readers, with weights that
        grow with the utilities of the shown articles.
        """
        proposals = np.searchsorted(self._visits, rng.random((VISITORS, len(articles))))
        proposals = np.minimum(proposals, len(self._visits) - 1)
        chance = np.stack(
            [np.exp(self._utility(user, articles, shown)).sum(1) for user in proposals]
        )
        chosen = np.argmax(np.log(chance) + rng.gumbel(size=chance.shape), axis=0)
        return proposals[chosen, np.arange(len(articles))]


def _times(
    rng: np.random.Generator, start: int, days: int, first: int, last: int, total: int
) -> np.ndarray:
    """Draws the moments `first` up to `last` of `total` in `days` days from day `start`: sorted
    int64 microseconds.

    Each moment is uniform within its own share of the visits, so a chunk is in order with the other
    chunks without knowing them.
    """
    weekend = (np.arange(start, start + days) % 7) >= 5
    hourly = np.concatenate(
        [[0.0], np.cumsum(np.outer(np.where(weekend, 0.85, 1.0), HOURLY).ravel())]
    )
    share = (np.arange(first, last) + rng.random(last - first)) / total
    hours = np.interp(share * hourly[-1], hourly, np.arange(len(hourly)))
    return START + start * DAY + (hours * HOUR).astype(np.int64)


def _likings(rng: np.random.Generator, users: int, supply: np.ndarray) -> np.ndarray:
    """Draws how much each user likes each topic: float32 of shape `(users, topics)`, from 0.6 to 1
    for a few topics and 0 for the others.
    """
    keys = np.log(supply) + rng.gumbel(size=(users, TOPICS)).astype(np.float32)
    rank = np.argsort(np.argsort(-keys, axis=1), axis=1)
    liked = rank < rng.integers(LIKED[0], LIKED[1] + 1, (users, 1))
    return np.where(liked, rng.uniform(0.6, 1.0, (users, TOPICS)), 0).astype(np.float32)


def _clicks(rng: np.random.Generator, utility: np.ndarray, clicks: np.ndarray | int) -> np.ndarray:
    """Draws which candidates are clicked: bool in the shape of `utility`, `clicks` of each row by a
    softmax of the utilities, without replacement.
    """
    noisy = utility + rng.gumbel(size=utility.shape)
    return np.argsort(np.argsort(-noisy, axis=1), axis=1) < np.reshape(clicks, (-1, 1))


def _lists(values: np.ndarray, mask: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[mask]))
