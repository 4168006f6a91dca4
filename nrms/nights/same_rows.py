"""Tables of the same impressions, read side by side, and what is different where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.columns import list_rows, unnest
from nrms.data.impressions import pair_keys
from nrms.data.schema import CLICKS, IN_VIEW


def aligned(streams: list[Iterator[pa.Table]]) -> Iterator[list[pa.Table]]:
    """The same rows of each stream, as many at a time as all have, whatever their tables' sizes."""
    filled = [filter(len, stream) for stream in streams]
    heads: list[Any] = [next(stream, None) for stream in filled]
    while all(head is not None for head in heads):
        count = min(map(len, heads))
        yield [head.slice(0, count) for head in heads]
        heads = [
            head.slice(count) if count < len(head) else next(stream, None)
            for head, stream in zip(heads, filled, strict=True)
        ]


def first_difference(one: pa.Table, other: pa.Table, start: int) -> str | None:
    """What is different in the first row that is; None where the rows are of the same impressions.

    Args:
        one: rows of `impression_id`, `user_id` and perhaps lists of articles.
        other: as many rows.
        start: the number of the first row, for the message.
    """
    for name in ("impression_id", "user_id"):
        ids = [column(table, name) for table in (one, other)]
        if ids[0].type != ids[1].type:
            ids = [each.cast(pa.string()) for each in ids]
        row = pc.index(pc.not_equal(*ids), True).as_py()
        if row >= 0:
            values = " and ".join(repr(each[row].as_py()) for each in ids)
            return f"{name} {values} in row {start + row:,} (from 0)"
    for name in (IN_VIEW, CLICKS):
        if name not in one.column_names or name not in other.column_names:
            continue
        (offsets, ids), (other_offsets, other_ids) = (
            unnest(column(table, name)) for table in (one, other)
        )
        unequal = np.diff(offsets) != np.diff(other_offsets)
        if not unequal.any():
            if ids.type != other_ids.type:
                ids, other_ids = ids.cast(pa.string()), other_ids.cast(pa.string())
            same = pc.fill_null(pc.equal(ids, other_ids), True).to_numpy(zero_copy_only=False)
            unequal[list_rows(offsets)[~same]] = True
        if unequal.any():
            row = int(np.argmax(unequal))
            which = one["impression_id"][row].as_py()
            what = "clicks" if name == CLICKS else "candidates"
            return f"other {what} of impression {which!r}, in row {start + row:,} (from 0)"
    return None


def clicked_candidates(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the candidates, int64 `[n + 1]`, and which of them are clicked, bool `[c]`."""
    offsets, candidates = unnest(column(table, IN_VIEW))
    of_clicks, clicks = unnest(column(table, CLICKS))
    family = pa.int64() if pa.types.is_integer(candidates.type) else pa.string()
    in_view, clicked = pair_keys((offsets, candidates), (of_clicks, clicks), family)
    return offsets, np.isin(in_view, clicked)


def column(table: pa.Table, name: str) -> pa.Array:
    """A column in one piece."""
    return table[name].combine_chunks()
