"""Sorts the impressions of a split by time, however many they are: an external merge sort.

Tables are gathered into runs that fit in memory. Each run is sorted and written to a file, and the
runs are merged block by block. Runs that follow each other in time are read one after the other, so
data that arrives in order is only copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

TIME = "impression_time"

# A run ends with the table that brings it to so many rows or bytes.
_RUN_ROWS, _RUN_BYTES = 100_000, 1 << 28
# So many files are merged at once, with a block of each in memory: all blocks together are a run.
_WAYS = 64

_NO_TIME = np.iinfo(np.int64).max  # rows without a time come last
_SPILL = pa.ipc.IpcWriteOptions(compression="lz4")

# The time of a row, and its place among the rows as they arrived: unlike times, no two are equal.
_Key = tuple[int, int]


def sorted_by_time(tables: Iterable[pa.Table], folder: Path, by: str = TIME) -> Iterator[pa.Table]:
    """The same rows in the order of `impression_time`; those of equal times, and after all others
    those without a time, in the order in which they came. All tables are read before the first is
    given.

    Memory holds two runs, whatever the number of rows, and `folder` all rows, at times twice.

    Args:
        tables: tables of any number of rows, all with the same columns.
        folder: an empty folder, local, for the runs.
        by: another column to sort by, int64 or a timestamp.

    Raises:
        OSError: the folder cannot be written.
    """
    files = _Files(folder, by)
    sequences: list[_Sequence] = []
    for run in _runs(tables, by):
        added = files.write([run.table], run.first, run.last)
        fitting = [each for each in sequences if each.last < added.first]
        if fitting:
            latest = max(fitting, key=lambda each: each.last)
            latest.paths += added.paths
            latest.last = added.last
        else:
            sequences.append(added)
    while len(sequences) > _WAYS:
        merged = sequences[: min(_WAYS, len(sequences) - _WAYS + 1)]
        first, last = min(each.first for each in merged), max(each.last for each in merged)
        sequences = [*sequences[len(merged) :], files.write(_merge(merged), first, last)]
    for table in _merge(sequences):
        yield table.remove_column(table.num_columns - 1)


@dataclass
class _Sequence:
    """Files whose rows are in order, within each and from each to the next."""

    paths: list[Path]
    first: _Key
    last: _Key
    by: str

    def blocks(self) -> Iterator[_Block]:
        """The rows. A file is deleted when it has been read."""
        for path in self.paths:
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
                for batch in filter(len, reader):
                    yield _Block.of(pa.Table.from_batches([batch]), self.by)
            path.unlink()


class _Files:
    def __init__(self, folder: Path, by: str) -> None:
        self._folder, self._by, self._count = folder, by, 0

    def write(self, tables: Iterable[pa.Table], first: _Key, last: _Key) -> _Sequence:
        """A file of these tables, which are in order from `first` to `last`."""
        path = self._folder / f"{self._count}.arrow"
        self._count += 1
        writer = None
        with pa.OSFile(str(path), "wb") as file:
            for table in tables:
                if writer is None:
                    writer = pa.ipc.new_stream(file, table.schema, options=_SPILL)
                writer.write_table(table, max_chunksize=max(1, _RUN_ROWS // _WAYS))
            assert writer is not None
            writer.close()
        return _Sequence([path], first, last, self._by)


class _Block:
    """Some rows in order. Their last column holds their places."""

    def __init__(self, table: pa.Table, times: np.ndarray, places: np.ndarray) -> None:
        self.table, self.times, self.places = table, times, places

    @classmethod
    def of(cls, table: pa.Table, by: str) -> _Block:
        return cls(table, _times(table, by), _places(table))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def first(self) -> _Key:
        return int(self.times[0]), int(self.places[0])

    @property
    def last(self) -> _Key:
        return int(self.times[-1]), int(self.places[-1])

    def split(self, bound: _Key) -> tuple[_Block, _Block]:
        """The rows up to `bound`, and those after it."""
        low, high = (np.searchsorted(self.times, bound[0], side) for side in ("left", "right"))
        count = low + np.searchsorted(self.places[low:high], bound[1], "right")
        return self._part(slice(0, count)), self._part(slice(count, len(self)))

    def _part(self, rows: slice) -> _Block:
        table = self.table.slice(rows.start, rows.stop - rows.start)
        return _Block(table, self.times[rows], self.places[rows])


def _runs(tables: Iterable[pa.Table], by: str) -> Iterator[_Block]:
    """Tables, sorted and with the place of each row as their last column."""
    waiting: list[pa.Table] = []
    rows = size = start = 0
    for table in tables:
        if not len(table):
            continue
        waiting.append(table)
        rows, size = rows + len(table), size + table.nbytes
        if rows >= _RUN_ROWS or size >= _RUN_BYTES:
            yield _run(waiting, start, by)
            start += rows
            waiting, rows, size = [], 0, 0
    if waiting:
        yield _run(waiting, start, by)


def _run(tables: list[pa.Table], start: int, by: str) -> _Block:
    table = pa.concat_tables(tables)
    places = np.arange(start, start + len(table))
    table = _sorted(table.append_column("", pa.array(places)), _times(table, by), places)
    return _Block.of(table, by)


def _merge(sequences: list[_Sequence]) -> Iterator[pa.Table]:
    """All rows in order. Each step takes of the block of each sequence what comes before the end of
    the block that ends first, and so uses up at least that one.
    """
    readers = [each.blocks() for each in sequences]
    heads = [(next(reader), reader) for reader in readers]
    while heads:
        bound = min(block.last for block, _ in heads)
        taken, left = [], []
        for block, reader in heads:
            before, after = block.split(bound)
            if len(before):
                taken.append(before)
            rest = after if len(after) else next(reader, None)
            if rest is not None:
                left.append((rest, reader))
        yield _joined(taken)
        heads = left


def _joined(blocks: list[_Block]) -> pa.Table:
    table = pa.concat_tables([block.table for block in blocks])
    times, places = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("times", "places")
    )
    return _sorted(table, times, places)


def _sorted(table: pa.Table, times: np.ndarray, places: np.ndarray) -> pa.Table:
    order = np.lexsort((places, times))
    return table if (order[1:] > order[:-1]).all() else table.take(pa.array(order))


def _times(table: pa.Table, by: str) -> np.ndarray:
    """The time of each row in the column's own unit, int64."""
    if by not in table.column_names or pa.types.is_null(table.schema.field(by).type):
        return np.full(len(table), _NO_TIME)
    return table[by].cast(pa.int64()).fill_null(_NO_TIME).to_numpy()


def _places(table: pa.Table) -> np.ndarray:
    return table.column(table.num_columns - 1).to_numpy()
