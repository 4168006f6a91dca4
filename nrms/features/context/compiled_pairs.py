"""What `pairs` says, of many lists: compiled by Numba, several times as fast.

The lists that hold two articles are counted in a hash table that follows the events, so nothing of
pairs is sorted. Both forms agree but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from nrms.features.context.events import Events
from nrms.features.context.pairs import NAMES, Asked, Compared
from nrms.features.context.table import Kind, Table

# 2**64 by the golden ratio: multiplicative hashing (Knuth, The Art of Computer Programming, 6.4).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNKNOWN, _SAME = np.int32(-1), np.int32(-2)  # nothing is known of a pair; it is one article twice
_START, _LAST = 0, 1

_I, _F, _B = numba.int64[::1], numba.float64[:, ::1], numba.boolean[::1]
_FLOATS, _SIZE = numba.float64[::1], numba.int64
# index, keys, sums, times, whole
_Slots = numba.types.Tuple((numba.int32[::1], _I, _F, numba.int64[:, ::1], _B))
# time, growth, offsets, code, clicked, exposed, counts
_Events = numba.types.Tuple((_I, _F, _I, _I, _B, _B, _B))
# seen, times, factors; offsets, code, previous; offsets of partners, partners
_Lists = numba.types.Tuple((_I, _I, _F, _I, _I, _I, _I, _I))
# shown, rate, depth
_OfEach = numba.types.UniTuple(_F, 3)
# values, compared, beside
_Out = numba.types.Tuple((numba.float64[:, :, ::1], _FLOATS, _FLOATS))


def _compiled(signature: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function as machine code, kept beside this file or in NUMBA_CACHE_DIR; where nothing can
    be written, each process makes it anew. With a signature this is done on import.
    """

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(signature, cache=True, nogil=True)(function)
        except RuntimeError:
            return numba.njit(signature, nogil=True)(function)

    return compiled


def _own(values: np.ndarray, dtype: type = np.int64) -> np.ndarray:
    """The array as kernels take it. Arrow's may not be written to, which makes them of another
    type.
    """
    return np.require(values, dtype, ["C", "W"])


class HashedPairs:
    """The table of pairs as events go by.

    Args:
        kind: that of pairs. Its sums are lists with both, those with a click on the first, and
            those with a click on the second, each by all half-lives.
        base: the table before.
        time: the time of `base`, microseconds.
        events: what happened since, in the order of time, no article twice in a list.
        code: the code of each article of `events.articles`, int64.
        clicks: whether clicks count.
        max_list: longest list whose pairs are counted.
    """

    def __init__(
        self,
        kind: Kind,
        base: Table,
        time: int,
        events: Events,
        code: np.ndarray,
        clicks: bool,
        max_list: int,
    ) -> None:
        self._half_lives = np.array(
            [half_life for _, half_life in kind.sums[: len(kind.sums) // 3]]
        )
        self._gap, self._zero = kind.gap, time
        self._time, self._offsets = _own(events.time), _own(events.offsets)
        self._code, self._exposed = _own(code[events.article]), _own(events.exposed, bool)
        self._clicked = _own(events.clicked & clicks, bool)
        lengths = np.diff(events.offsets)
        self._counts = lengths <= max_list
        self._pairs = np.append(0, np.cumsum(self._counts * lengths * (lengths - 1) // 2))
        self._row, self._size = 0, len(base)
        self._index = np.empty(0, np.int32)
        self._key, self._sums = base.key.copy(), base.sums.T.copy()
        self._times, self._whole = np.stack([base.start, base.last], axis=1), base.whole.copy()

    def table(self, now: int) -> Table:
        """The table at the time `now`, with all events counted."""
        end = len(self._time)
        events = self._upto(end, now)
        self._size = _add(self._slots(), self._size, events, self._row, end, self._gap)
        self._row = end
        order = np.argsort(self._key[: self._size])
        return Table(
            self._key[order],
            np.ascontiguousarray(self._sums[order].T),
            self._times[order, _START],
            self._times[order, _LAST],
            self._whole[order],
            np.full(len(order), -1),
        )

    def compare(self, asked: Asked, seen: np.ndarray, first: int = 0) -> Compared:
        """How candidates compare.

        Args:
            asked: the candidates, of lists that are not before those of the call before.
            seen: the number of events that each list may see, int64 `(n,)`, rising; those before
                row `first` are not in it.
            first: see `seen`.
        """
        seen = seen + first
        lists, candidates = asked.lists, len(asked.code)
        now, end = int(lists.time[-1]), max(self._row, int(seen[-1]))
        events, partners = self._upto(end, now), asked.partners()
        lengths = np.zeros(len(lists) + 1, np.int64)
        for row, theirs in partners.items():
            lengths[row + 1] = len(theirs)
        found = Compared(
            np.zeros((len(NAMES), len(self._half_lives), candidates)),
            np.zeros(candidates),
            np.zeros(candidates),
        )
        self._size = _compare(
            self._slots(),
            self._size,
            events,
            self._row,
            self._gap,
            (
                *(_own(seen), _own(lists.time)),
                np.exp2((now - lists.time[:, None]) / self._half_lives),
                *(_own(lists.offsets), _own(asked.code), _own(asked.previous)),
                np.cumsum(lengths),
                np.concatenate([np.empty(0, np.int64), *partners.values()]),
            ),
            tuple(_own(values, float) for values in (asked.shown, asked.rate, asked.depth)),
            (found.values, found.compared, found.beside),
        )
        self._row = end
        return found

    def _upto(self, end: int, now: int) -> tuple[np.ndarray, ...]:
        """The events, for a kernel that counts those up to row `end`. Sums become those that they
        are at the time `now`, and there is room for all pairs of these events.
        """
        self._sums[: self._size] *= np.tile(np.exp2((self._zero - now) / self._half_lives), 3)
        self._zero = now
        growth, new = np.zeros((len(self._time), len(self._half_lives))), slice(self._row, end)
        growth[new] = np.exp2((self._time[new, None] - now) / self._half_lives)
        self._reserve(self._size + int(self._pairs[end] - self._pairs[self._row]))
        return (
            *(self._time, growth, self._offsets, self._code),
            *(self._clicked, self._exposed, self._counts),
        )

    def _reserve(self, most: int) -> None:
        """Makes room for so many keys."""
        if len(self._index) < 2 * most or not len(self._index):
            self._index = np.full(1 << max(4, (2 * most - 1).bit_length()), _UNKNOWN, np.int32)
            _fill(self._index, self._key, self._size)
        if len(self._key) < most:
            more = max(most, 2 * len(self._key)) - self._size
            self._key, self._sums, self._times, self._whole = (
                np.concatenate([old[: self._size], np.empty((more, *old.shape[1:]), old.dtype)])
                for old in (self._key, self._sums, self._times, self._whole)
            )

    def _slots(self) -> tuple[np.ndarray, ...]:
        return self._index, self._key, self._sums, self._times, self._whole


@_compiled()
def _place(index, keys, key):
    """Where a key stands in the index; where it may stand, if it is not there."""
    mask = len(index) - 1
    place = np.int64((np.uint64(key) * _GOLDEN) >> np.uint64(32)) & mask
    while index[place] >= 0 and keys[index[place]] != key:
        place = (place + 1) & mask
    return place


@_compiled(numba.void(numba.int32[::1], _I, _SIZE))
def _fill(index, keys, size):
    """Puts all slots into an empty index."""
    for slot in range(size):
        index[_place(index, keys, keys[slot])] = slot


@_compiled(_SIZE(_Slots, _SIZE, _Events, _SIZE, _SIZE, _SIZE))
def _add(slots, size, events, row, end, gap):
    """Counts the events from `row` to `end`; gives the number of keys. As `table.Runs`."""
    index, keys, sums, times, whole = slots
    time, growth, offsets, code, clicked, exposed, counts = events
    halves = growth.shape[1]
    for event in range(row, end):
        if not counts[event]:
            continue
        now = time[event]
        for one in range(offsets[event], offsets[event + 1]):
            for other in range(one + 1, offsets[event + 1]):
                first, second = (one, other) if code[one] < code[other] else (other, one)
                key = (code[first] << 32) | code[second]
                place = _place(index, keys, key)
                slot = index[place]
                if slot < 0:
                    slot = index[place] = size
                    size += 1
                    keys[slot], whole[slot] = key, True
                    sums[slot] = 0
                    times[slot] = now
                elif times[slot, _START] - now > gap:
                    continue  # it arrives so late that its run was over before this one began
                elif now - times[slot, _LAST] > gap:
                    whole[slot] = False
                    sums[slot] = 0
                    times[slot] = now
                else:
                    times[slot, _START] = min(times[slot, _START], now)
                    times[slot, _LAST] = max(times[slot, _LAST], now)
                for half in range(halves):
                    weight = growth[event, half]
                    if exposed[event]:
                        sums[slot, half] += weight
                    if clicked[first]:
                        sums[slot, halves + half] += weight
                    if clicked[second]:
                        sums[slot, 2 * halves + half] += weight
    return size


@_compiled()
def _slot(slots, one, other, now, gap):
    """The slot of a pair of codes at a time, or what says that there is none."""
    index, keys, _, times, _ = slots
    if one == other:
        return _SAME
    key = (one << 32) | other if one < other else (other << 32) | one
    slot = index[_place(index, keys, key)]
    return slot if slot >= 0 and now - times[slot, _LAST] <= gap else _UNKNOWN


@_compiled()
def _candidate(sums, factors, code, place, found, places, of_each, values):
    """What a candidate's features are that compare it with its partners, of which `found` says the
    slots. As `pairs._values`.
    """
    shown, rate, depth = of_each
    halves, others = len(factors), np.count_nonzero(found != _SAME)
    for half in range(halves):
        win = odds = ours = theirs = with_x = with_others = 0.0
        win_least = with_least = np.inf
        exposed = shown[half, place] + 0.5
        for k in range(len(found)):
            slot, partner = found[k], places[k]
            if slot == _SAME:
                continue
            together = won = lost = 0.0
            if slot >= 0:
                together = sums[slot, half] * factors[half]
                won = sums[slot, halves + half] * factors[half]
                lost = sums[slot, 2 * halves + half] * factors[half]
                if code[place] > code[partner]:
                    won, lost = lost, won
            chance = (won + 0.5) / (won + lost + 1)
            win += chance
            win_least = min(win_least, chance)
            if won != lost:
                odds += np.log((won + 0.3) / (lost + 0.3))
            ours += (won + rate[half, place]) / (together + 1)
            theirs += (lost + rate[half, partner]) / (together + 1)
            with_x += (together + 0.05) / exposed
            with_others += (together + 0.05) / (shown[half, partner] + 0.5)
            with_least = min(with_least, (together + 0.05) / exposed)
        if others:
            values[0, half, place] = win / others
            values[1, half, place] = win_least
            values[2, half, place] = odds / others
            values[3, half, place] = np.log(max(ours / others, 1e-9) / max(theirs / others, 1e-9))
            values[4, half, place] = with_x / others
            values[5, half, place] = with_others / others
            values[6, half, place] = (with_x - with_others) / others
            values[7, half, place] = with_least
        else:
            values[0, half, place] = values[1, half, place] = 0.5
        usual = np.exp(depth[half, place]) - 1 - with_x
        values[8, half, place] = np.log1p(max(0.0, usual))


@_compiled(_SIZE(_Slots, _SIZE, _Events, _SIZE, _SIZE, _Lists, _OfEach, _Out))
def _compare(slots, size, events, row, gap, lists, of_each, out):
    """Counts events and compares candidates, list by list; gives the number of keys. As
    `pairs.compare`.
    """
    sums = slots[2]
    seen, times, factors, offsets, code, previous, partner_offsets, partners = lists
    values, compared, beside = out
    halves, longest, most = factors.shape[1], 0, 0
    for i in range(len(times)):
        length, given = offsets[i + 1] - offsets[i], partner_offsets[i + 1] - partner_offsets[i]
        longest, most = max(longest, 0 if given else length), max(most, given or length)
    square = np.empty((longest, longest), np.int32)
    found, places = np.empty(most, np.int32), np.empty(most, np.int64)
    for i in range(len(times)):
        if seen[i] > row:
            size = _add(slots, size, events, row, seen[i], gap)
            row = seen[i]
        begin, end, now = offsets[i], offsets[i + 1], times[i]
        if previous[i] >= 0:
            for place in range(begin, end):
                slot = _slot(slots, previous[i], code[place], now, gap)
                if slot == _SAME:
                    beside[place] = of_each[0][halves - 1, place]
                elif slot >= 0:
                    beside[place] = sums[slot, halves - 1] * factors[i, halves - 1]
        given = partner_offsets[i + 1] - partner_offsets[i]
        count = given or end - begin
        for k in range(count):
            places[k] = begin + (partners[partner_offsets[i] + k] if given else k)
            compared[places[k]] = 1
        if not given:
            for one in range(count):
                for other in range(one, count):
                    slot = _slot(slots, code[begin + one], code[begin + other], now, gap)
                    square[one, other] = square[other, one] = slot
        for place in range(begin, end):
            for k in range(count):
                if given:
                    found[k] = _slot(slots, code[place], code[places[k]], now, gap)
                else:
                    found[k] = square[place - begin, k]
            _candidate(
                sums, factors[i], code, place, found[:count], places[:count], of_each, values
            )
    return size
