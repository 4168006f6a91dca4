"""What each user clicked before: a fixed matrix of article rows, small enough for millions of
users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import list_rows, row_numbers, times_us, unnest
from nrms.data.footers import Footers
from nrms.data.leakage import NEVER, UNTIMED, click_keys
from nrms.data.parquet import open_parquet
from nrms.data.quality import DataReport
from nrms.data.schema import HISTORY, first_duplicate, refuse_nulls, schema_error


@dataclass(frozen=True)
class Histories:
    """The last clicks of every user. A user is a row number: row r is `users[r - 1]`, 0 is the
    empty history.

    Attributes:
        users: int64 or string, no nulls, no duplicates.
        rows: article rows, oldest first, 0 as padding at the end; int32 of shape `(users + 1,
            history_size)`.
        lengths: number of clicks in each row, int32 of shape `(users + 1,)`.
    """

    users: pa.Array
    rows: np.ndarray
    lengths: np.ndarray

    def user_rows(self, ids: pa.Array) -> np.ndarray:
        """Row number of each user, int32 of shape `(len(ids),)`; 0 for a user without a history
        row.
        """
        return row_numbers(ids, self.users)


def read_users(files: Mapping[str, storage.FileInfo], footers: Footers) -> pa.Array:
    """The users of all history files, in order, int64 or string.

    Args:
        files: The history files by their path inside the split.
        footers: Opens them, for the first time.

    Raises:
        SchemaError: unreadable, against the contract, a null user, or one user in two rows.
    """
    parts = []
    for path, info in files.items():
        with footers.open(path, info, HISTORY) as reader:
            parts.append(reader.read("user_id")["user_id"])
        refuse_nulls("user_id", parts[-1], info.uri)
    # A file without rows may have no type for its users.
    parts = [part.cast(footers.user_type) for part in parts]
    users = pa.concat_arrays(parts)
    if duplicate := first_duplicate(users):
        repeated, user = duplicate
        uri = [
            info.uri
            for info, part in zip(files.values(), parts, strict=True)
            if part.index(user).as_py() >= 0
        ][-1]
        raise schema_error(
            "A user must have one history row.",
            f"{repeated:,} of {len(users):,} rows repeat a `user_id`, first {user!r}",
            uri,
            "Join the rows of each user into one.",
        )
    return users


def read_histories(
    files: Sequence[storage.FileInfo],
    cache: Path,
    articles: Articles,
    users: pa.Array,
    first_impression: np.ndarray,
    history_size: int,
) -> tuple[Histories, np.ndarray, DataReport]:
    """Read the history files a batch of users at a time and keep each user's last known clicks.

    It drops first the entries at or after the user's first impression, which may be the very clicks
    to predict, then those of unknown articles, then all but the last `history_size`.

    Args:
        files: The history files.
        cache: Folder for local copies.
        articles: The article table.
        users: `read_users(...)`.
        first_impression: `leakage.first_impressions(...)`, int64 of shape `(users + 1,)`.
        history_size: Clicks kept for each user.

    Returns:
        The histories; the `leakage.click_keys` of the late entries; and what was counted.

    Raises:
        SchemaError: unreadable, against the contract, or not as many times as articles.
    """
    rows = np.zeros((len(users) + 1, history_size), np.int32)
    lengths = np.zeros(len(users) + 1, np.int32)
    report = DataReport({"users": len(users)})
    late_entries = [np.zeros(0, np.int64)]
    start = 1
    for info in files:
        with open_parquet(info, cache, HISTORY, {}) as reader:
            for batch in reader.batches("article_id_fixed", "impression_time_fixed"):
                offsets, ids = unnest(batch["article_id_fixed"])
                entry_row = list_rows(offsets)
                user, article = start + entry_row, articles.rows(ids)
                batch_users = users.slice(start - 1, len(offsets) - 1)
                first, times = (
                    first_impression[user],
                    _entry_times(batch, offsets, batch_users, info.uri),
                )
                untimed = (np.isnat(times) & (first != NEVER)) | (first == UNTIMED)
                late = times.view(np.int64) >= first
                keep = ~late & (article > 0)
                report.add("null_history", batch["article_id_fixed"].null_count)
                report.add("history_entries", len(ids))
                report.add("untimed_history", np.count_nonzero(untimed))
                report.add("late_history", np.count_nonzero(late))
                report.add("unknown_history_article", np.count_nonzero(~late & (article == 0)))
                late_entries.append(click_keys(user, article, articles)[late])

                kept_before = np.concatenate([[0], np.cumsum(keep)])
                kept = np.diff(kept_before[offsets])
                cut = kept_before[offsets[:-1]] + np.maximum(kept - history_size, 0)
                # negative for a click that at least history_size others follow
                place = kept_before[:-1] - cut[entry_row]
                keep &= place >= 0
                rows[user[keep], place[keep]] = article[keep]
                lengths[start : start + len(kept)] = np.minimum(kept, history_size)
                start += len(kept)
    return Histories(users, rows, lengths), np.concatenate(late_entries), report


def _entry_times(
    batch: dict[str, pa.Array], offsets: np.ndarray, users: pa.Array, uri: str
) -> np.ndarray:
    """Times of the entries, datetime64[us] of shape `(entries,)`, NaT for an entry without one."""
    times = np.full(offsets[-1], np.datetime64("NaT"), "datetime64[us]")
    if "impression_time_fixed" not in batch:
        return times
    column = batch["impression_time_fixed"]
    time_offsets, values = unnest(column)
    counts, expected = np.diff(time_offsets), np.diff(offsets)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(given & (counts != expected))
    if len(wrong):
        raise schema_error(
            "Column `impression_time_fixed` must have one time for each entry of "
            "`article_id_fixed`.",
            f"another number for {len(wrong):,} of {len(users):,} users read, first for user "
            f"{users[wrong[0]].as_py()!r}: {counts[wrong[0]]} times, {expected[wrong[0]]} articles",
            uri,
            "Make both lists equally long.",
        )
    times[np.repeat(given, expected)] = times_us(values)
    return times
