"""The article table: one row number for each article, 0 for an unknown one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms import storage
from nrms.data.columns import row_numbers
from nrms.data.parquet import open_parquet
from nrms.data.quality import DataReport
from nrms.data.schema import ARTICLES, Column, Families, first_duplicate, refuse_nulls, schema_error


@dataclass(frozen=True)
class Articles:
    """The articles of a data set. Elsewhere an article is its row number: row r is `ids[r - 1]`,
    and row 0 stands for unknown articles.

    Attributes:
        ids: int64 or string, no nulls, no duplicates.
        titles: string, "" where the title is null.
        report: what was counted.
        published: `published_time`, datetime64[us] in UTC, NaT where null; None without such times.
        columns: what else was asked for, by name; of nulls where the file lacks it.
    """

    ids: pa.Array
    titles: pa.StringArray
    report: DataReport
    published: np.ndarray | None = None
    columns: dict[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: pa.Array) -> np.ndarray:
        """Row number of each id, int32 of shape `(len(ids),)`; 0 for an unknown or null one."""
        return row_numbers(ids, self.ids)

    @classmethod
    def read(
        cls, info: storage.FileInfo, cache: Path, columns: Sequence[Column] = ()
    ) -> "Articles":
        """Read `articles.parquet`, and of it the columns of the contract and these.

        Raises:
            SchemaError: unreadable, against the contract, without a row, null or duplicate ids.
        """
        families: Families = {}
        with open_parquet(info, cache, (*ARTICLES, *columns), families) as reader:
            read = reader.read()
            refuse_nulls("article_id", read["article_id"], info.uri)
            if not reader.rows:
                raise schema_error(
                    "There must be at least one article.", "0 rows", info.uri, "Add the articles."
                )
            ids = read["article_id"].cast(families["article"])
            titles = read["title"].cast(pa.string())
            published = reader.times_beside("published_time")
        if duplicate := first_duplicate(ids):
            raise schema_error(
                "Column `article_id` must be unique.",
                f"{duplicate[0]:,} of {len(ids):,} rows repeat an id, first {duplicate[1]!r}",
                info.uri,
                "Keep one row for each article.",
            )
        report = DataReport({"articles": len(ids), "null_title": titles.null_count})
        others = {column.name: read.get(column.name, pa.nulls(len(ids))) for column in columns}
        return cls(ids, pc.fill_null(titles, ""), report, published, others)

    def take(self, rows: np.ndarray) -> "Articles":
        """These articles alone, rows from 0. The report stays that of the file."""
        index = pa.array(rows)
        return replace(
            self,
            ids=self.ids.take(index),
            titles=self.titles.take(index),
            published=None if self.published is None else self.published[rows],
            columns={name: column.take(index) for name, column in self.columns.items()},
        )

    def extended(self, others: "Articles") -> "Articles":
        """These articles, and after them others of the same columns, of other ids."""
        times = [
            np.full(len(one), np.datetime64("NaT"), "datetime64[us]")
            if one.published is None
            else one.published
            for one in (self, others)
        ]
        untimed = self.published is None and others.published is None
        return replace(
            self,
            ids=pa.concat_arrays([self.ids, others.ids]),
            titles=pa.concat_arrays([self.titles, others.titles]),
            published=None if untimed else np.concatenate(times),
            columns={
                name: pa.chunked_array([column, others.columns[name]]).combine_chunks()
                for name, column in self.columns.items()
            },
        )
