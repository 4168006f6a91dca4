"""Demo data of any size: a made-up news site, in the columns of EB-NeRD.

Articles stand on pages (`demo_pages`), where newer ones move them down. Readers (`demo_readers`)
come for some minutes, scroll a page from its top and click near the place where they stop; what
they scrolled past is the list of candidates, which the file holds shuffled. The candidates of a
list compete: the probability of a click on one of them is proportional to the exponential of its
utility, the sum of

- how much the reader likes the article's topic, of whose words its title is made (`demo_words`):
  a model that reads text can learn it;
- how much the article attracts everybody at that moment (`demo_articles`), by hidden quality, age
  and bursts: counters of clicks can learn it;
- how often the reader was shown it before, and whether the reader clicked on it (`demo_showings`);
- how near it stood to the place where the reader stopped: the length of the list and the articles
  beside tell it, and so does which article wins against which.

The column `oracle_scores` holds this utility, by which candidates are ranked as well as possible.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from nrms.sources.demo_articles import QUALITY, TOPICS, Articles
from nrms.sources.demo_calendar import (
    DAY,
    DAYS,
    HISTORY_DAYS,
    HOUR,
    LEAD_DAYS,
    SPLIT_DAYS,
    SPLIT_STARTS,
    START,
    Visits,
)
from nrms.sources.demo_pages import REDRAWN, Pages, scroll
from nrms.sources.demo_readers import Impressions, Readers, draw_sessions
from nrms.sources.demo_showings import NewShowings, Showings

# Parts of the utility that are not the article's own.
LIKED_TOPIC = 6.0  # of a topic that is liked as much as can be; a topic not liked has 0
TIRED = 3.3  # less for showings before: TIRED * log(1 + showings)
CLICKED = 3.6  # less for an article that the reader has clicked on
STOP, STOP_WITHIN = 8.0, 8.0  # STOP * exp(-articles between it and the end / STOP_WITHIN)

TWO_CLICKS = 0.04  # share of impressions with two clicks
LINKED = 10  # mean place, below an article, of the articles to which readers come by a link
CHUNK = 32_768  # so many impressions, or histories of 1/64 as many readers, are drawn at once

HISTORY = 105.0  # median clicks of a reader before the train split, some on the same article
LONGEST_HISTORY = 3_000
HISTORY_AGE = 36 * HOUR  # of an article that is clicked, at most
HISTORY_FADING = 6.0  # in so many hours the clicks on an article are divided by e

SITE = 3  # of the sites that this program has made up; data of another one are other data
MIN_ARTICLES = 500  # with fewer, pages could be empty at the start


class DemoSite:
    """The articles, readers and clicks of one made-up site; a `Source` for `write_dataset`.

    The same arguments give the same data, byte for byte. Impressions are drawn chunk by chunk, each
    with its own random generator, keyed by seed, split and chunk. What is kept between chunks is
    bounded (`Showings`), so memory does not grow with the number of impressions.

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
        site = {
            "site": SITE,
            "seed": seed,
            "articles": articles,
            "users": users,
            "impressions": self.rows,
        }
        self.parameters = dict.fromkeys(self.rows, site)
        self._day, self._moved = None, 0
        if date is not None:
            self.parameters = {"validation": {**site, "date": date}}
            start = int(np.datetime64(date, "us").astype(np.int64))
            self._day, self._moved = int(date.replace("-", "")), start - (START + (DAYS - 1) * DAY)
        self.notes: list[str] = []
        self.seed = seed
        rng = self._rng("world")
        self._articles = Articles(rng, self._rng("texts"), articles)
        self._readers = Readers(rng, users, self._articles.supply)
        self._pages = Pages(
            rng,
            lambda half_hour: self._rng("pages", half_hour),
            self._articles.published,
            self._articles.quality,
        )

    def articles(self) -> pa.Table:
        """All articles in the order of publication."""
        return self._articles.table(self._timestamps(self._articles.published))

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """The impressions of `split`, "train" or "validation", oldest first, in a table for each
        chunk.
        """
        past = Showings(len(self._articles.ids), len(self._readers.ids))
        if split == "validation":
            # The readers remember what they saw at the end of the train split.
            whole = self.rows["train"] // CHUNK
            for _ in self._tables("train", past, CHUNK * max(0, whole - 1)):
                pass
        yield from self._tables(split, past, 0)

    def _tables(self, split: str, past: Showings, skipped: int) -> Iterator[pa.Table]:
        """The impressions of `split` without the `skipped` first ones, a multiple of `CHUNK`."""
        total = self.rows[split]
        first_id = 1 if split == "train" else 1 + self.rows["train"]
        visits = Visits(SPLIT_STARTS[split], SPLIT_DAYS[split])
        if self._day is not None and split == "validation":
            visits = Visits(DAYS - 1, 1)
        waiting: Impressions | None = None  # of sessions that go on while others begin
        for first in range(skipped, total, CHUNK):
            rng = self._rng(split, first // CHUNK)
            last = min(first + CHUNK, total)
            drawn = draw_sessions(rng, self._readers, visits, first, last, total)
            waiting = drawn if waiting is None else waiting.joined(drawn)
            ready = len(waiting)
            if last < total:
                ready = int(np.searchsorted(waiting.time, visits.moment(np.array(last / total))))
            if ready:
                yield self._table(rng, waiting[:ready], past, first_id, last - len(waiting))
                waiting = waiting[ready:]

    def _table(
        self,
        rng: np.random.Generator,
        impressions: Impressions,
        past: Showings,
        first_id: int,
        before: int,
    ) -> pa.Table:
        """Draws candidates and clicks of `impressions`, which come after `before` others of the
        split, whose first one has the id `first_id`.
        """
        count, reader = len(impressions), impressions.reader
        periods, period = np.unique(impressions.time // REDRAWN, return_inverse=True)
        places, taken = self._pages.at(periods)
        below_articles = len(self._pages.scrolled)
        page = rng.choice(below_articles, count, p=self._pages.scrolled)
        page[impressions.on_article] = below_articles
        length, place = scroll(rng, self._readers.scrolled(rng, reader), taken[period, page])
        starts = np.cumsum(length) - length
        row = np.repeat(np.arange(count), length)
        article = places[period[row], page[row], place].astype(np.int64)
        to_end = (starts + length)[row] - np.arange(len(row)) - 1
        order = np.argsort(row + rng.random(len(row)))  # within each list
        article, to_end = article[order], to_end[order]

        showings = NewShowings(past, reader[row], article)
        utility = (
            LIKED_TOPIC * self._readers.liking[reader[row], self._articles.topic[article]]
            + self._articles.attraction(article, impressions.time[row])
            + STOP * np.exp(-to_end / STOP_WITHIN)
            - TIRED * np.log1p(showings.shown)
        )
        noise = rng.gumbel(size=len(row))
        has_two = (rng.random(count) < TWO_CLICKS)[row]
        # A click depends on earlier ones of the same reader, so all are drawn again, with the same
        # noise, until none changes: the first of each reader is right at once, then the second.
        clicked = np.zeros(len(row), bool)
        while True:
            scores = utility - CLICKED * showings.clicked_before(clicked)
            chosen = _clicks(scores + noise, row, starts, has_two)
            if np.array_equal(chosen, clicked):
                break
            clicked = chosen
        showings.keep(clicked)

        linked = np.minimum(rng.geometric(1 / LINKED, count), taken[period, below_articles]) - 1
        linked = places[period, below_articles, linked]
        on = self._articles_read(impressions, article[clicked], row[clicked], linked, past)
        ids = self._articles.ids
        offsets = np.append(starts, len(row))
        return pa.table(
            {
                "impression_id": (first_id + before + np.arange(count)).astype(np.uint32),
                "user_id": self._readers.ids[reader],
                "impression_time": self._timestamps(impressions.time),
                "device_type": self._readers.device[reader],
                "session_id": (first_id + impressions.session).astype(np.uint32),
                "article_id": pa.array(ids[on], mask=~impressions.on_article),
                "article_ids_inview": _lists(offsets, ids[article]),
                "article_ids_clicked": _lists(
                    np.searchsorted(row[clicked], np.arange(count + 1)), ids[article[clicked]]
                ),
                "oracle_scores": _lists(offsets, scores.astype(np.float32)),
            }
        )

    def _articles_read(
        self,
        impressions: Impressions,
        clicked: np.ndarray,
        row: np.ndarray,
        linked: np.ndarray,
        past: Showings,
    ) -> np.ndarray:
        """The article on whose page each impression would be, int64 of shape `(n,)`: the one that
        the reader clicked on before, or `linked` for the first of a session.

        Args:
            impressions: the impressions.
            clicked: the articles that are clicked, int64.
            row: the impressions in which they are, int64, sorted.
            linked: the articles to which readers come by a link, of shape `(n,)`.
            past: what the readers clicked on before these, which is brought up to date.
        """
        reader = impressions.reader
        click = np.empty(len(reader), np.int64)
        click[row] = clicked
        by_reader = np.argsort(reader, kind="stable")
        is_same = np.diff(reader[by_reader], prepend=-1) == 0
        previous = np.empty(len(reader), np.int64)
        previous[by_reader] = np.where(
            is_same, np.roll(click[by_reader], 1), past.last_click[reader[by_reader]]
        )
        past.last_click[reader[by_reader]] = click[by_reader]  # of several, the last one stays
        return np.where(impressions.is_first | (previous < 0), linked, previous)

    def histories(self, split: str) -> Iterator[pa.Table]:
        """The clicks of readers in the weeks before the train split, the same for both splits.

        Each reader has one row, but about two in a hundred have none, and a few an empty history.
        """
        users, step = len(self._readers.ids), CHUNK // 64
        for chunk, first in enumerate(range(0, users, step)):
            rng = self._rng("history", chunk)
            user = np.arange(first, min(first + step, users))
            user = user[rng.random(len(user)) >= 0.02]
            median = HISTORY * self._readers.activity[user]
            clicks = np.clip(median * rng.lognormal(0, 0.9, len(user)), 5, LONGEST_HISTORY)
            clicks[rng.random(len(user)) < 0.005] = 0
            row = np.repeat(np.arange(len(user)), clicks.astype(np.int64))
            times = rng.permutation(Visits(LEAD_DAYS, HISTORY_DAYS).draw(rng, len(row)))
            by_time = np.argsort(times)
            row, times = row[by_time], times[by_time]
            article = self._clicks_before(rng, user[row], times)
            # Only the first click of a reader on an article is kept.
            _, once = np.unique(row * len(self._articles.ids) + article, return_index=True)
            once = once[np.lexsort((times[once], row[once]))]
            offsets = np.searchsorted(row[once], np.arange(len(user) + 1))
            read = np.round(rng.lognormal(3.0, 1.2, len(once))).astype(np.float32)
            scrolled = np.round(100 * rng.beta(1.2, 0.6, len(once))).astype(np.float32)
            columns = {
                "impression_time_fixed": self._timestamps(times[once]),
                "scroll_percentage_fixed": pa.array(scrolled, mask=rng.random(len(once)) < 0.1),
                "article_id_fixed": self._articles.ids[article[once]],
                "read_time_fixed": read,
            }
            lists = {name: _lists(offsets, values) for name, values in columns.items()}
            yield pa.table({"user_id": self._readers.ids[user], **lists})

    def _clicks_before(
        self, rng: np.random.Generator, user: np.ndarray, times: np.ndarray
    ) -> np.ndarray:
        """Draws the article of each click of a history, by `user` at `times` (sorted microseconds):
        by the reader's topics, quality and age, from all articles that are new then.
        """
        articles, article = self._articles, np.empty(len(times), np.int64)
        points = rng.random((2, len(times)))
        hours = times // HOUR
        for start, stop in pairwise(np.flatnonzero(np.diff(hours, prepend=-1, append=-1))):
            now = hours[start] * HOUR
            low, high = np.searchsorted(articles.published, [now - HISTORY_AGE, now])
            by_topic = low + np.argsort(articles.topic[low:high], kind="stable")
            ages = (now - articles.published[by_topic]) / HOUR
            weights = np.exp(QUALITY * articles.quality[by_topic] - ages / HISTORY_FADING)
            passed = np.append(0, np.cumsum(weights))
            edges = np.searchsorted(articles.topic[by_topic], np.arange(TOPICS + 1))
            bounds = passed[edges]
            chance = np.exp(LIKED_TOPIC * self._readers.liking[user[start:stop]]) * np.diff(bounds)
            topics = np.cumsum(chance, axis=1)
            topic = (topics <= points[0, start:stop, None] * topics[:, -1:]).sum(1)
            share = points[1, start:stop]
            point = bounds[topic] + share * (bounds[topic + 1] - bounds[topic])
            at = np.searchsorted(passed, point, "right") - 1
            article[start:stop] = by_topic[np.clip(at, edges[topic], edges[topic + 1] - 1)]
        return article

    def _rng(self, part: str, chunk: int = 0) -> np.random.Generator:
        parts = ["world", "history", "train", "validation", "pages", "texts"]
        key = [self.seed, parts.index(part), chunk]
        return np.random.default_rng(
            key if self._day is None or part != "validation" else [*key, self._day]
        )

    def _timestamps(self, microseconds: np.ndarray) -> pa.Array:
        return pa.array(microseconds + self._moved, pa.timestamp("us"))


def _clicks(
    utility: np.ndarray, row: np.ndarray, starts: np.ndarray, has_two: np.ndarray
) -> np.ndarray:
    """The candidates with the highest utility of their list, bool in the shape of `utility`: one of
    each list, or two where `has_two`.
    """
    best = utility == np.maximum.reduceat(utility, starts)[row]
    others = np.where(best, -np.inf, utility)
    return best | (has_two & (others == np.maximum.reduceat(others, starts)[row]))


def _lists(offsets: np.ndarray, values: np.ndarray | pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
