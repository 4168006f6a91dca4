"""The features of a candidate: what happened before, as numbers that a network can read.

Lists are compared by what won against what (see `scan.Counts`). `docs/reference/features.md` has
the formula of each feature. Features of the group `list` belong to a list; a model reads the others
as they are and relative to their list, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nrms.data.columns import list_places, list_rows
from nrms.features.context import pairs
from nrms.features.context.events import Events
from nrms.features.context.scan import Counts, scan
from nrms.features.context.state import HALF_LIVES, NO_ID, State
from nrms.features.context.table import HOUR

_H = len(HALF_LIVES)
_LABELS = ("30min", "4h", "24h")
_SECOND = 1_000_000
_NOTHING = 1e-9
_ROWS = 4096  # features of so many candidates fit into the processor's cache


def _of_each(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{label}" for name in names for label in _LABELS)


GROUPS: dict[str, tuple[str, ...]] = {
    "pairs": _of_each("win_mean", "win_least", "log_odds", "log_ratio"),
    "counters": _of_each("shown", "clicked", "rate"),
    "together": _of_each("with_mean", "with_others", "with_difference", "with_least", "missing"),
    "depth": _of_each("depth", "depth_difference"),
    "age": ("since_first", "since_last", "since_published", "newer_ids"),
    "reader": (
        *("reader_shown", "reader_clicked", "reader_since", "in_session"),
        *("in_list_before", "in_history"),
    ),
    "page": ("is_page", "page_clicked", "page_rate", "after_click"),
    "list": (
        *("ln_length", "length_difference", "front_page", "device_1", "device_2", "device_3"),
        *("hour_sine", "hour_cosine", "ln_history", "reader_lists", "share_before"),
        *("since_list", "activity", "compared"),
    ),
}
NAMES = tuple(name for names in GROUPS.values() for name in names)
PLACES = {name: place for place, name in enumerate(NAMES)}
OF_LIST = len(GROUPS["list"])  # these come last
COMPARED = PLACES["compared"]  # 1 where all of the list are compared with this candidate
# Raised by each change that moves a feature, so that no model reads others than its own.
VERSION = 1


@dataclass(frozen=True)
class Request:
    """What is known of n lists with c candidates beside their events.

    Attributes:
        published: when each candidate was published, microseconds since 1970, int64 `(c,)`; the
            least int64 where it is not known.
        in_history: whether it is in its reader's history, bool `(c,)`.
        history: length of each reader's history, int64 `(n,)`.
        device: `device_type`, int64 `(n,)`; 0 where it is not known.
    """

    published: np.ndarray
    in_history: np.ndarray
    history: np.ndarray
    device: np.ndarray

    @classmethod
    def unknown(cls, lists: int, candidates: int) -> Request:
        """Nothing is known."""
        none = np.zeros(lists, np.int64)
        return cls(np.full(candidates, NO_ID), np.zeros(candidates, bool), none, none)

    def take(self, rows: np.ndarray, places: np.ndarray) -> Request:
        """What is known of the lists `rows`, whose candidates stand at `places`."""
        return Request(
            self.published[places], self.in_history[places], self.history[rows], self.device[rows]
        )


def features(state: State, events: Events, lists: Events, request: Request) -> np.ndarray:
    """The features of each candidate: float32 `(c, features)`, see `NAMES`.

    Args:
        state: what had happened before all lists and events.
        events: what happened since; a list knows of what happened before it, less a delay.
        lists: the lists.
        request: what is known of them beside.
    """
    out = np.zeros((len(lists.article), len(NAMES)), np.float32)
    for counts in scan(state, events, lists):
        _, places = list_places(lists.offsets, counts.rows)
        found = _features(counts, request.take(counts.rows, places))
        for start in range(0, len(places), _ROWS):
            part = slice(start, start + _ROWS)
            rows = np.empty((len(places[part]), len(NAMES)), np.float32)
            for column, name in enumerate(NAMES):
                rows[:, column] = found[name][part]
            # TensorFlow takes the smallest floats for 0, and ONNX Runtime does not: what has all
            # but decayed would rank before nothing in one of them only.
            rows[np.abs(rows) < _NOTHING] = 0
            out[places[part]] = rows
    return out


def _features(counts: Counts, request: Request) -> dict[str, np.ndarray]:
    lists, candidates = counts.lists, len(counts.lists.article)
    owner, lengths = list_rows(lists.offsets), np.diff(lists.offsets)
    found: dict[str, np.ndarray] = {}

    shown, clicked, ln_length = counts.article.sums.reshape(3, _H, candidates)
    rate = (clicked + 0.72) / (shown + 8)
    _fill(found, "shown", np.log1p(shown))
    _fill(found, "clicked", np.log1p(clicked))
    _fill(found, "rate", rate)
    ln_n = np.log(np.maximum(lengths, 1))
    # An article that was never shown has the depth of the list that it stands in.
    depth = np.where(shown > 1e-9, ln_length / np.maximum(shown, 1e-9), ln_n[owner])
    _fill(found, "depth", depth)
    _fill(found, "depth_difference", depth - ln_n[owner])
    compared = counts.compare(shown, rate, depth)
    for name, values in zip(pairs.NAMES, compared.values, strict=True):
        _fill(found, name, values)

    time = lists.time[owner]
    first_shown = counts.article.there
    found["since_first"] = _ln_seconds(time - counts.article.start, first_shown)
    found["since_last"] = _ln_seconds(time - counts.article.last, first_shown)
    published = np.where(request.published == NO_ID, counts.article.start, request.published)
    known = (request.published != NO_ID) | first_shown
    found["since_published"] = _ln_seconds(time - published, known)
    found["newer_ids"] = _newer_ids(counts, owner)

    before, now = counts.reader.last, lists.time
    found["reader_shown"] = np.log1p(counts.shown.sums[0])
    found["reader_clicked"] = np.log1p(counts.clicked.sums[0])
    found["reader_since"] = _ln_seconds(time - counts.shown.last, counts.shown.there)
    running = counts.session.there[owner] & counts.shown.there
    found["in_session"] = running & (counts.shown.last >= counts.session.start[owner])
    held = counts.shown.there & (counts.shown.last == before[owner])
    found["in_list_before"] = held + (
        counts.clicked.there & (counts.clicked.last == before[owner])
    ).astype(float)
    found["in_history"] = request.in_history

    on_page = lists.page >= 0
    found["is_page"] = on_page[owner] & (lists.article == lists.page[owner])
    page = np.where(on_page[owner], counts.page.sums, 0)
    found["page_clicked"] = np.log1p(page[1])
    found["page_rate"] = (page[1] + 0.72) / (page[0] + 8)
    found["after_click"] = compared.beside / np.maximum(counts.previous[owner], 1e-9)

    shown_lists, lengths_before, activity = counts.reader.sums
    mean_length = np.where(shown_lists > 0, lengths_before / np.maximum(shown_lists, 1), ln_n)
    hour = now % (24 * HOUR) / (24 * HOUR) * 2 * np.pi
    sizes = np.maximum(lengths, 1)
    found["compared"] = compared.compared
    of_list = {
        "ln_length": ln_n,
        "length_difference": ln_n - mean_length,
        "front_page": ~on_page,
        **{f"device_{device}": request.device == device for device in (1, 2, 3)},
        "hour_sine": np.sin(hour),
        "hour_cosine": np.cos(hour),
        "ln_history": np.log1p(request.history),
        "reader_lists": np.log1p(shown_lists),
        "share_before": np.bincount(owner, held, minlength=len(lists)) / sizes,
        "since_list": _ln_seconds(now - before, counts.reader.there),
        "activity": np.log1p(activity),
    }
    found |= {name: np.asarray(values, float)[owner] for name, values in of_list.items()}
    return found


def _fill(found: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    for label, row in zip(_LABELS, values, strict=True):
        found[f"{name}_{label}"] = row


def _ln_seconds(microseconds: np.ndarray, known: np.ndarray) -> np.ndarray:
    """ln(1 + seconds); where it is not known, that of a month."""
    seconds = np.where(known, np.maximum(microseconds, 0) / _SECOND, 30 * 24 * HOUR / _SECOND)
    return np.log1p(seconds)


def _newer_ids(counts: Counts, owner: np.ndarray) -> np.ndarray:
    ids = counts.lists.articles
    newest = counts.newest[owner]
    if not len(ids) or not pa.types.is_integer(ids.type):
        return np.zeros(len(owner))
    own = ids.to_numpy()[counts.lists.article]
    # Differences of floats, since those of the largest ids do not fit into int64.
    difference = np.maximum(newest.astype(float) - own.astype(float), 0)
    return np.where(newest == NO_ID, 0, np.log1p(difference))
