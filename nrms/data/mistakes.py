"""What most likely happened to a column that is missing or wrong: it has another name, or holds 0/1
masks in place of ids.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.columns import unnest

# Similarity, 0 to 1: `titles` and `Title_` are near `title`, `read_time_fixed` is not near
# `impression_time`.
_NEAR = 0.8
_NAMES = 1_000  # at most so many are compared, because a hostile file may have any number
_SHOWN, _LONG = 3, 40  # so many ids, and so many characters of each, stand in a message
_MASK = {"0", "1"}, {"0.0", "1.0"}, {"False", "True"}


def near_name(name: str, names: Iterable[str]) -> str | None:
    """The name that is nearest in spelling, whatever its case; None where all are too different."""
    spelled = {other.strip().lower(): other for other in list(names)[:_NAMES]}
    near = difflib.get_close_matches(name, spelled, n=1, cutoff=_NEAR)
    return spelled[near[0]] if near else None


def is_mask(lists: pa.Array, in_view: pa.Array) -> bool:
    """Whether each list that is not null has a 0 or a 1 for each candidate of its row, and both
    occur.

    Args:
        lists: lists of anything, shape `(n,)`.
        in_view: lists of candidates, shape `(n,)`.
    """
    given = lists.is_valid()
    (offsets, values), (in_view_offsets, _) = (
        unnest(lists.filter(given)),
        unnest(in_view.filter(given)),
    )
    if not np.array_equal(offsets, in_view_offsets):
        return False
    return {str(value) for value in pc.unique(values)[:3].to_pylist()} in _MASK


def first(ids: pa.Array) -> str:
    """The first of some ids and their type, for a message."""
    shown = ", ".join(" ".join(str(one).split())[:_LONG] for one in ids[:_SHOWN].to_pylist())
    # Integers of different widths join all the same.
    return f"{shown or 'nowhere'} ({pa.int64() if pa.types.is_integer(ids.type) else ids.type})"
