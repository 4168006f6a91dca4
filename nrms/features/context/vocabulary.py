"""A number for each id: what the counters' tables are keyed by."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FEW = 512  # so many ids are looked up one by one, in dictionaries that are made once
_DEPTH = 8  # additions that are kept apart, before a new dictionary of all is made


class Vocabulary:
    """Ids and their codes: an id's code is its place. Ids are only ever added at the end.

    A request adds an id or two to those of a million readers. So they are kept apart, and nothing
    is copied.

    Args:
        added: int64 or string, without nulls and duplicates.
        base: the ids before these; None for none.
    """

    def __init__(self, added: pa.Array, base: Vocabulary | None = None) -> None:
        self._added, self._base = added, base
        self._start = 0 if base is None else len(base)
        self._depth: int = 0 if base is None else base._depth + 1
        # The last array of many ids, and their codes: requests ask for the same again and again.
        self._looked_up: tuple[pa.Array, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._start + len(self._added)

    @functools.cached_property
    def ids(self) -> pa.Array:
        """All ids, by their codes."""
        if self._base is None:
            return self._added
        return pa.concat_arrays([self._base.ids.cast(self._added.type), self._added])

    def codes(self, ids: pa.Array) -> np.ndarray:
        """The code of each id: int64 of shape `(len(ids),)`, -1 for one that is not there."""
        if not len(self):
            return np.full(len(ids), -1, np.int64)
        if len(ids) <= _FEW:
            return np.array([self._code(one) for one in ids.to_pylist()], np.int64)
        known = self._looked_up
        if known is None or known[0] is not ids:
            self._looked_up = known = ids, self._search(ids)
        return known[1]

    def _search(self, ids: pa.Array) -> np.ndarray:
        found = pc.fill_null(pc.index_in(ids.cast(self._added.type), value_set=self._added), -1)
        codes = found.to_numpy().astype(np.int64)
        if self._base is not None:
            codes = np.where(codes < 0, self._base.codes(ids), codes + self._start)
        codes.flags.writeable = False
        return codes

    def extended(self, ids: pa.Array) -> Vocabulary:
        """These ids, and after them those of `ids` (without duplicates) that are new."""
        unknown = self.codes(ids) < 0
        if not unknown.any():
            return self
        new = ids.filter(pa.array(unknown))
        if not len(self):
            return Vocabulary(new)
        longer = Vocabulary(new, self)
        return longer if longer._depth < _DEPTH else Vocabulary(longer.ids)

    def _code(self, one: object) -> int:
        code = self._places.get(one)
        if code is not None:
            return self._start + code
        return -1 if self._base is None else self._base._code(one)

    @functools.cached_property
    def _places(self) -> dict[object, int]:
        return {one: place for place, one in enumerate(self._added.to_pylist())}


EMPTY = Vocabulary(pa.array([], pa.int64()))
