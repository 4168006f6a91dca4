"""The ways to part impressions: a ranking that is good over all may be poor for new readers, say.

Each slice has groups, and an impression is in one of them, or in none where it is not known in
which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nrms.data.impressions import Impressions
from nrms.evaluation.article_ages import ArticleAges

UNKNOWN = np.iinfo(np.int64).min  # the key of an impression that is in no group


@dataclass(frozen=True)
class Slice:
    """One way to part impressions.

    Attributes:
        title: what the impressions are parted by, for a heading: "By " and this.
        column: what a group is, in a word, for the head of a table.
        axis: what a group is, for the axis of a plot.
        names: the groups' names by key, in order; None where a key names itself.
        words: what people are shown for a name, where that is another word.
    """

    title: str
    column: str
    axis: str
    names: dict[int, str] | None = None
    words: dict[str, str] | None = None

    def name(self, key: int) -> str:
        """The name of a group."""
        return str(key) if self.names is None else self.names[key]

    def shown(self, name: str) -> str:
        """What people are shown for a group's name."""
        return (self.words or {}).get(name, name)


# The keys of lengths are the shortest of each group.
_LENGTHS = {0: "1-5", 6: "6-9", 10: "10-14", 15: "15-22", 23: "23+"}
_HISTORIES = {0: "0", 1: "1-5", 6: "6-10", 11: "11-20", 21: "21-50", 51: "51+"}

LONGEST_HISTORY = max(_HISTORIES)  # of longer ones, slices know no more

# In the order of a report.
SLICES = {
    "hour": Slice("hour (UTC)", "hour", "hour of the day (UTC)"),
    "history_length": Slice(
        "history length", "clicks", "clicks in the reader's history", _HISTORIES
    ),
    "reader": Slice(
        "reader", "reader", "new: without clicks in the history", {0: "new", 1: "known"}
    ),
    "article_age": Slice(
        "age of the clicked article",
        "age",
        "time since the clicked article was published, or else first shown",
        {0: "under 1 h", 1: "1 h or more"},
    ),
    "list_length": Slice("list length", "candidates", "candidates of the impression", _LENGTHS),
    "page": Slice("page", "page", "where the list was shown", {0: "front page", 1: "article page"}),
    # EB-NeRD's `device_type`
    "device": Slice(
        "device", "device", "device", words={"1": "desktop", "2": "mobile", "3": "tablet"}
    ),
}


def slice_keys(
    impressions: Impressions, history_lengths: np.ndarray, ages: ArticleAges | None = None
) -> dict[str, np.ndarray]:
    """The group of each impression by the name of the slice, as far as the shard has what it takes.

    Args:
        impressions: the shard.
        history_lengths: clicks in the history of each impression's reader, int `[n]`.
        ages: tells new articles; None leaves that slice out.

    Returns:
        Keys, int64 `[n]`, by the names of `SLICES`; `UNKNOWN` for an impression in no group.
    """
    keys = {}
    if impressions.time is not None:
        hours = impressions.time.astype("datetime64[h]").astype(np.int64) % 24
        keys["hour"] = np.where(np.isnat(impressions.time), UNKNOWN, hours)
    keys["history_length"] = _starts(_HISTORIES, history_lengths)
    keys["reader"] = np.minimum(history_lengths, 1).astype(np.int64)
    if ages is not None and impressions.time is not None and impressions.clicked is not None:
        is_new, known = ages.of_clicks(impressions)
        keys["article_age"] = np.where(known, np.where(is_new, 0, 1), UNKNOWN)
    keys["list_length"] = list_length_keys(impressions.offsets)
    if impressions.page_id is not None:
        front = impressions.page_id.is_null().to_numpy(zero_copy_only=False)
        keys["page"] = np.where(front, 0, 1)
    if impressions.device is not None:
        device = impressions.device.astype(np.int64)
        keys["device"] = np.where(device == 0, UNKNOWN, device)
    return keys


def list_length_keys(offsets: np.ndarray) -> np.ndarray:
    """The keys of the slice `list_length`, int64 `[n]`, for offsets `[n + 1]`."""
    return _starts(_LENGTHS, np.diff(offsets))


def _starts(names: dict[int, str], values: np.ndarray) -> np.ndarray:
    starts = np.array(list(names))
    return starts[np.searchsorted(starts, values, side="right") - 1]
