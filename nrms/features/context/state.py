"""The state of the moment: all that the features know of what happened before.

It is a small algebra: `state.decayed(time)` is the state later on, and `state + delta` the state
after what `delta` has counted, so a split's shards are counted apart and joined in their order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from nrms.data.columns import list_rows
from nrms.features.context.events import NO_PAGE, Events
from nrms.features.context.pairs import all_pairs, compiled, pair_counts
from nrms.features.context.table import (
    DAY,
    FOREVER,
    HOUR,
    MINUTE,
    Kind,
    Records,
    Runs,
    Table,
    Timeline,
    pair_key,
    unordered_key,
    unpaired,
)
from nrms.features.context.vocabulary import EMPTY, Vocabulary

if TYPE_CHECKING:
    from nrms.features.context.compiled_pairs import HashedPairs

HALF_LIVES = (HOUR / 2, 4 * HOUR, 24 * HOUR)
KEPT_DAYS = 7
# More pairs than this are counted faster in a hash table, though all of the state's go in first.
_MANY_PAIRS = 250_000
SESSION = 30 * MINUTE  # a reader who comes back later begins a new session
_KEPT = KEPT_DAYS * DAY
NO_ID = -(2**63)


def _each(*weights: str) -> tuple[tuple[str, float], ...]:
    return tuple((weight, half_life) for weight in weights for half_life in HALF_LIVES)


_A, _R, _DAY_LONG = "articles", "readers", HALF_LIVES[-1]
ARTICLES = Kind("articles", (_A,), _each("shown", "clicked", "ln_length"), _KEPT)
PAIRS = Kind("pairs", (_A, _A), _each("shown", "first_clicked", "second_clicked"), _KEPT, True)
PAGES = Kind("pages", (_A, _A), (("shown", _DAY_LONG), ("clicked", _DAY_LONG)), _KEPT)
READERS = Kind(
    "readers", (_R,), (("shown", FOREVER), ("ln_length", FOREVER), ("shown", _DAY_LONG)), _KEPT
)
SESSIONS = Kind("sessions", (_R,), (), SESSION)
LAST_CLICKS = Kind("last_clicks", (_R,), (), _KEPT)  # the value is the article
SHOWN = Kind("shown", (_R, _A), (("shown", FOREVER),), _KEPT)
CLICKED = Kind("clicked", (_R, _A), (("clicked", FOREVER),), _KEPT)
KINDS = (ARTICLES, PAIRS, PAGES, READERS, SESSIONS, LAST_CLICKS, SHOWN, CLICKED)


@dataclass(frozen=True)
class Delays:
    """How long it takes until what happened is known, in microseconds.

    Attributes:
        event: until it counts for articles, pairs and pages.
        reader: until it counts for the reader to whom it happened.
        readers: whether anything is kept of readers.
        clicks: whether clicks count. Without them only what was shown does.
        max_list: longest list whose pairs are counted.
    """

    event: int = MINUTE
    reader: int = 0
    readers: bool = True
    clicks: bool = True
    max_list: int = 256

    @property
    def longest(self) -> int:
        """The longer of the delays."""
        return max(self.event, self.reader)


@dataclass(frozen=True)
class State:
    """What had happened before a time.

    Attributes:
        rules: how events count.
        time: the tables hold all that happened before this time, microseconds since 1970 in UTC.
        articles: the articles that the tables' keys name.
        readers: the readers that they name.
        tables: by name, as they are at `time`.
        pending: what happened since. It is not counted yet, because it may not be known yet.
        newest: the highest id of an article that was shown, where ids are numbers.
        position: rows of an event log (`nrms.events.log`) up to here are in it.
    """

    rules: Delays
    time: int = 0
    articles: Vocabulary = EMPTY
    readers: Vocabulary = EMPTY
    tables: Mapping[str, Table] = field(
        default_factory=lambda: {kind.name: Table.empty(kind) for kind in KINDS}
    )
    pending: Events = field(default_factory=Events.empty)
    newest: int = NO_ID
    position: int = 0

    @classmethod
    def of(cls, events: Events, rules: Delays) -> State:
        """What these events did, counted from nothing: the delta of a shard."""
        return cls(rules, pending=events.distinct().in_order()).settled()

    def __len__(self) -> int:
        """The number of keys of all tables, and of lists that are pending."""
        return sum(len(table) for table in self.tables.values()) + len(self.pending)

    @property
    def latest(self) -> int:
        """The time of the last event that it may hold."""
        counted = self.time + self.rules.longest
        return max(counted, int(self.pending.time.max())) if len(self.pending) else counted

    @functools.cached_property
    def named(self) -> State:
        """The same state, whose ids are those of what is pending as well."""
        articles = self.articles.extended(self.pending.articles)
        readers = self.readers.extended(self.pending.readers)
        return replace(self, articles=articles, readers=readers)

    @functools.cached_property
    def happened(self) -> Happened:
        """What is pending, for all requests until the next event. Only of a state that is `named`:
        an article that it does not name has nothing pending.
        """
        zero = max(self.time, int(self.pending.time.max(initial=0)))
        return Happened(self.pending, self.articles, self.readers, self.rules, zero)

    def settled(self) -> State:
        """The same state; of what is pending it has counted all that everyone may know of."""
        if not len(self.pending):
            return self
        return self.decayed(int(self.pending.time[-1]) - self.rules.longest)

    def decayed(self, to: int) -> State:
        """The state at a later time. At an earlier one it is the same."""
        return self._at(to)._kept()

    def _at(self, to: int) -> State:
        to = max(to, self.time)
        ready = int(np.searchsorted(self.pending.time, to))
        counted, pending = self.pending.cut(0, ready), self.pending.cut(ready, len(self.pending))
        later = to - self.time
        tables = {kind.name: self.tables[kind.name].decayed(kind, later) for kind in self.kinds}
        state = replace(self, time=to, tables=tables, pending=pending)
        return state._with(counted) if ready else state

    def __add__(self, later: State) -> State:
        """The state after what `later` has counted, of events that are not before this one's."""
        assert self.rules == later.rules, "states of other rules cannot be added"
        time = max(self.time, later.time)
        first, second = self._at(time), later._at(time)
        articles = first.articles.extended(second.articles.ids)
        readers = first.readers.extended(second.readers.ids)
        codes = {_A: articles.codes(second.articles.ids), _R: readers.codes(second.readers.ids)}
        tables = {
            kind.name: first.tables[kind.name].plus(
                kind, _recoded(second.tables[kind.name], kind, codes)
            )
            for kind in KINDS
        }
        return State(
            self.rules,
            time,
            articles,
            readers,
            tables,
            Events.joined([first.pending, second.pending]),
            max(first.newest, second.newest),
            max(first.position, second.position),
        )._kept()

    def capped(self, keys: int) -> State:
        """The state with so many keys at most. The largest tables lose the most, each the keys
        whose last event is the oldest; what is pending counts and stays.
        """
        if len(self) <= keys:
            return self
        left, sizes = max(0, keys - len(self.pending)), sorted(map(len, self.tables.values()))
        for number, size in enumerate(sizes):
            most = left // (len(sizes) - number)
            if size > most:
                break
            left -= size
        tables = {name: table.newest(most) for name, table in self.tables.items()}
        return replace(self, tables=tables)

    def compact(self) -> State:
        """The same state without the ids that nothing is known of any more."""
        used = {_A: np.zeros(len(self.articles), bool), _R: np.zeros(len(self.readers), bool)}
        for kind in KINDS:
            table = self.tables[kind.name]
            for of, code in zip(reversed(kind.keys), reversed(unpaired(table.key)), strict=False):
                used[of][code] = True
        last_clicks = self.tables[LAST_CLICKS.name].value
        used[_A][last_clicks] = True
        codes = {of: np.cumsum(mask) - 1 for of, mask in used.items()}
        tables = {kind.name: _recoded(self.tables[kind.name], kind, codes) for kind in KINDS}
        pending = self.pending.compact()
        return replace(
            self,
            articles=Vocabulary(self.articles.ids.filter(pa.array(used[_A]))),
            readers=Vocabulary(self.readers.ids.filter(pa.array(used[_R]))),
            tables=tables,
            pending=pending,
        )

    def hashed_pairs(self, events: Events, lists: Events) -> HashedPairs | None:
        """The table of pairs as events go by, for lists with many pairs; None for others, or where
        Numba is not installed.
        """
        if pair_counts(lists)[-1:].sum() <= _MANY_PAIRS or (module := compiled()) is None:
            return None
        code = self.articles.extended(events.articles).codes(events.articles)
        table, rules = self.tables[PAIRS.name], self.rules
        return module.HashedPairs(
            PAIRS, table, self.time, events, code, rules.clicks, rules.max_list
        )

    def without_pairs(self) -> State:
        """The state without its table of pairs, for one whose pairs are hashed."""
        tables = {name: table for name, table in self.tables.items() if name != PAIRS.name}
        return replace(self, tables=tables)

    @property
    def kinds(self) -> list[Kind]:
        """Those of its tables."""
        return [kind for kind in KINDS if kind.name in self.tables]

    def _kept(self) -> State:
        """The state without what is forgotten. Last, since what is added may keep a key."""
        tables = {kind.name: self.tables[kind.name].kept(kind, self.time) for kind in self.kinds}
        return replace(self, tables=tables)

    def _with(self, events: Events) -> State:
        """This state with events before its time counted."""
        articles = self.articles.extended(events.articles)
        readers = self.readers.extended(events.readers)
        happened = Happened(events, articles, readers, self.rules, self.time)
        tables = {kind.name: self._counted(kind, happened, events) for kind in self.kinds}
        newest = max(self.newest, int(happened.newest.max(initial=NO_ID)))
        return replace(self, articles=articles, readers=readers, tables=tables, newest=newest)

    def _counted(self, kind: Kind, happened: Happened, events: Events) -> Table:
        hashed = self.hashed_pairs(events, events) if kind is PAIRS else None
        if hashed is not None:
            return hashed.table(self.time)
        return self.tables[kind.name].plus(kind, happened.runs(kind).table(self.time))


class Happened:
    """Events in the codes of a state, as records of each table.

    Args:
        events: in the order of time, no article twice in a list.
        articles: has all their articles.
        readers: has all their readers.
        rules: how they count.
        zero: a time not before the last one.
        wanted: whether an article is asked for, bool `(articles,)`; None where all are.
        asked: the same of readers.
    """

    def __init__(
        self,
        events: Events,
        articles: Vocabulary,
        readers: Vocabulary,
        rules: Delays,
        zero: int,
        wanted: np.ndarray | None = None,
        asked: np.ndarray | None = None,
    ) -> None:
        self.timeline = Timeline(events.time, zero)
        self._rules, self._width = rules, len(articles)
        codes = articles.codes(events.articles)
        length = np.diff(events.offsets)
        self._ln_length = np.log(np.maximum(length, 1))
        self._short = length <= rules.max_list
        self._reader = readers.codes(events.readers)[events.reader]
        self._page = np.where(events.page < 0, NO_PAGE, codes[events.page])
        self.newest = _newest(events)
        self._exposed = events.exposed
        self._row, self._article = list_rows(events.offsets), codes[events.article]
        self._was_clicked = events.clicked if rules.clicks else np.zeros(len(self._article), bool)
        self._wanted, self._asked = wanted, asked
        self._runs: dict[str, Runs] = {}

    def runs(self, kind: Kind) -> Runs:
        """What happened to the keys of a table."""
        if kind.name not in self._runs:
            records = _RECORDS[kind.name](self)
            self._runs[kind.name] = Runs(kind, records, self.timeline, self._width)
        return self._runs[kind.name]

    @functools.cached_property
    def _of_articles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._wanted is None:
            return self._row, self._article, self._was_clicked
        mask = self._wanted[self._article]
        return self._row[mask], self._article[mask], self._was_clicked[mask]

    @functools.cached_property
    def _lists(self) -> np.ndarray:
        every = np.arange(len(self._reader) if self._rules.readers else 0)
        return every if self._asked is None else every[self._asked[self._reader[every]]]

    @functools.cached_property
    def _of_readers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        listed = np.zeros(len(self._reader), bool)
        listed[self._lists] = True
        mask = listed[self._row]
        return self._row[mask], self._article[mask], self._was_clicked[mask]

    def _articles(self) -> Records:
        row, article, clicked = self._of_articles
        shown = self._exposed[row]
        ln_length = self._ln_length[row] * shown
        return Records(article, row, {"shown": shown, "clicked": clicked, "ln_length": ln_length})

    def _pairs(self) -> Records:
        row, article, clicked = self._of_articles
        short = self._short[row]
        row, article, clicked = row[short], article[short], clicked[short]
        offsets = np.searchsorted(row, np.arange(len(self.timeline.time) + 1))
        first, second = all_pairs(offsets)
        swapped = article[first] > article[second]
        first, second = np.where(swapped, second, first), np.where(swapped, first, second)
        return Records(
            pair_key(article[first], article[second]),
            row[first],
            {
                "shown": self._exposed[row[first]],
                "first_clicked": clicked[first],
                "second_clicked": clicked[second],
            },
        )

    def _pages(self) -> Records:
        row, article, clicked = self._of_articles
        on_page = self._page[row] != NO_PAGE
        row, article = row[on_page], article[on_page]
        weights = {"shown": self._exposed[row], "clicked": clicked[on_page]}
        return Records(pair_key(self._page[row], article), row, weights)

    def _readers(self) -> Records:
        lists = self._lists[self._exposed[self._lists]]
        return Records(self._reader[lists], lists, {"ln_length": self._ln_length[lists]})

    def _last_clicks(self) -> Records:
        row, article, clicked = self._of_readers
        row, article = row[clicked], article[clicked]
        return Records(self._reader[row], row, {}, article)

    def _shown(self) -> Records:
        row, article, _ = self._of_readers
        row, article = row[self._exposed[row]], article[self._exposed[row]]
        return Records(pair_key(self._reader[row], article), row, {})

    def _clicked(self) -> Records:
        row, article, clicked = self._of_readers
        row, article = row[clicked], article[clicked]
        return Records(pair_key(self._reader[row], article), row, {})


_RECORDS: dict[str, Callable[[Happened], Records]] = {
    "articles": Happened._articles,
    "pairs": Happened._pairs,
    "pages": Happened._pages,
    "readers": Happened._readers,
    "sessions": Happened._readers,
    "last_clicks": Happened._last_clicks,
    "shown": Happened._shown,
    "clicked": Happened._clicked,
}


def alike(state: State, events: Events) -> tuple[State, Events]:
    """A state and events whose ids have the same types. Where they are integers in one and texts in
    the other, all become texts: who was reader 7 when the model was trained may be "7" for the
    site.
    """
    pending = state.pending
    articles, readers = state.articles, state.readers
    if len(events.articles):
        own, other = _alike(articles.ids, events.articles)
        events = replace(events, articles=other)
        if own is not articles.ids:
            articles = Vocabulary(own)
            pending = replace(pending, articles=pending.articles.cast(own.type))
    if len(events.readers):
        own, other = _alike(readers.ids, events.readers)
        events = replace(events, readers=other)
        if own is not readers.ids:
            readers = Vocabulary(own)
            pending = replace(pending, readers=pending.readers.cast(own.type))
    if pending is not state.pending:
        state = replace(state, articles=articles, readers=readers, pending=pending)
    return state, events


def _alike(first: pa.Array, second: pa.Array) -> tuple[pa.Array, pa.Array]:
    if pa.types.is_integer(first.type) == pa.types.is_integer(second.type):
        return first, second
    if pa.types.is_integer(first.type):
        return first.cast(second.type), second
    return first, second.cast(first.type)


def _newest(events: Events) -> np.ndarray:
    """The highest id up to each list, int64 `(n,)`; `NO_ID` where ids are no numbers."""
    newest = np.full(len(events), NO_ID)
    if pa.types.is_integer(events.articles.type) and len(events.article):
        ids = events.articles.to_numpy()[events.article]
        filled = np.flatnonzero(np.diff(events.offsets))
        newest[filled] = np.maximum.reduceat(ids, events.offsets[filled])
    return np.maximum.accumulate(newest)


def _recoded(table: Table, kind: Kind, codes: Mapping[str, np.ndarray]) -> Table:
    """The table with other codes of its articles and readers, given for each code of before."""
    if not len(table):
        return table
    if kind is LAST_CLICKS:
        table = replace(table, value=codes[_A][table.value])
    if len(kind.keys) == 1:
        return table.keyed(codes[kind.keys[0]][table.key])
    first, second = (
        codes[of][code] for of, code in zip(kind.keys, unpaired(table.key), strict=True)
    )
    if not kind.unordered:
        return table.keyed(pair_key(first, second))
    swapped = first > second
    if swapped.any():
        thirds = table.sums.reshape(3, len(HALF_LIVES), len(table))
        sums = np.where(swapped, thirds[[0, 2, 1]], thirds).reshape(table.sums.shape)
        table = replace(table, sums=sums)
    return table.keyed(unordered_key(first, second))
