"""Reads the rows of a log: their values in one form, and those that are bad counted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from nrms import storage
from nrms.data.columns import hashes
from nrms.data.schema import schema_error
from nrms.sources import log_values
from nrms.sources.config import LogConfig
from nrms.sources.log_faults import Faults
from nrms.sources.log_files import Files, Rows

IDS = ("reader", "article", "list")
_ARROW = pl.CompatLevel.oldest()  # Arrow cannot pick rows of views
_VALUES: dict[str, Callable[[pl.Series], pl.Series]] = {
    "time": log_values.times,
    **dict.fromkeys(IDS, log_values.ids),
    "clicked": log_values.truths,
    "shown": log_values.truths,
    "position": log_values.numbers,
}


class LogRows:
    """The rows of a log.

    Args:
        uri: a file or a folder of CSV, gzipped CSV or Parquet files.
        config: the names of the columns.
        cache: local folder for downloads from a bucket.

    Attributes:
        files: the files.
        faults: the bad rows so far, by kind.
        columns: which of the columns the log has, by our names.
        first, last: the earliest and the latest time of the good rows so far, microseconds.
        texts: which ids, of `IDS`, are not all integers so far.
        articles: the ids of all articles so far, text.

    Raises:
        SchemaError: a file cannot be read, a column is missing or of a wrong type, or the files
            have other columns.
        StorageError: a file could not be read.
    """

    def __init__(self, uri: str, config: LogConfig, cache: Path) -> None:
        self.files = Files(uri, "--input", cache)
        self.faults = Faults()
        self._read = 0
        self._starts: list[int] = []  # the place before the first row of each file
        self.first, self.last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self.texts: set[str] = set()
        self.articles = pl.Series("article", dtype=pl.String)
        required = {
            "time": config.time_column,
            "reader": config.reader_column,
            "article": config.article_column,
            "clicked": config.clicked_column,
        }
        optional = {
            "shown": config.shown_column,
            "list": config.list_column,
            "position": config.position_column,
        }
        self._picked = {
            info.uri: self.files.pick(info, required, optional) for info in self.files.infos
        }
        self.columns = list(self._picked[self.files.infos[0].uri])
        for info in self.files.infos:
            picked = self._picked[info.uri]
            if picked.keys() != set(self.columns):
                raise schema_error(
                    "All files of a log must have the same columns.",
                    f"{', '.join(picked.values())}, and in the first file "
                    f"{', '.join(self._picked[self.files.infos[0].uri].values())}",
                    info.uri,
                    "Export all of them in one way.",
                )
            self._check_types(info)

    @property
    def rows(self) -> int:
        """All rows so far, good and bad."""
        return self._read + self.faults.rows("columns")

    def where(self, place: int) -> tuple[str, int]:
        """The file of a row and its number in it, by its `place`."""
        file = bisect_left(self._starts, place) - 1
        return self.files.infos[file].uri, place - self._starts[file]

    def tables(self) -> Iterator[pa.Table]:
        """The good rows, in the order of the files: `key` int64, the same for all rows of an
        impression; `reader`, `article`, `list` text, where a log without lists has the time as
        list; `time` int64 microseconds; `clicked`, `shown` bool; `position` float64; `place` int64,
        the number of the row, counted over all files.
        """
        end = 0
        for info in self.files.infos:
            self._starts.append(end)
            picked = self._picked[info.uri]
            for rows in self.files.rows(info, list(picked.values()), self.faults):
                if not len(rows.numbers):
                    continue
                good = self._good(info, picked, rows)
                end = self._starts[-1] + int(rows.numbers[-1])
                if len(good):
                    places = pl.col("number") + self._starts[-1]
                    yield self._table(good.with_columns(place=places))

    def _good(self, info: storage.FileInfo, picked: dict[str, str], rows: Rows) -> pl.DataFrame:
        """The good rows of a block, in which the values have one form. The others are counted."""
        table = pl.DataFrame(
            [
                convert(rows.table[picked[ours]].alias(ours)).alias(ours)
                for ours, convert in _VALUES.items()
                if ours in picked
            ]
        )
        table = table.with_columns(
            number=pl.Series(rows.numbers, dtype=pl.Int64),
            given=rows.table[picked["time"]].is_not_null(),
        )
        if "shown" not in picked:
            table = table.with_columns(shown=pl.lit(True))
        if "position" not in picked:
            table = table.with_columns(position=pl.lit(0.0))
        wrong = {
            "null_time": ~pl.col("given"),
            **{name: pl.col(name).is_null() for name in _VALUES if name in picked},
            # A row that only clicks needs none.
            "position": pl.col("position").is_null() & pl.col("shown"),
            "neither": ~(pl.col("shown") | pl.col("clicked")),
        }
        fault = pl.coalesce(
            pl.when(is_wrong).then(pl.lit(kind)) for kind, is_wrong in wrong.items()
        )
        table = table.with_columns(fault=fault)
        bad = table.filter(pl.col("fault").is_not_null())
        for kind, count, first in (
            bad.group_by("fault").agg(pl.len(), first=pl.col("number").min()).iter_rows()
        ):
            self.faults.add(kind, count, info.uri, first)
        self._read += len(table)
        return table.filter(pl.col("fault").is_null()).drop("fault", "given")

    def _table(self, good: pl.DataFrame) -> pa.Table:
        self.first = min(self.first, int(good["time"].to_numpy().min()))
        self.last = max(self.last, int(good["time"].to_numpy().max()))
        for name in IDS:
            if (
                name in good.columns
                and name not in self.texts
                and not log_values.are_integers(good[name])
            ):
                self.texts.add(name)
        articles = good["article"].unique()
        self.articles = pl.concat(
            [self.articles, articles.filter(~articles.is_in(self.articles.implode()))]
        )
        if "list" not in good.columns:
            good = good.with_columns(list=pl.col("time").cast(pl.String))
        key = hashes(
            hashes(good["reader"].to_arrow(compat_level=_ARROW))
            + hashes(good["list"].to_arrow(compat_level=_ARROW))
        )
        good = good.drop("number").with_columns(key=pl.Series(key.view(np.int64)))
        return good.to_arrow(compat_level=_ARROW)

    def _check_types(self, info: storage.FileInfo) -> None:
        schema = self.files.columns(info)
        for ours, name in self._picked[info.uri].items():
            kind = schema.field(name).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not _is_allowed(ours, kind):
                expected = (
                    "a timestamp, a number or text"
                    if ours == "time"
                    else "an integer or a string"
                    if ours in IDS
                    else "a number, true or false, or text"
                )
                raise schema_error(
                    f"Column `{name}` must be {expected}.",
                    str(kind),
                    info.uri,
                    "Cast the column to that type.",
                )


def _is_allowed(ours: str, kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_integer(kind) or types.is_null(kind):
        return True
    if types.is_string(kind) or types.is_large_string(kind):
        return True
    if ours in IDS:
        return False
    if types.is_floating(kind) or types.is_decimal(kind):
        return True
    return (
        types.is_timestamp(kind) or types.is_date(kind)
        if ours == "time"
        else types.is_boolean(kind)
    )
