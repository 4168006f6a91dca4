"""Counts at the moment of each list: what a state holds, and what happened since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nrms.data.columns import list_rows
from nrms.features.context.events import NO_PAGE, Events
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
    triangle,
)
from nrms.features.context.table import DAY, Found, Kind, pair_key, unordered_key

# Lists are worked on in chunks of so many pairs, which bounds memory, and of so much time, which
# keeps the weights of events within what a float can hold.
_PAIRS = 250_000
_SPAN = 7 * DAY
_PairsAt = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Group:
    """Lists of the same length, m of them with n candidates, each compared with p partners: all of
    its list, or those of it that were shown most.

    Attributes:
        places: the candidates, int64 `(m, n)`, places in the chunk.
        partners: the partners, int64 `(m, p)`, positions in the list.
        other: bool `(m, n, p)`, False where candidate and partner are the same article.
        together: lists that held both, float64 `(half-lives, m, n, p)`.
        won: of these, those in which the candidate was clicked.
        lost: those in which the partner was clicked.
    """

    places: np.ndarray
    partners: np.ndarray
    other: np.ndarray
    together: np.ndarray
    won: np.ndarray
    lost: np.ndarray


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
        after: lists with the reader's last clicked article that held the candidate, and all lists
            with this article, float64 `(2, c)`.
        newest: highest id that had been shown, int64 `(n,)`; `state.NO_ID` where there is none.
        groups: counts of pairs.
    """

    lists: Events
    rows: np.ndarray
    article: Found
    page: Found
    shown: Found
    clicked: Found
    reader: Found
    session: Found
    after: np.ndarray
    newest: np.ndarray
    groups: list[Group]


def scan(state: State, events: Events, lists: Events) -> Iterator[Counts]:
    """The counts before each list, in chunks.

    Args:
        state: what had happened before all lists and events.
        events: what happened since, in any order; mostly `lists` themselves.
        lists: what to count for, in any order. Their clicks are not read.
    """
    order = np.argsort(lists.time, kind="stable")
    lists, longest = lists.take(order), state.rules.longest
    events = Events.joined([state.pending, events.distinct()])
    start = counted = 0
    for stop in _chunks(lists):
        chunk = lists.cut(start, stop)
        happened = int(np.searchsorted(events.time, chunk.time[-1]))
        # What all lists from here on may know of is counted into the state.
        ready = int(np.searchsorted(events.time[:happened], chunk.time[0] - longest))
        if start and ready > counted:
            state = _counted(state, events.cut(counted, ready), int(chunk.time[0]) - longest)
            counted = ready
        yield _counts(state, events.cut(counted, happened), chunk, order[start:stop])
        start = stop


def _counted(state: State, events: Events, time: int) -> State:
    return replace(state, pending=events).decayed(time)


def _chunks(lists: Events) -> Iterator[int]:
    """Where chunks of lists, which are in the order of time, end."""
    work = np.cumsum(np.diff(lists.offsets) ** 2)
    start = 0
    while start < len(lists):
        done = work[start - 1] if start else 0
        stop = int(np.searchsorted(work, done + _PAIRS, side="right"))
        stop = min(stop, int(np.searchsorted(lists.time, lists.time[start] + _SPAN)))
        start = max(stop, start + 1)
        yield start


def _counts(state: State, events: Events, lists: Events, rows: np.ndarray) -> Counts:
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

    happened = Happened(events, articles, readers, rules, zero, wanted, asked)

    def at(kind: Kind, key: np.ndarray, list_of: np.ndarray) -> Found:
        base, runs = state.tables[kind.name], happened.runs(kind)
        return runs.at(base, state.time, key, list_of, time, seen[kind.of_reader])

    every = np.arange(len(lists))
    last_click = at(LAST_CLICKS, reader, every).value
    assert last_click is not None
    has_clicked = last_click >= 0
    wanted[last_click[has_clicked]] = True  # pairs with this article are asked for as well

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
    after = np.zeros((2, len(code)))
    rows_after = np.flatnonzero(has_clicked[owner])
    if len(rows_after):
        list_of = owner[rows_after]
        previous = last_click[list_of]
        same = previous == code[rows_after]
        both = pairs_at(previous, code[rows_after], list_of)[0, -1]
        alone = at(ARTICLES, previous, list_of).sums[len(HALF_LIVES) - 1]
        after[0, rows_after] = np.where(same, alone, both)
        after[1, rows_after] = alone
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
        after,
        np.maximum(newest, state.newest),
        list(_groups(lists, code, article, pairs_at, rules.max_list)),
    )


def _groups(
    lists: Events, code: np.ndarray, article: Found, pairs_at: _PairsAt, max_list: int
) -> Iterator[Group]:
    lengths = np.diff(lists.offsets)
    for length in np.unique(lengths[lengths > 0]):
        chosen = np.flatnonzero(lengths == length)
        places = lists.offsets[chosen, None] + np.arange(length)
        if length > max_list:
            for row in chosen:
                yield _long(int(row), lists, code, article, pairs_at, max_list)
            continue
        first, second = triangle(int(length))
        left, right = places[:, first], places[:, second]
        found = pairs_at(code[left.ravel()], code[right.ravel()], np.repeat(chosen, len(first)))
        found = found.reshape(3, len(HALF_LIVES), len(chosen), len(first))
        square = np.zeros((3, len(HALF_LIVES), len(chosen), length, length))
        square[..., first, second] = found
        square[..., second, first] = found[[0, 2, 1]]
        codes = code[places]
        yield Group(
            places,
            np.broadcast_to(np.arange(length), places.shape),
            codes[:, :, None] != codes[:, None, :],
            *square,
        )


def _long(
    row: int,
    lists: Events,
    code: np.ndarray,
    article: Found,
    pairs_at: _PairsAt,
    max_list: int,
) -> Group:
    """A list that is too long for all its pairs: each candidate beside those that were shown most
    in the last day, of equals those whose ids come last, which are mostly the newest.
    """
    places = np.arange(lists.offsets[row], lists.offsets[row + 1])
    codes = code[places]
    by_id = np.argsort(np.array(lists.articles.to_pylist(), object)).argsort()
    exposed = article.sums[len(HALF_LIVES) - 1, places]
    partners = np.lexsort((by_id[lists.article[places]], exposed))[::-1][:max_list]
    first = np.repeat(codes, max_list)
    second = np.tile(codes[partners], len(codes))
    found = pairs_at(first, second, np.full(len(first), row))
    found = found.reshape(3, len(HALF_LIVES), 1, len(codes), max_list)
    other = codes[:, None] != codes[partners]
    found = np.where(other, found, 0)
    return Group(places[None], partners[None], other[None], *found)
