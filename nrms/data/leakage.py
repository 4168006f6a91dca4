"""Keeps the clicks to predict out of the histories, where times allow to tell.

A history may be recorded later than the impressions it is used for, and then holds the very clicks
to predict. So an entry as late as the user's first impression of a split is not used in that split.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import list_rows, row_numbers, times_us, unnest
from nrms.data.parquet import open_parquet
from nrms.data.schema import BEHAVIORS, refuse_nulls, set_aside
from nrms.errors import SchemaError

TimeRange = tuple[np.datetime64, np.datetime64]

# Later than any history entry: for users whose impressions have no times, and for users without
# impressions.
UNTIMED = np.iinfo(np.int64).max - 1
NEVER = np.iinfo(np.int64).max


def first_impressions(
    shards: Sequence[storage.FileInfo],
    cache: Path,
    users: pa.Array,
    bad: dict[str, SchemaError] | None = None,
) -> tuple[np.ndarray, TimeRange | None]:
    """When each user is first shown anything, in one pass over two columns of the shards.

    Args:
        shards: The behaviours files.
        cache: Folder for local copies.
        users: `histories.read_users(...)`.
        bad: Gets the shards that break the contract, which then count for nothing; None raises.

    Returns:
        Microseconds since 1970 in UTC, or `UNTIMED` or `NEVER`; int64 of shape `(users + 1,)`, row
        0 for all who are not in `users`. And the first and last time of all impressions,
        datetime64[us]; None without times.

    Raises:
        SchemaError: unreadable, against the contract, or a null user.
    """
    first = np.full(len(users) + 1, NEVER)
    earliest, latest = [], []
    for info in shards:
        with set_aside(info, bad), open_parquet(info, cache, BEHAVIORS, {}) as reader:
            columns = reader.read("user_id", "impression_time")
            refuse_nulls("user_id", columns["user_id"], info.uri)
            user = row_numbers(columns["user_id"], users)
            times = np.full(len(user), np.datetime64("NaT"), "datetime64[us]")
            if "impression_time" in columns:
                times = times_us(columns["impression_time"])
        if info.uri in (bad or {}):
            continue
        known = ~np.isnat(times)
        np.minimum.at(first, user, np.where(known, times.view(np.int64), UNTIMED))
        if known.any():
            earliest.append(times[known].min())
            latest.append(times[known].max())
    return first, (min(earliest), max(latest)) if earliest else None


def click_keys(user: np.ndarray, article: np.ndarray, articles: Articles) -> np.ndarray:
    """One int64 for each pair of a user row and an article row."""
    return user.astype(np.int64) * (len(articles) + 1) + article


def count_clicked(
    entries: np.ndarray,
    shards: Sequence[storage.FileInfo],
    cache: Path,
    users: pa.Array,
    articles: Articles,
    bad: dict[str, SchemaError] | None = None,
) -> int:
    """How many of these history entries (`click_keys`) are clicks in the shards: a pass over two
    columns. `bad` is that of `first_impressions`.
    """
    keys, counts = np.unique(entries, return_counts=True)
    clicked = np.zeros(len(keys), bool)
    for info in shards:
        with set_aside(info, bad), open_parquet(info, cache, BEHAVIORS, {}) as reader:
            columns = reader.read("user_id", "article_ids_clicked")
            if "article_ids_clicked" not in columns:
                continue
            offsets, ids = unnest(columns["article_ids_clicked"])
            article = articles.rows(ids)
            user = row_numbers(columns["user_id"], users)[list_rows(offsets)]
        if info.uri in (bad or {}):
            continue
        clicks = np.sort(click_keys(user, article, articles)[article > 0])
        if len(clicks):
            clicked |= clicks[np.minimum(np.searchsorted(clicks, keys), len(clicks) - 1)] == keys
    return int(counts[clicked].sum())
