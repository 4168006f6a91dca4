"""Counts at the moment of each list: what a state holds, and what happened since."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nrms.data.columns import list_rows
from nrms.features.context.events import NO_PAGE, Events
from nrms.features.context.pairs import Asked, Compared, compare, pair_counts
from nrms.features.context.state import (
    ARTICLES,
    CLICKED,
    HALF_LIVES,
    LAST_CLICKS,
    NO_ID,
    PAGES,
    PAIRS,
    READERS,
    SESSIONS,
    SHOWN,
    Happened,
    State,
)
from nrms.features.context.table import DAY, Found, Kind, pair_key, unordered_key

# Lists are worked on in chunks of so many pairs, which bounds memory, and of so much time, which
# keeps the weights of events within what a float can hold.
_PAIRS = 250_000
_SPAN = 7 * DAY
_HASHED_PAIRS = 1_000_000  # of a chunk where pairs are hashed, which takes little memory for each
_ByHash = Callable[[Asked, np.ndarray], Compared]  # see `compiled_pairs.HashedPairs.compare`


@dataclass(frozen=True)
class Counts:
    """What had happened before each of n lists with c candidates.

    Attributes:
        lists: the lists.
        rows: which of the asked lists they are, int64 `(n,)`.
        article: counts of each candidate.
        page: its counts on the page on which the list stands.
        shown: how often its reader was shown it.
        clicked: how often its reader clicked on it.
        reader: counts of each list's reader.
        session: the reader's running session.
        previous: lists with the article that its reader clicked last, by the longest half-life,
            float64 `(n,)`.
        newest: highest id that had been shown, int64 `(n,)`; `state.NO_ID` where there is none.
        compare: how its candidates compare, of what was shown, and the rates and depths of the
            candidates, see `pairs.Asked`.
    """

    lists: Events
    rows: np.ndarray
    article: Found
    page: Found
    shown: Found
    clicked: Found
    reader: Found
    session: Found
    previous: np.ndarray
    newest: np.ndarray
    compare: Callable[[np.ndarray, np.ndarray, np.ndarray], Compared]


def scan(state: State, events: Events, lists: Events) -> Iterator[Counts]:
    """The counts before each list, in chunks.

    Args:
        state: what had happened before all lists and events.
        events: what happened since, in any order; mostly `lists` themselves.
        lists: what to count for, in any order. Their clicks are not read.
    """
    order, state = np.argsort(lists.time, kind="stable"), state.named
    lists, longest = lists.take(order), state.rules.longest
    if not len(events) and _is_request(state, lists):
        yield _counts(state, state.pending, lists, order, None)
        return
    events = Events.joined([state.pending, events.distinct()])
    hashed = state.hashed_pairs(events, lists)
    if hashed is not None:
        state = state.without_pairs()
    start = counted = 0
    for stop in _chunks(lists, _PAIRS if hashed is None else _HASHED_PAIRS):
        chunk = lists.cut(start, stop)
        happened = int(np.searchsorted(events.time, chunk.time[-1]))
        # What all lists from here on may know of is counted into the state.
        ready = int(np.searchsorted(events.time[:happened], chunk.time[0] - longest))
        if start and ready > counted:
            state = _counted(state, events.cut(counted, ready), int(chunk.time[0]) - longest)
            counted = ready
        by_hash = None if hashed is None else functools.partial(hashed.compare, first=counted)
        since = events.cut(counted, happened)
        yield _counts(state, since, chunk, order[start:stop], by_hash)
        start = stop


def _is_request(state: State, lists: Events) -> bool:
    """Whether what is pending need not be counted for these lists alone."""
    return (
        len(lists) > 0
        and pair_counts(lists)[-1] <= _PAIRS
        and state.pending.time.max(initial=state.time) - lists.time[0] <= _SPAN
    )


def _counted(state: State, events: Events, time: int) -> State:
    return replace(state, pending=events).decayed(time)


def _chunks(lists: Events, most: int) -> Iterator[int]:
    """Where chunks of so many pairs end, of lists in the order of time."""
    work = pair_counts(lists)
    start = 0
    while start < len(lists):
        done = work[start - 1] if start else 0
        stop = int(np.searchsorted(work, done + most, side="right"))
        stop = min(stop, int(np.searchsorted(lists.time, lists.time[start] + _SPAN)))
        start = max(stop, start + 1)
        yield start


def _counts(
    state: State, events: Events, lists: Events, rows: np.ndarray, by_hash: _ByHash | None
) -> Counts:
    rules = state.rules
    articles = state.articles.extended(events.articles).extended(lists.articles)
    readers = state.readers.extended(events.readers).extended(lists.readers)
    codes = articles.codes(lists.articles)
    code, reader = codes[lists.article], readers.codes(lists.readers)[lists.reader]
    wanted, asked = np.zeros(len(articles), bool), np.zeros(len(readers), bool)
    wanted[code], asked[reader] = True, True

    time, owner = lists.time, list_rows(lists.offsets)
    zero = max(state.time, int(time[-1]))
    seen = {
        False: np.searchsorted(events.time + rules.event, time),
        True: np.searchsorted(events.time + rules.reader, time),
    }
    pages = np.where(lists.page == NO_PAGE, NO_PAGE, codes[lists.page])

    if events is state.pending:
        happened = state.happened
    else:
        happened = Happened(events, articles, readers, rules, zero, wanted, asked)

    def at(kind: Kind, key: np.ndarray, list_of: np.ndarray) -> Found:
        base, runs = state.tables[kind.name], happened.runs(kind)
        return runs.at(base, state.time, key, list_of, time, seen[kind.of_reader])

    every = np.arange(len(lists))
    last_click = at(LAST_CLICKS, reader, every).value
    assert last_click is not None
    has_clicked = last_click >= 0
    wanted[last_click[has_clicked]] = True  # pairs with this article are asked for as well
    previous = np.zeros(len(lists))
    previous[has_clicked] = at(ARTICLES, last_click[has_clicked], every[has_clicked]).sums[
        len(HALF_LIVES) - 1
    ]

    def pairs_at(first: np.ndarray, second: np.ndarray, list_of: np.ndarray) -> np.ndarray:
        """What is known of pairs of codes: float64 `(3, half-lives, q)`: lists with both, and with
        a click on the first and on the second.
        """
        key = unordered_key(first, second)
        found = at(PAIRS, key, list_of).sums.reshape(3, len(HALF_LIVES), len(key))
        return np.where(first > second, found[[0, 2, 1]], found)

    article = at(ARTICLES, code, owner)
    before = np.searchsorted(events.time + rules.event, time)
    newest = np.append(NO_ID, happened.newest)[before]

    def compared(shown: np.ndarray, rate: np.ndarray, depth: np.ndarray) -> Compared:
        asked = Asked(lists, code, last_click, shown, rate, depth, rules.max_list)
        return compare(asked, pairs_at) if by_hash is None else by_hash(asked, seen[False])

    page_of = pages[owner]
    return Counts(
        lists,
        rows,
        article,
        at(PAGES, pair_key(np.maximum(page_of, 0), code), owner),
        at(SHOWN, pair_key(reader[owner], code), owner),
        at(CLICKED, pair_key(reader[owner], code), owner),
        at(READERS, reader, every),
        at(SESSIONS, reader, every),
        previous,
        np.maximum(newest, state.newest),
        compared,
    )
