"""The readers of the made-up site: what they like, how often they come and how far they scroll."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from nrms.sources.demo_calendar import Visits

LIKED = (2, 3)  # fewest and most topics that a reader likes
# A reader's sessions, relative to the median reader's: spread of their logarithm, and most.
ACTIVITY_SPREAD, MOST_ACTIVE = 1.2, 25.0
DEVICES = (0.34, 0.63, 0.03)  # share of the visits with each `device_type`, from 1 on
HABIT = 0.3  # share of the lists in which readers scroll as far as is their habit

SESSION, LONGEST_SESSION = 1.9, 20  # impressions of a session: mean, and most
PAUSE, PAUSE_SPREAD = 57.0, 1.0  # seconds between two: median, and spread of the logarithm
LONGEST_PAUSE = 1_500.0
# Share of the impressions on the page of an article: of the first and the later ones of a session.
ON_ARTICLE = (0.14, 0.46)


class Readers:
    """All readers of a site.

    Args:
        rng: draws the readers.
        users: how many.
        topics: how many articles there are on each topic, float of shape `(topics,)`.

    Attributes:
        ids: uint32 of shape `(users,)`.
        device: `device_type`, int8 of shape `(users,)`.
        liking: how much each likes each topic, float32 of shape `(users, topics)`: from 0.6 to 1
            for a few topics, and 0 for the others.
        activity: how often each comes, float of shape `(users,)`, median 1.
    """

    def __init__(self, rng: np.random.Generator, users: int, topics: np.ndarray) -> None:
        keys = np.log(topics) + rng.gumbel(size=(users, len(topics))).astype(np.float32)
        rank = np.argsort(np.argsort(-keys, axis=1), axis=1)
        liked = rank < rng.integers(LIKED[0], LIKED[1] + 1, (users, 1))
        degree = rng.uniform(0.6, 1.0, (users, len(topics)))
        self.liking = np.where(liked, degree, 0).astype(np.float32)
        self.activity = np.minimum(rng.lognormal(0, ACTIVITY_SPREAD, users), MOST_ACTIVE)
        self._visits = np.cumsum(self.activity) / self.activity.sum()
        self.ids = (10_000 + np.cumsum(rng.integers(1, 100, users))).astype(np.uint32)
        self.device = 1 + np.searchsorted(np.cumsum(DEVICES[:-1]), self._even(rng)).astype(np.int8)
        self._habit = self._even(rng)

    def _even(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a number from 0 to 1 for each reader, so that they are even among the visits, to
        which the most active readers contribute many with the same number.
        """
        order = rng.permutation(len(self.activity))
        even = np.empty(len(order))
        even[order] = np.cumsum(self.activity[order]) - self.activity[order] / 2
        return even / self.activity.sum()

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draws the numbers of `count` readers, who come as often as is their activity."""
        readers = np.searchsorted(self._visits, rng.random(count))
        return np.minimum(readers, len(self._visits) - 1)

    def scrolled(self, rng: np.random.Generator, reader: np.ndarray) -> np.ndarray:
        """Draws how far readers scroll, as the share of all lists that are shorter."""
        share = rng.random(len(reader))
        return np.where(rng.random(len(reader)) < HABIT, self._habit[reader], share)


@dataclass(frozen=True)
class Impressions:
    """Who came when to which kind of page, in the order of time; all of shape `(n,)`.

    Attributes:
        time: int64 microseconds.
        reader: numbers of the readers, int64.
        session: number of the session's first impression among those of its split, int64.
        is_first: whether the session begins with it, bool.
        on_article: whether it is on the page of an article rather than the front page, bool.
    """

    time: np.ndarray
    reader: np.ndarray
    session: np.ndarray
    is_first: np.ndarray
    on_article: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice | np.ndarray) -> Impressions:
        return Impressions(*(getattr(self, field.name)[rows] for field in fields(self)))

    def joined(self, others: Impressions) -> Impressions:
        """These and `others`, in the order of time."""
        both = Impressions(
            *(
                np.concatenate([getattr(self, field.name), getattr(others, field.name)])
                for field in fields(self)
            )
        )
        return both[np.argsort(both.time, kind="stable")]


def draw_sessions(
    rng: np.random.Generator, readers: Readers, visits: Visits, first: int, last: int, total: int
) -> Impressions:
    """Draws sessions of `last - first` impressions together: those from `first` up to `last` of
    `total`, in the order in which sessions begin. None begins before `visits.moment(first / total)`
    or after `visits.moment(last / total)`, and none outlasts the visits.
    """
    count = last - first
    lengths = np.minimum(rng.geometric(1 / SESSION, count), LONGEST_SESSION)
    begins = np.cumsum(lengths) - lengths
    begins = begins[begins < count]
    lengths = np.diff(begins, append=count)
    session = np.repeat(np.arange(len(begins)), lengths)
    start = visits.moment((first + begins + rng.random(len(begins)) * lengths) / total)
    seconds = np.minimum(rng.lognormal(np.log(PAUSE), PAUSE_SPREAD, count), LONGEST_PAUSE)
    seconds[begins] = 0
    passed = np.cumsum(seconds) * 1e6
    passed -= passed[begins][session]
    # A session that would outlast the visits has shorter pauses.
    longest = np.maximum(passed[begins + lengths - 1], 1)
    passed *= np.minimum(1, (visits.end - 1 - start) / longest)[session]
    is_first = np.arange(count) == begins[session]
    drawn = Impressions(
        time=start[session] + passed.astype(np.int64),
        reader=readers.draw(rng, len(begins))[session],
        session=first + begins[session],
        is_first=is_first,
        on_article=rng.random(count) < np.where(is_first, *ON_ARTICLE),
    )
    return drawn[np.argsort(drawn.time, kind="stable")]
