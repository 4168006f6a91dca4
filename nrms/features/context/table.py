"""Sums with exponential decay, keyed by articles, pairs and readers.

A table is linear: what it holds at a time is what it held before, decayed, plus what happened
since. So tables of different times of the day are made apart and added. An event of time s adds
`weight * 2 ** -((t - s) / half_life)` to its key's sum at time t.

A key is forgotten when nothing happened to it for the table's `gap`. What happens to it later
starts a new run of the key, whose sums know nothing of those before. This is a rule of the sums,
not of the memory that they take: however the events are cut into tables, sums are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

MINUTE = 60_000_000  # microseconds
HOUR = 60 * MINUTE
DAY = 24 * HOUR
FOREVER = float("inf")
_LOW = (1 << 32) - 1
_LONGEST = 1 << 62
_FEW = 1000


@dataclass(frozen=True)
class Kind:
    """What a table counts.

    Attributes:
        name: its name in a snapshot.
        keys: what its keys are made of, one or two of `articles` and `readers`.
        sums: for each sum the name of the events' weight and its half-life in microseconds.
        gap: a key to which nothing happened for so long, in microseconds, is forgotten.
        unordered: whether a pair has the same key both ways.
    """

    name: str
    keys: tuple[str, ...]
    sums: tuple[tuple[str, float], ...]
    gap: int
    unordered: bool = False

    @property
    def of_reader(self) -> bool:
        """Whether its keys begin with a reader. Such events count after the readers' delay."""
        return self.keys[0] == "readers"

    @functools.cached_property
    def half_lives(self) -> tuple[np.ndarray, np.ndarray]:
        """The half-lives, each once, float64 `(h, 1)`, and which of them each sum has, int64."""
        found, of = np.unique([half_life for _, half_life in self.sums], return_inverse=True)
        return found.reshape(-1, 1), of


def unpaired(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes of `pair_key`."""
    return key >> 32, key & _LOW


def pair_key(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One int64 for two codes."""
    return (first << 32) | second


def unordered_key(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One int64 for two codes, the same both ways."""
    return pair_key(np.minimum(one, other), np.maximum(one, other))


@dataclass(frozen=True)
class Records:
    """What happened to keys.

    Attributes:
        key: int64 `(r,)`.
        row: the event, int64 `(r,)`, a row of a timeline that is in the order of time.
        weights: float64 or bool `(r,)` by name.
        value: int64 `(r,)`, of which a table keeps the last; None where it keeps none.
    """

    key: np.ndarray
    row: np.ndarray
    weights: Mapping[str, np.ndarray]
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Found:
    """What a table holds for queries, each at its own time.

    Attributes:
        sums: float64 `(sums, q)`; 0 where a key is not there.
        start: time of the first event of the key's run, int64 `(q,)`.
        last: time of its last event, int64 `(q,)`.
        value: value of its last event, int64 `(q,)`; None in a table without values.
        there: whether the key is there, bool `(q,)`. Without it the times are 0 and the value -1.
    """

    sums: np.ndarray
    start: np.ndarray
    last: np.ndarray
    value: np.ndarray | None
    there: np.ndarray

    @classmethod
    def where(
        cls,
        there: np.ndarray,
        sums: np.ndarray,
        start: np.ndarray,
        last: np.ndarray,
        value: np.ndarray | None,
    ) -> Found:
        """These where they are there. Sums must be 0 already where they are not."""
        value = None if value is None else np.where(there, value, -1)
        return cls(sums, start * there, last * there, value, there)


@dataclass(frozen=True)
class Table:
    """The last run of each key.

    Attributes:
        key: int64 `(k,)`, rising.
        sums: float64 `(sums, k)`, as they are at the time of the table's state.
        start: time of the run's first event, int64 `(k,)`.
        last: time of its last event, int64 `(k,)`.
        whole: whether the key had no run before, bool `(k,)`.
        value: of the last event, int64 `(k,)`; of events of the same time the highest.
    """

    key: np.ndarray
    sums: np.ndarray
    start: np.ndarray
    last: np.ndarray
    whole: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def empty(cls, kind: Kind) -> Table:
        """No keys."""
        none = np.empty(0, np.int64)
        return cls(none, np.empty((len(kind.sums), 0)), none, none, np.empty(0, bool), none)

    def take(self, rows: np.ndarray) -> Table:
        """These rows, by number or by mask."""
        return Table(
            self.key[rows],
            self.sums[:, rows],
            self.start[rows],
            self.last[rows],
            self.whole[rows],
            self.value[rows],
        )

    def at(
        self, kind: Kind, own_time: int, key: np.ndarray, row: np.ndarray, time: np.ndarray
    ) -> Found:
        """What keys hold at later times than the table's own; see `Runs.at`."""
        if not len(self):
            nothing, none = np.zeros_like(key), np.zeros((len(kind.sums), len(key)))
            return Found(none, nothing, nothing, nothing - 1, np.zeros(len(key), bool))
        place = np.minimum(np.searchsorted(self.key, key), len(self) - 1)
        last = self.last[place]
        there = (self.key[place] == key) & (time[row] - last <= kind.gap)
        half_lives, of = kind.half_lives
        factors = np.exp2((own_time - time) / half_lives)[:, row] * there
        sums = self.sums[:, place] * factors[of]
        return Found.where(there, sums, self.start[place], last, self.value[place])

    def decayed(self, kind: Kind, microseconds: int) -> Table:
        """The table so much later."""
        if not microseconds:
            return self
        factors = np.array([0.5 ** (microseconds / half_life) for _, half_life in kind.sums])
        return replace(self, sums=self.sums * factors.reshape(-1, 1))

    def kept(self, kind: Kind, now: int) -> Table:
        """The table without the keys that are forgotten at the time `now`."""
        kept = now - self.last <= kind.gap
        return self if kept.all() else self.take(kept)

    def newest(self, count: int) -> Table:
        """So many keys at most, those whose last event is the newest."""
        if len(self) <= count:
            return self
        return self.take(np.sort(np.argpartition(-self.last, count)[:count]))

    def keyed(self, key: np.ndarray) -> Table:
        """The same rows under other keys, in their order."""
        order = np.argsort(key)
        table = self.take(order)
        return Table(key[order], table.sums, table.start, table.last, table.whole, table.value)

    def plus(self, kind: Kind, later: Table) -> Table:
        """This table and one of later events. Both must be of the same time."""
        if not len(later):
            return self
        if not len(self):
            return later
        place = np.searchsorted(self.key, later.key)
        inside = np.minimum(place, len(self) - 1)
        known = np.flatnonzero(self.key[inside] == later.key)
        rows = inside[known]
        # What arrives so late that its run was over before this one began is not counted.
        over = self.start[rows] - later.last[known] > kind.gap
        known, rows = known[~over], rows[~over]
        joined = later.whole[known] & (later.start[known] - self.last[rows] <= kind.gap)
        start, last = self.start.copy(), self.last.copy()
        whole, value, sums = self.whole.copy(), self.value.copy(), self.sums.copy()
        start[rows] = np.where(
            joined, np.minimum(start[rows], later.start[known]), later.start[known]
        )
        older = (last[rows], value[rows])
        newer = (later.last[known], later.value[known])
        ahead = (older[0] > newer[0]) | ((older[0] == newer[0]) & (older[1] > newer[1]))
        ahead &= joined  # an event that arrives late changes no time of the last one
        last[rows] = np.where(ahead, older[0], newer[0])
        value[rows] = np.where(ahead, older[1], newer[1])
        whole[rows] &= joined
        sums[:, rows] = np.where(joined, sums[:, rows], 0) + later.sums[:, known]
        new = np.flatnonzero(self.key[inside] != later.key)
        # Where each row of the result stands in these rows followed by the later ones.
        source = np.empty(len(self) + len(new), np.int64)
        at = place[new] + np.arange(len(new))
        old = np.ones(len(source), bool)
        old[at] = False
        source[at] = len(self) + new
        source[old] = np.arange(len(self))
        return Table(
            np.concatenate([self.key, later.key])[source],
            np.concatenate([sums, later.sums], axis=1)[:, source],
            np.concatenate([start, later.start])[source],
            np.concatenate([last, later.last])[source],
            np.concatenate([whole, later.whole])[source],
            np.concatenate([value, later.value])[source],
        )


class Timeline:
    """The times of events, in their order.

    Args:
        time: microseconds, int64 `(n,)`, rising.
        zero: the time to which decay is reckoned inside; not before the last one.
    """

    def __init__(self, time: np.ndarray, zero: int) -> None:
        self.time = time
        self.zero = zero
        self.first = np.searchsorted(time, time)  # of rows of the same time the first
        self._growths: dict[float, np.ndarray] = {}

    def growth(self, half_life: float) -> np.ndarray:
        """What an event of each row weighs at `zero`, float64 `(n,)`."""
        if half_life not in self._growths:
            self._growths[half_life] = np.exp2((self.time - self.zero) / half_life)
        return self._growths[half_life]


class Runs:
    """Records in the order of key and time, from which sums at any time are read.

    Args:
        kind: the table's kind.
        records: what happened.
        timeline: the times of the events.
        width: a number above all codes in the keys' lower half.
    """

    def __init__(self, kind: Kind, records: Records, timeline: Timeline, width: int) -> None:
        self._kind, self._timeline, self._width = kind, timeline, max(1, width)
        self._rows = len(timeline.time) + 1
        row = timeline.first[records.row]
        place = self._places(records.key, row)
        order = np.argsort(place) if records.value is None else np.lexsort((records.value, place))
        self._place, self._row = place[order], row[order]
        self.key, self.time = records.key[order], timeline.time[self._row]
        self._weights = {name: weight[order] for name, weight in records.weights.items()}
        self.value = None if records.value is None else records.value[order]
        new_key = np.ones(len(order), bool)
        new_key[1:] = self.key[1:] != self.key[:-1]
        new_run = new_key.copy()
        new_run[1:] |= np.diff(self.time) > kind.gap
        self.starts = np.flatnonzero(new_run)
        self.of = np.cumsum(new_run) - 1
        self._opens_key = new_key[self.starts]

    def table(self, now: int) -> Table:
        """The table of all records at the time `now`."""
        if not len(self.key):
            return Table.empty(self._kind)
        ends = np.append(self.starts[1:], len(self.key)) - 1
        lasting = np.append(self._opens_key[1:], True)  # the last run of its key
        end, start = ends[lasting], self.starts[lasting]
        half_lives, of = self._kind.half_lives
        sums = self._prefixes[:, end] * np.exp2((self._timeline.zero - now) / half_lives)[of]
        last = self.time[end]
        return Table(
            self.key[end],
            sums,
            self.time[start],
            last,
            self._opens_key[lasting],
            np.full(len(end), -1) if self.value is None else self.value[end],
        )

    def at(
        self,
        base: Table,
        base_time: int,
        key: np.ndarray,
        row: np.ndarray,
        time: np.ndarray,
        seen: np.ndarray,
    ) -> Found:
        """What keys hold at times, with what happened before these records.

        Args:
            base: the table before, as it was at `base_time`.
            base_time: see `base`.
            key: int64 `(q,)`.
            row: the list that asks, int64 `(q,)`.
            time: the time of each list, int64 `(n,)`.
            seen: the number of the timeline's rows that each list may see, int64 `(n,)`.
        """
        kind = self._kind
        if not len(self.key):
            return base.at(kind, base_time, key, row, time)
        places = self._places(key, seen[row])
        # Many are sorted, since a search for rising values stays in the processor's cache.
        order = np.argsort(places) if len(key) > _FEW else slice(None)
        place, old = np.empty_like(key), np.empty_like(key)
        place[order] = np.searchsorted(self._place, places[order]) - 1
        old[order] = np.searchsorted(base.key, key[order])
        np.minimum(old, len(base) - 1, out=old)
        has = (place >= 0) & (self.key[place] == key)
        run = self.of[place]
        start, last = self.time[self.starts[run]], self.time[place]
        value = None if self.value is None else self.value[place]
        if len(base):
            old_last = base.last[old]
            joined = base.key[old] == key
            # What arrived so late that its run was over before that of the base is not counted.
            has &= ~(joined & (base.start[old] - last > kind.gap))
            near = self._opens_key[run] & (start - old_last <= kind.gap)
            joined &= ~has | near
            start = np.where(
                joined, np.where(has, np.minimum(start, base.start[old]), base.start[old]), start
            )
            ahead = joined & (~has | (old_last > last))
            if value is not None:
                ahead |= joined & (old_last == last) & (base.value[old] > value)
                value = np.where(ahead, base.value[old], value)
            last = np.where(ahead, old_last, last)
        else:
            joined = np.zeros(len(key), bool)
        there = (has | joined) & (time[row] - last <= kind.gap)
        half_lives, of = kind.half_lives
        factors = np.exp2((self._timeline.zero - time) / half_lives)[:, row] * (has & there)
        sums = self._prefixes[:, place] * factors[of]
        if len(base):
            factors = np.exp2((base_time - time) / half_lives)[:, row] * (joined & there)
            sums += base.sums[:, old] * factors[of]
        return Found.where(there, sums, start, last, value)

    @functools.cached_property
    def _prefixes(self) -> np.ndarray:
        """The sums of a run up to each record, at the timeline's `zero`: float64 `(sums, r)`."""
        values = np.empty((len(self._kind.sums), len(self.key)))
        for row, (weight, half_life) in zip(values, self._kind.sums, strict=True):
            row[:] = self._timeline.growth(half_life)[self._row] * self._weights.get(weight, 1)
        RunningSums(self.starts, len(self.key)).add_up(values)
        return values

    def _places(self, key: np.ndarray, row: np.ndarray) -> np.ndarray:
        high = int(key.max(initial=0)) >> 32
        assert (high + 1) * self._width * self._rows < _LONGEST, "fewer events at once are needed"
        return ((key >> 32) * self._width + (key & _LOW)) * self._rows + row


class RunningSums:
    """The sums of runs of values up to each of their values.

    Subtracting from the sums of all values would lose the digits of small ones. So the second
    values of all runs are added to the first ones, the third ones to these, and so on; what is left
    of long runs is summed run by run.

    Args:
        starts: where runs start, int64, rising from 0.
        size: the number of values.
    """

    _STEPS = 96

    def __init__(self, starts: np.ndarray, size: int) -> None:
        lengths = np.diff(np.append(starts, size))
        self._steps = []
        for step in range(1, self._STEPS):
            starts, lengths = starts[lengths > step], lengths[lengths > step]
            if not len(starts):
                break
            self._steps.append(starts + step)
        long = lengths > self._STEPS
        self._rests = [
            slice(start + self._STEPS - 1, start + length)
            for start, length in zip(starts[long], lengths[long], strict=True)
        ]

    def add_up(self, values: np.ndarray) -> None:
        """Replaces values, float64 `(rows, size)`, by their sums in each row."""
        for places in self._steps:
            values[:, places] += values[:, places - 1]
        for rest in self._rests:
            np.cumsum(values[:, rest], axis=1, out=values[:, rest])
