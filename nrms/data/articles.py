"""The article table: one row number for each article, 0 for an unknown one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms import storage
from nrms.data.columns import row_numbers
from nrms.data.parquet import open_parquet
from nrms.data.quality import DataReport
from nrms.data.schema import ARTICLES, first_duplicate, refuse_nulls, schema_error


@dataclass(frozen=True)
class Articles:
    """The articles of a data set. Inside, an article is its row number: row r is `ids[r - 1]`, 0 is
    unknown.

    Attributes:
        ids: int64 or string, no nulls, no duplicates.
        titles: string, "" where the title is null.
        report: what was counted.
        published: `published_time`, datetime64[us] in UTC, NaT where null; None without such times.
    """

    ids: pa.Array
    titles: pa.StringArray
    report: DataReport
    published: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: pa.Array) -> np.ndarray:
        """Row number of each id, int32 of shape `(len(ids),)`; 0 for an unknown or null one."""
        return row_numbers(ids, self.ids)

    @classmethod
    def read(cls, info: storage.FileInfo, cache: Path) -> "Articles":
        """Read `articles.parquet`.

        Raises:
            SchemaError: unreadable, against the contract, without a row, null or duplicate ids.
        """
        families = {}
        with open_parquet(info, cache, ARTICLES, families) as reader:
            columns = reader.read()
            refuse_nulls("article_id", columns["article_id"], info.uri)
            if not reader.rows:
                raise schema_error(
                    "There must be at least one article.", "0 rows", info.uri, "Add the articles."
                )
            ids = columns["article_id"].cast(families["article"])
            titles = columns["title"].cast(pa.string())
            published = reader.times_beside("published_time")
        if duplicate := first_duplicate(ids):
            raise schema_error(
                "Column `article_id` must be unique.",
                f"{duplicate[0]:,} of {len(ids):,} rows repeat an id, first {duplicate[1]!r}",
                info.uri,
                "Keep one row for each article.",
            )
        report = DataReport({"articles": len(ids), "null_title": titles.null_count})
        return cls(ids, pc.fill_null(titles, ""), report, published)
