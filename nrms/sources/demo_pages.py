"""The pages of the made-up site: which articles stand on them, from the top down, and how far
readers scroll.
"""

from collections.abc import Callable

import numpy as np

from nrms.sources.demo_calendar import HOUR

# The front page has parts, of which a reader scrolls one; an article stands in one of them. A site
# has only so many as its articles fill.
ARTICLES_PER_PART = 2_000
PARTS = np.array([0.5, 0.25, 0.25])  # share of the articles that stand in each part
SCROLLED = np.array([0.75, 0.15, 0.10])  # share of the visits to the front page
PLACES = 192  # on each page
REDRAWN = HOUR // 4  # new articles appear every quarter of an hour

# Articles stand in the order of their publication, each as if it were younger by its lead: the
# median of these hours, and the spread of their logarithm.
LEAD_HOURS, LEAD_SPREAD = 0.9, 1.2
LEAD_BY_QUALITY = 0.2  # correlation of the lead and the quality of an article

# Some places have an old article, others every half hour: share of the places, most on a page, and
# ages in hours.
ARCHIVE, OLD = 0.12, 24
ARCHIVE_REDRAWN = HOUR // 2
ARCHIVE_AGES = (18.0, 14 * 24.0)

SEEN = 0.6  # readers see their own version of a page, with this share of its articles
# The lengths of lists: shares of the lists, and the length that these do not reach.
LENGTH_SHARES = (0, 0.18, 0.32, 0.56, 0.79, 0.92, 0.96, 0.993, 0.999, 1)
LENGTHS = (5, 6, 7, 10, 15, 23, 30, 47, 65, 101)


class Pages:
    """The parts of the front page, and after them the list that stands below every article.

    Args:
        rng: draws where articles stand.
        archive: gives the random generator for the old articles of each time // `ARCHIVE_REDRAWN`.
        published: times of the articles, int64 microseconds, sorted.
        quality: how attractive each article is, standard normal.

    Attributes:
        scrolled: share of the visits to the front page that each of its parts gets.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        archive: Callable[[int], np.random.Generator],
        published: np.ndarray,
        quality: np.ndarray,
    ) -> None:
        articles = len(published)
        parts = int(np.clip(articles // ARTICLES_PER_PART, 1, len(PARTS)))
        self.scrolled = SCROLLED[:parts] / SCROLLED[:parts].sum()
        part = rng.choice(parts, articles, p=PARTS[:parts] / PARTS[:parts].sum())
        self._archive = archive
        self._pages = []  # of each: its articles, when they were published, what orders them
        in_parts = [np.flatnonzero(part == number) for number in range(parts)]
        for members in [*in_parts, np.arange(articles)]:
            noise = rng.standard_normal(len(members))
            lead = LEAD_BY_QUALITY * quality[members] + np.sqrt(1 - LEAD_BY_QUALITY**2) * noise
            order = published[members] + HOUR * LEAD_HOURS * np.exp(LEAD_SPREAD * lead)
            self._pages.append((members, published[members], order))

    def at(self, periods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stands on each page in `periods`, which are times // `REDRAWN`.

        Returns:
            The numbers of the articles from the top down, int32 of shape `(periods, pages,
            PLACES)`; and how many of the places are taken, int64 of shape `(periods, pages)`.
        """
        halves, half = np.unique(periods * REDRAWN // ARCHIVE_REDRAWN, return_inverse=True)
        shape = (len(self._pages), PLACES + 2 * OLD)
        draws = np.stack([self._archive(number).random(shape) for number in halves.tolist()])
        is_archive, jitter, chance = np.split(draws, [PLACES, PLACES + OLD], axis=2)
        low, high = np.log(ARCHIVE_AGES)
        ages = HOUR * np.exp(low + (high - low) * (np.arange(OLD) + jitter) / OLD)
        before = (halves[:, None, None] * ARCHIVE_REDRAWN - ages).astype(np.int64)
        places = np.zeros((len(periods), len(self._pages), PLACES), np.int32)
        taken = np.zeros(places.shape[:2], np.int64)
        for page, (members, published, order) in enumerate(self._pages):
            # Of each stretch of ages one article, if there is one, in any order.
            old = np.searchsorted(published, before[:, page], "right") - 1
            is_one = (old >= 0) & (np.diff(old, axis=1, prepend=len(members)) != 0)
            old = _in_order(old, np.where(is_one, chance[:, page], np.inf))[half]
            # The latest of the other articles, those that stand foremost first.
            stop = np.searchsorted(published, periods * REDRAWN, "right")
            new = stop[:, None] - 1 - np.arange(2 * PLACES)
            row = np.arange(len(periods))[:, None] * len(members)
            is_one = (new >= 0) & ~np.isin(row + new, (row + old)[old >= 0])
            new = _in_order(new, np.where(is_one, -order[new], np.inf))
            # Each place takes the next article of its kind.
            is_old = is_archive[half, page] < ARCHIVE
            is_old &= np.cumsum(is_old, axis=1) <= (old >= 0).sum(1, keepdims=True)
            next_old, next_new = (np.cumsum(kind, axis=1) - 1 for kind in (is_old, ~is_old))
            here = np.where(
                is_old,
                np.take_along_axis(old, np.clip(next_old, 0, OLD - 1), 1),
                np.take_along_axis(new, np.maximum(next_new, 0), 1),
            )
            here = _in_order(here, np.where(here >= 0, 0.0, np.inf))
            places[:, page] = members[here]
            taken[:, page] = (here >= 0).sum(1)
        return places, taken


def _in_order(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Each row of `values`, those with the lowest keys first; -1 for those without a finite one."""
    order = np.argsort(keys, axis=1, kind="stable")
    return np.where(
        np.isfinite(np.take_along_axis(keys, order, 1)), np.take_along_axis(values, order, 1), -1
    )


def scroll(
    rng: np.random.Generator, share: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the lists of readers who scroll pages from the top.

    Args:
        share: the share of all lists that are shorter, float of shape `(n,)`.
        room: places on the page that are taken, at least `LENGTHS[0]`, int64 of shape `(n,)`.

    Returns:
        The lengths of the lists, int64 of shape `(n,)`; and the places on the page, int64, of all
        lists after each other, each from the top down.
    """
    length = np.minimum(np.interp(share, LENGTH_SHARES, LENGTHS).astype(np.int64), room)
    ends = np.cumsum(length)
    row = np.repeat(np.arange(len(length)), length)
    steps = rng.geometric(SEEN, len(row))
    passed = np.cumsum(steps)
    before = (passed[ends - 1] - np.add.reduceat(steps, ends - length))[row]
    place = passed - before - 1
    # Where the reader's version is too short for so long a list, it is the whole page.
    whole = (place[ends - 1] >= room)[row]
    return length, np.where(whole, np.arange(len(row)) - (ends - length)[row], place)
