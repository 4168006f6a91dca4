"""How the candidates of a list compare, by the lists that held both of two articles.

`Comparison` says so of a few lists. Of many, `compiled_pairs` says the same, where Numba is there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from nrms.data.columns import list_rows
from nrms.features.context.events import Events

NAMES = (
    *("win_mean", "win_least", "log_odds", "log_ratio"),
    *("with_mean", "with_others", "with_difference", "with_least", "missing"),
)
PairsAt = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def pair_counts(lists: Events) -> np.ndarray:
    """The pairs, each both ways, of each list and those before it: int64 `(n,)`."""
    return np.cumsum(np.diff(lists.offsets) ** 2)


@functools.cache
def compiled() -> ModuleType | None:
    """`compiled_pairs`, several times as fast for many lists; None without Numba."""
    if importlib.util.find_spec("numba") is None:
        return None
    return importlib.import_module("nrms.features.context.compiled_pairs")


@functools.lru_cache(maxsize=512)
def triangle(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of all pairs in a list, each pair once."""
    return np.triu_indices(length, 1)


def all_pairs(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of all pairs within each list, each pair once: int64 `(p,)` and `(p,)`. Lists of
    the same length stand together, the shortest first.
    """
    lengths = np.diff(offsets)
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for length in np.unique(lengths[lengths > 1]):
        starts = offsets[:-1][lengths == length, None]
        left, right = triangle(int(length))
        first.append((starts + left).ravel())
        second.append((starts + right).ravel())
    return np.concatenate(first), np.concatenate(second)


@dataclass(frozen=True)
class Asked:
    """Lists whose candidates are compared: n lists with c candidates.

    Attributes:
        lists: the lists, in the order of time.
        code: the code of each candidate, int64 `(c,)`.
        previous: that of the article that the list's reader clicked last, int64 `(n,)`; -1 for
            none.
        shown: `e` of each candidate, float64 `(half-lives, c)`.
        rate: its rate, of that shape.
        depth: its depth, of that shape.
        max_list: longest list whose candidates are all compared with each other.
    """

    lists: Events
    code: np.ndarray
    previous: np.ndarray
    shown: np.ndarray
    rate: np.ndarray
    depth: np.ndarray
    max_list: int

    def partners(self) -> dict[int, np.ndarray]:
        """For each list that is too long for all its pairs the positions of the candidates with
        which all others are compared: those that were shown most in the last day, of equals those
        whose ids come last, which are mostly the newest.
        """
        offsets, found = self.lists.offsets, {}
        rows = np.flatnonzero(np.diff(offsets) > self.max_list)
        if len(rows):
            by_id = np.argsort(np.array(self.lists.articles.to_pylist(), object)).argsort()
        for row in rows.tolist():
            places = slice(offsets[row], offsets[row + 1])
            order = np.lexsort((by_id[self.lists.article[places]], self.shown[-1, places]))
            found[row] = order[::-1][: self.max_list]
        return found


@dataclass(frozen=True)
class Compared:
    """How candidates compare.

    Attributes:
        values: what the features `NAMES` are, float64 `(names, half-lives, c)`.
        compared: 1 where all of the list are compared with this candidate, float64 `(c,)`.
        beside: lists that held the candidate and the article that the reader clicked last, by the
            longest half-life, float64 `(c,)`; 0 where there is none.
    """

    values: np.ndarray
    compared: np.ndarray
    beside: np.ndarray


def compare(asked: Asked, at: PairsAt) -> Compared:
    """How the candidates compare.

    Args:
        asked: the candidates.
        at: what is known of pairs of codes before the lists of these numbers: float64
            `(3, half-lives, q)`: lists with both, and with a click on the first and on the second.
    """
    candidates = len(asked.code)
    values, compared = np.zeros((len(NAMES), *asked.shown.shape)), np.zeros(candidates)
    for group in _groups(asked, at):
        places = group.places
        compared[np.take_along_axis(places, group.partners, axis=1)] = 1
        values[:, :, places] = _values(group, asked)
    row = list_rows(asked.lists.offsets)
    previous = asked.previous[row]
    beside = np.where(previous == asked.code, asked.shown[-1], 0)
    other = np.flatnonzero((previous >= 0) & (previous != asked.code))
    if len(other):
        beside[other] = at(previous[other], asked.code[other], row[other])[0, -1]
    return Compared(values, compared, beside)


@dataclass(frozen=True)
class _Group:
    """Lists of the same length, m of them with n candidates, each compared with p partners: all of
    its list, or those of it that were shown most.

    Attributes:
        places: the candidates, int64 `(m, n)`, places among those that are asked for.
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


def _groups(asked: Asked, at: PairsAt) -> Iterator[_Group]:
    offsets, code, partners = asked.lists.offsets, asked.code, asked.partners()
    lengths = np.diff(offsets)
    for length in np.unique(lengths[(lengths > 0) & (lengths <= asked.max_list)]):
        chosen = np.flatnonzero(lengths == length)
        places = offsets[chosen, None] + np.arange(length)
        first, second = triangle(int(length))
        left, right = places[:, first], places[:, second]
        found = at(code[left.ravel()], code[right.ravel()], np.repeat(chosen, len(first)))
        found = found.reshape(*found.shape[:2], len(chosen), len(first))
        square = np.zeros((*found.shape[:3], length, length))
        square[..., first, second] = found
        square[..., second, first] = found[[0, 2, 1]]
        codes = code[places]
        yield _Group(
            places,
            np.broadcast_to(np.arange(length), places.shape),
            codes[:, :, None] != codes[:, None, :],
            *square,
        )
    for row, theirs in partners.items():
        places = np.arange(offsets[row], offsets[row + 1])
        codes = code[places]
        first, second = np.repeat(codes, len(theirs)), np.tile(codes[theirs], len(codes))
        found = at(first, second, np.full(len(first), row))
        found = found.reshape(*found.shape[:2], 1, len(codes), len(theirs))
        other = codes[:, None] != codes[theirs]
        yield _Group(places[None], theirs[None], other[None], *np.where(other, found, 0))


def _values(group: _Group, asked: Asked) -> np.ndarray:
    """The features that compare candidates: float64 `(names, half-lives, m, n)`."""
    other, won, lost, together = group.other, group.won, group.lost, group.together
    shown, rate, depth = (
        of_each[:, group.places] for of_each in (asked.shown, asked.rate, asked.depth)
    )
    others = np.maximum(other.sum(-1), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.einsum("hmnp,mnp->hmn", values, other.astype(float)) / others

    def least(values: np.ndarray, alone: float) -> np.ndarray:
        low = np.where(other, values, np.inf).min(-1)
        return np.where(np.isfinite(low), low, alone)

    def of_partners(values: np.ndarray) -> np.ndarray:
        index = np.broadcast_to(group.partners, (len(values), *group.partners.shape))
        return np.take_along_axis(values, index, axis=-1)[:, :, None, :]

    win = (won + 0.5) / (won + lost + 1)
    ours = mean((won + rate[..., None]) / (together + 1))
    theirs = mean((lost + of_partners(rate)) / (together + 1))
    alone = ~other.any(-1)
    with_x = (together + 0.05) / (shown[..., None] + 0.5)
    with_mean, with_others = mean(with_x), mean((together + 0.05) / (of_partners(shown) + 0.5))
    usual = np.exp(depth) - 1 - with_mean * others
    return np.stack(
        [
            np.where(alone, 0.5, mean(win)),
            least(win, 0.5),
            mean(np.log((won + 0.3) / (lost + 0.3))),
            np.where(alone, 0, np.log(np.maximum(ours, 1e-9) / np.maximum(theirs, 1e-9))),
            with_mean,
            with_others,
            with_mean - with_others,
            least(with_x, 0),
            np.log1p(np.maximum(0, usual)),
        ]
    )
