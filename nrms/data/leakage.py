"""Keeps the clicks to predict out of the histories, as far as times show which they are.

A history may be recorded later than the impressions that it is used for, and then it holds the very
clicks to predict. So a split does not use entries at or after the user's first impression in it.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import list_rows, row_numbers, times_us, unnest
from nrms.data.footers import Footers
from nrms.data.schema import Column, refuse_nulls, set_aside
from nrms.errors import SchemaError

TimeRange = tuple[np.datetime64, np.datetime64]

# Both are later than any history entry: the one stands for users whose impressions have no times,
# the other for users without impressions.
UNTIMED = np.iinfo(np.int64).max - 1
NEVER = np.iinfo(np.int64).max


def first_impressions(
    shards: Mapping[str, storage.FileInfo],
    contract: tuple[Column, ...],
    footers: Footers,
    users: pa.Array,
    bad: dict[str, SchemaError] | None = None,
) -> tuple[np.ndarray, dict[str, TimeRange]]:
    """The time of each user's first impression, in one pass over two columns of the shards.

    Args:
        shards: The behaviours files by their path inside the split.
        contract: The columns of these files.
        footers: Opens them, for the first time.
        users: `histories.read_users(...)`.
        bad: Takes the errors of shards that break the contract, which are then left out; with
            None the error is raised.

    Returns:
        Microseconds since 1970 in UTC, or `UNTIMED` or `NEVER`; int64 of shape `(users + 1,)`, with
        row 0 for all users who are not in `users`. And the first and last time of each shard that
        has times, datetime64[us] in UTC, by uri.

    Raises:
        SchemaError: unreadable, against the contract, or a null user.
    """
    first = np.full(len(users) + 1, NEVER)
    ranges: dict[str, TimeRange] = {}
    for path, info in shards.items():
        with set_aside(info, bad), footers.open(path, info, contract) as reader:
            columns = reader.read("user_id", "impression_time")
            refuse_nulls("user_id", columns["user_id"], info.uri)
            # Where the histories have no rows, only the shards tell the type of users.
            user = row_numbers(columns["user_id"], users.cast(footers.user_type))
            times = np.full(len(user), np.datetime64("NaT"), "datetime64[us]")
            if "impression_time" in columns:
                times = times_us(columns["impression_time"])
        if info.uri in (bad or {}):
            continue
        known = ~np.isnat(times)
        np.minimum.at(first, user, np.where(known, times.view(np.int64), UNTIMED))
        if known.any():
            ranges[info.uri] = times[known].min(), times[known].max()
    return first, ranges


def click_keys(user: np.ndarray, article: np.ndarray, articles: Articles) -> np.ndarray:
    """One int64 for each pair of a user row and an article row."""
    return user.astype(np.int64) * (len(articles) + 1) + article


class LateClicks:
    """Counts the history entries that were left out as too late and are clicks in the shards read
    so far.

    Args:
        entries: `click_keys` of the late entries, in any order, with repeats.
        articles: The article table.
    """

    def __init__(self, entries: np.ndarray, articles: Articles) -> None:
        self._articles = articles
        self._keys, self._counts = np.unique(entries, return_counts=True)
        self._clicked = np.zeros(len(self._keys), bool)

    def add(self, user: np.ndarray, clicks: pa.Array | None) -> None:
        """Looks for the entries among the clicks of a shard. Adding a shard twice changes nothing.

        Args:
            user: Row in `Histories`, int32 of shape `(n,)`.
            clicks: Lists of article ids, shape `(n,)`; None when the shard is unlabelled.
        """
        if clicks is None or not len(self._keys):
            return
        offsets, ids = unnest(clicks)
        article = self._articles.rows(ids)
        keys = click_keys(user[list_rows(offsets)], article, self._articles)
        keys = np.sort(keys[article > 0])
        if len(keys):
            place = np.minimum(np.searchsorted(keys, self._keys), len(keys) - 1)
            self._clicked |= keys[place] == self._keys

    @property
    def count(self) -> int:
        """Late entries that are clicks, each counted as often as it stands in the history."""
        return int(self._counts[self._clicked].sum())
