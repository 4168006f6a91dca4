"""The days of the made-up site, and how its visits spread over the hours."""

import numpy as np

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

# Percent of a day's visits in each of its hours.
# fmt: off
HOURLY = np.array(
    [.5, .6, .9, 3.0, 4.8, 6.6, 6.5, 5.7, 4.7, 4.5, 5.0, 4.8,
     4.5, 4.7, 4.9, 4.8, 4.8, 5.5, 5.7, 5.9, 5.5, 3.8, 1.5, .9]
)
# fmt: on
WEEKEND = 0.85  # visits of a day at the weekend, beside those of another day


class Visits:
    """The moments of `days` days from day `start` on, by the share of their visits that has passed.

    Moments by share are how a chunk of visits is in order with the others without knowing them.
    """

    def __init__(self, start: int, days: int) -> None:
        weekend = (np.arange(start, start + days) % 7) >= 5
        hourly = np.outer(np.where(weekend, WEEKEND, 1.0), HOURLY).ravel()
        self._passed = np.concatenate([[0.0], np.cumsum(hourly)]) / hourly.sum()
        self.start = START + start * DAY
        self.end = self.start + days * DAY

    def moment(self, share: np.ndarray) -> np.ndarray:
        """The moments (int64 microseconds) at which `share` of the visits, 0 to 1, has passed."""
        hours = np.interp(share, self._passed, np.arange(len(self._passed)))
        return self.start + (hours * HOUR).astype(np.int64)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draws `count` moments, sorted."""
        return self.moment((np.arange(count) + rng.random(count)) / count)
