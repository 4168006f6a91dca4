"""Reads a table from CSV, gzipped CSV or Parquet files, one or a folder of them, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import csv

from nrms import storage
from nrms.data.layout import describe
from nrms.data.mistakes import near_name
from nrms.data.parquet import open_parquet
from nrms.data.schema import schema_error
from nrms.errors import ObjectNotFound, SchemaError
from nrms.sources.log_faults import Faults

_KINDS = {".parquet": "Parquet", ".csv": "CSV", ".csv.gz": "CSV"}
_BLOCK = 1 << 23  # bytes of a CSV that are parsed at once
_HEADER_BLOCK = 1 << 20  # where only the names of the columns are read
_HEADER = 2  # the number of the first row below a CSV's header


class Rows(NamedTuple):
    """Some rows of one file: their table, and their numbers, int64 of shape `(n,)`. The header of a
    CSV is row 1, and the first row of a Parquet file is row 1.
    """

    table: pl.DataFrame
    numbers: np.ndarray


class Files:
    """The files of one table.

    Args:
        uri: a file or a folder, local or `gs://`.
        flag: the flag that named it, for messages.
        cache: local folder for downloads from a bucket.

    Attributes:
        infos: the files, sorted by name.
        others: names of the files in the folder that are neither CSV nor Parquet.
        blank: rows of CSV files without any value, which are passed over.

    Raises:
        SchemaError: there is no such file, or there are CSV and Parquet files.
        StorageError: the folder could not be read.
    """

    def __init__(self, uri: str, flag: str, cache: Path) -> None:
        self.uri, self.blank, self._cache = uri, 0, cache
        self.others: list[str] = []
        try:
            self.infos = [storage.stat(uri)]
        except ObjectNotFound:
            paths = storage.list_paths(uri)
            self.infos = [info for path, info in paths.items() if _kind(path)]
            names = (storage.name(path) for path in paths if not _kind(path))
            self.others = [name for name in names if not name.startswith("_")]
        kinds = {_kind(info.uri) or "CSV" for info in self.infos}
        if len(kinds) != 1:
            raise schema_error(
                f"{flag} must name CSV files or Parquet files (.csv, .csv.gz, .parquet).",
                "both" if kinds else describe(uri),
                uri,
                f"Give {flag} one such file, or a folder of files of one kind.",
            )
        self._is_parquet = kinds == {"Parquet"}

    def columns(self, info: storage.FileInfo) -> pa.Schema:
        """The columns of a file; those of a CSV are strings. Raises SchemaError where it cannot be
        read.
        """
        if self._is_parquet:
            with open_parquet(info, self._cache, (), {}) as reader:
                return next(reader.tables()).schema
        with self._csv(info, None, Faults()) as reader:
            return pa.schema([(name, pa.string()) for name in reader.schema.names])

    def pick(
        self, info: storage.FileInfo, required: dict[str, str], optional: dict[str, str | None]
    ) -> dict[str, str]:
        """The names that columns have in a file.

        Args:
            info: the file.
            required: for each column its name in the file.
            optional: the same; None for a column that is read where it is there, by its own name.

        Raises:
            SchemaError: a column is missing or there twice.
        """
        there = self.columns(info).names
        picked = required | {ours: name for ours, name in optional.items() if name is not None}
        for ours, name in picked.items():
            if there.count(name) == 1:
                continue
            near = near_name(name, there)
            raise schema_error(
                f"Column `{name}` must be there once (--{ours.replace('_', '-')}-column names it).",
                f"the columns {', '.join(there) or '(none)'}",
                info.uri,
                "Name the right column with that flag"
                + (f", perhaps `{near}`." if near and near != name else "."),
            )
        return picked | {
            ours: ours for ours, name in optional.items() if name is None and ours in there
        }

    def rows(self, info: storage.FileInfo, names: list[str], faults: Faults) -> Iterator[Rows]:
        """The named columns of a file in blocks. Rows of a CSV with more or fewer columns than its
        header are counted in `faults` and left out. Raises SchemaError where the file cannot be
        read.
        """
        if self._is_parquet:
            start = 1
            with open_parquet(info, self._cache, (), {}) as reader:
                for table in reader.tables(*names):
                    table.validate(full=True)
                    rows = pl.DataFrame(table.combine_chunks())
                    yield Rows(rows, np.arange(start, start + len(rows)))
                    start += len(rows)
            return
        with self._csv(info, names, faults) as reader:
            start, skipped = _HEADER, reader.skipped
            for batch in reader.batches:
                # The parser is ahead of the batches with the rows that it skips.
                later = np.array(sorted(n for n in skipped if n >= start), np.int64)
                numbers = np.arange(start, start + len(batch) + len(later))
                numbers = np.setdiff1d(numbers, later, assume_unique=True)[: len(batch)]
                start = int(numbers[-1]) + 1 if len(numbers) else start
                skipped[:] = [number for number in skipped if number >= start]
                rows = pl.DataFrame(pa.Table.from_batches([batch]))
                is_blank = rows.select(pl.all_horizontal(pl.all().is_null())).to_series()
                self.blank += int(is_blank.sum())
                yield Rows(rows.filter(~is_blank), numbers[~is_blank.to_numpy()])

    @contextmanager
    def _csv(
        self, info: storage.FileInfo, names: list[str] | None, faults: Faults
    ) -> Iterator[_Csv]:
        path = storage.fetch(info, self._cache)
        skipped: list[int] = []

        def skip(row: csv.InvalidRow) -> str:
            skipped.append(row.number)
            faults.add("columns", 1, info.uri, row.number)
            return "skip"

        try:
            with path.open("rb") as file:
                is_gzip = file.read(2) == b"\x1f\x8b"
            with pa.input_stream(str(path), compression="gzip" if is_gzip else None) as stream:
                reader = csv.open_csv(
                    stream,
                    # With several threads rows have no numbers.
                    csv.ReadOptions(
                        block_size=_HEADER_BLOCK if names is None else _BLOCK, use_threads=False
                    ),
                    csv.ParseOptions(
                        newlines_in_values=True,
                        ignore_empty_lines=False,
                        invalid_row_handler=skip,
                    ),
                    csv.ConvertOptions(
                        include_columns=names,
                        column_types=dict.fromkeys(names or (), pa.string()),
                        null_values=[""],
                        strings_can_be_null=True,
                        check_utf8=True,
                    ),
                )
                yield _Csv(reader.schema, reader, skipped)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(error, info) from error


class _Csv(NamedTuple):
    schema: pa.Schema
    batches: csv.CSVStreamingReader
    skipped: list[int]  # numbers of rows that the parser has passed over


def _kind(path: str) -> str | None:
    return next((kind for end, kind in _KINDS.items() if path.lower().endswith(end)), None)


def _unreadable(error: BaseException, info: storage.FileInfo) -> SchemaError:
    return schema_error(
        "A CSV must be UTF-8 text with commas between its columns and their names in the first "
        "row, perhaps gzipped.",
        f"{info.size:,} bytes that fail with '{' '.join(str(error).split())}'",
        info.uri,
        "Export the file again.",
    )
