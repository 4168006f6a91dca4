"""Reads the articles that belong to a log from CSV or Parquet files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from nrms.data.schema import schema_error
from nrms.sources import log_values
from nrms.sources.config import LogConfig
from nrms.sources.log_faults import Faults
from nrms.sources.log_files import Files

# Our names of columns that have another name in the contract.
_CONTRACT = {"category": "category_str"}


class LogArticles:
    """The articles that belong to a log.

    Args:
        uri: a file or a folder of CSV, gzipped CSV or Parquet files.
        config: the names of the columns.
        cache: local folder for downloads from a bucket.

    Attributes:
        files: the files.
        faults: the rows without an id.
        notes: what a user should know, one line each.

    Raises:
        SchemaError: a file cannot be read, or a column is missing or of a wrong type.
        StorageError: a file could not be read.
    """

    def __init__(self, uri: str, config: LogConfig, cache: Path) -> None:
        self.files = Files(uri, "--articles-input", cache)
        self.faults = Faults()
        self.notes: list[str] = []
        required = {"article_id": config.article_id_column, "title": config.title_column}
        optional = {
            "published_time": config.published_time_column,
            "category": config.category_column,
        }
        self._picked = {
            info.uri: self.files.pick(info, required, optional) for info in self.files.infos
        }
        for info in self.files.infos:
            schema = self.files.columns(info)
            if repeated := {name for name in schema.names if schema.names.count(name) > 1}:
                raise schema_error(
                    "Each column of an article must be there once.",
                    f"{', '.join(sorted(repeated))} more than once",
                    info.uri,
                    "Rename or drop the others.",
                )
            for ours, kinds in {"article_id": ("integer", "string"), "title": ("string",)}.items():
                name = self._picked[info.uri][ours]
                kind = schema.field(name).type
                if not any(getattr(pa.types, f"is_{each}")(_text(kind)) for each in kinds):
                    raise schema_error(
                        f"Column `{name}` must be {' or '.join(f'a {each}' for each in kinds)}.",
                        str(kind),
                        info.uri,
                        "Cast the column to that type.",
                    )

    def read(self, most_bad: float) -> pl.DataFrame:
        """All articles: `article_id` as text, `title`, `published_time` as datetime and
        `category_str` where they are given, and all other columns. Rows without an id are counted
        and left out.

        Raises:
            SchemaError: more than the share `most_bad` of the rows have no id; or a file cannot be
                read.
        """
        parts = []
        for info in self.files.infos:
            names = self.files.columns(info).names
            for rows in self.files.rows(info, names, self.faults):
                part = self._renamed(rows.table, self._picked[info.uri])
                part = part.with_columns(log_values.ids(part["article_id"]))
                bad = part["article_id"].is_null()
                if bad.any():
                    first = int(rows.numbers[bad.to_numpy()][0])
                    self.faults.add("article", int(bad.sum()), info.uri, first)
                parts.append(part.filter(~bad))
        if not any(map(len, parts)):
            raise schema_error(
                "There must be articles.",
                f"none with an id, {self.faults.total:,} without",
                self.files.uri,
                "Check --articles-input.",
            )
        try:
            articles = pl.concat(parts, how="diagonal_relaxed")
        except pl.exceptions.PolarsError as error:
            raise schema_error(
                "All files of articles must have the same columns.",
                " ".join(str(error).split()),
                self.files.uri,
                "Cast them to one type.",
            ) from error
        total = len(articles) + self.faults.total
        self.faults.check(total, most_bad, self.files.uri)
        repeated = len(articles) - articles["article_id"].n_unique()
        if repeated:
            self.notes.append(f"{repeated:,} articles whose id came before (the first is kept)")
        return self._timed(articles)

    def _timed(self, articles: pl.DataFrame) -> pl.DataFrame:
        if "published_time" not in articles.columns:
            return articles
        given = articles["published_time"]
        times = log_values.times(given).cast(pl.Datetime("us")).alias("published_time")
        lost = int((times.is_null() & given.is_not_null()).sum())
        if lost:
            self.notes.append(f"{lost:,} articles whose published_time is no time (left out)")
        return articles.with_columns(times)

    def _renamed(self, table: pl.DataFrame, picked: dict[str, str]) -> pl.DataFrame:
        named = [table[name].alias(_CONTRACT.get(ours, ours)) for ours, name in picked.items()]
        taken = {column.name for column in named}
        others = table.select(pl.exclude(list(picked.values())))
        return pl.DataFrame([*named, *(column for column in others if column.name not in taken)])


def _text(kind: pa.DataType) -> pa.DataType:
    """The type of the values, with one type for all strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) else kind
