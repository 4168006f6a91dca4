"""A number for each id: what the counters' tables are keyed by."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FEW = 512  # so many ids are looked up one by one, in a dictionary that is made once


class Vocabulary:
    """Ids and their codes: an id's code is its place. Ids are only ever added at the end.

    Args:
        ids: int64 or string, without nulls and duplicates.
    """

    def __init__(self, ids: pa.Array) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def codes(self, ids: pa.Array) -> np.ndarray:
        """The code of each id: int64 of shape `(len(ids),)`, -1 for one that is not there."""
        if not len(self):
            return np.full(len(ids), -1, np.int64)
        if len(ids) <= _FEW:
            found = map(self._places.get, ids.to_pylist())
            return np.array([-1 if code is None else code for code in found], np.int64)
        found = pc.fill_null(pc.index_in(ids.cast(self.ids.type), value_set=self.ids), -1)
        return found.to_numpy().astype(np.int64)

    def extended(self, ids: pa.Array) -> Vocabulary:
        """These ids, and after them those of `ids` (without duplicates) that are new."""
        new = ids.filter(pa.array(self.codes(ids) < 0))
        if not len(new):
            return self
        return Vocabulary(pa.concat_arrays([self.ids.cast(new.type), new]) if len(self) else new)

    @functools.cached_property
    def _places(self) -> dict[object, int]:
        return {one: code for code, one in enumerate(self.ids.to_pylist())}


EMPTY = Vocabulary(pa.array([], pa.int64()))
