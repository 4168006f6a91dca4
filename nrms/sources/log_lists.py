"""Groups the rows of a log into impressions and clicks, and clicks into histories.

Rows are sorted by a key on disk (`sorted_by_time`), so that those of one list, or of one reader,
stand together wherever in the log they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from nrms.data.columns import hashes
from nrms.sources.time_sort import sorted_by_time

_LIST = ("key", "reader", "list")
_DAY = 86_400_000_000  # microseconds
_ARROW = pl.CompatLevel.oldest()  # Arrow cannot pick rows of views


class Lists(NamedTuple):
    """What some lists say.

    Attributes:
        impressions: `list`, `reader` text, `time` int64 microseconds, `in_view`, `clicked` lists of
            text, `place` int64: that of its first row that shows an article.
        clicks: `reader`, `article` text, `time`, `place` int64.
        unseen: `place` and number of `rows`, int64, of clicks on what their list never showed.
        repeated: rows that show what their list has shown already.
        long: impressions whose rows are more than a day apart.
    """

    impressions: pl.DataFrame
    clicks: pl.DataFrame
    unseen: pl.DataFrame
    repeated: int
    long: int


def grouped_lists(rows: Iterable[pa.Table], folder: Path) -> Iterator[Lists]:
    """All lists of the rows, in no order; see `LogRows.tables` for the rows.

    The articles of a list stand in the order of `position` and then of the rows. Of an article that
    occurs more than once the first place counts, and it is clicked if one of its rows is. The time
    is the earliest of all rows of the articles that were shown, so that no click of an impression
    is older than the impression.

    Args:
        rows: the rows.
        folder: an empty folder for the rows, sorted.
    """
    for table in _whole(sorted_by_time(rows, folder, by="key"), "key"):
        is_shown, is_click = pl.col("shown"), pl.col("clicked")
        candidates = table.group_by(*_LIST, "article", maintain_order=True).agg(
            pl.col("time").min(),
            pl.col("time").max().alias("last"),
            is_shown.any(),
            is_click.any(),
            position=pl.when(is_shown).then("position").min(),
            place=pl.when(is_shown).then("place").min(),
            click_time=pl.when(is_click).then("time").min(),
            click_place=pl.when(is_click).then("place").min(),
            rows=pl.len().cast(pl.Int64),
        )
        shown = candidates.filter(is_shown).sort("position", "place")
        impressions = shown.group_by(*_LIST, maintain_order=True).agg(
            pl.col("time").min(),
            pl.col("last").max(),
            in_view=pl.col("article"),
            clicked=pl.col("article").filter(is_click),
            place=pl.col("place").min(),
        )
        yield Lists(
            impressions.select("list", "reader", "time", "in_view", "clicked", "place"),
            candidates.filter(is_click).select(
                "reader", "article", time="click_time", place="click_place"
            ),
            candidates.filter(is_click & ~is_shown).select("rows", place="click_place"),
            int(table["shown"].sum()) - len(shown),
            int((impressions["last"] - impressions["time"] > _DAY).sum()),
        )


def grouped_histories(clicks: Iterable[pa.Table], folder: Path) -> Iterator[pl.DataFrame]:
    """A row for each reader: `reader`, `articles` and `times`, int64 microseconds, oldest first.

    Args:
        clicks: tables of `reader`, `article`, `time` and `place`.
        folder: an empty folder for the clicks, sorted.
    """
    keyed = (
        table.append_column(
            "key", pa.array(hashes(table["reader"].combine_chunks()).view(np.int64))
        )
        for table in clicks
    )
    for table in _whole(sorted_by_time(keyed, folder, by="key"), "key"):
        yield (
            table.sort("time", "place")
            .group_by("reader", maintain_order=True)
            .agg(articles="article", times="time")
        )


class Spill:
    """Tables of one schema that wait in a file. Raises OSError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def add(self, frame: pl.DataFrame) -> None:
        """Writes a table."""
        table = frame.to_arrow(compat_level=_ARROW)
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_stream(str(self._path), table.schema, options=options)
        self._writer.write_table(table)
        self.rows += len(frame)

    def close(self) -> None:
        """Ends the file, which can then be read as often as needed."""
        if self._writer is not None:
            self._writer.close()

    def tables(self) -> Iterator[pa.Table]:
        """What was written."""
        if self._writer is not None:
            with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])


def _whole(tables: Iterable[pa.Table], key: str) -> Iterator[pl.DataFrame]:
    """The same rows, sorted by `key`, in tables that share no key."""
    waiting: pl.DataFrame | None = None
    for table in tables:
        rows = pl.DataFrame(table)
        rows = rows if waiting is None else pl.concat([waiting, rows])
        start = int(np.searchsorted(rows[key].to_numpy(), rows[key][-1]))
        if start:
            yield rows[:start]
        waiting = rows[start:]
    if waiting is not None:
        yield waiting
