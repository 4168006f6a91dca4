"""EB-NeRD (Kruse et al., arXiv:2410.03432) as unzipped from ebnerd_demo, small, large or testset.

    DIR/articles.parquet
    DIR/train|validation|test/behaviors.parquet, history.parquet    the splits that are there

Its columns are the contract's own; every other column passes through. The test split has no clicks.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.schema import (
    ARTICLES,
    BATCH_ROWS,
    BEHAVIORS,
    HISTORY,
    Column,
    Families,
    open_parquet,
    schema_error,
)
from nrms.data.sources.writer import SPLITS, Parameters, fingerprint
from nrms.errors import ObjectNotFound

_CLICKS = "article_ids_clicked"
_OWN = {_CLICKS, "impression_time", "impression_time_fixed"}  # required here, optional in the contract


class Ebnerd:
    """The splits of one unzipped EB-NeRD folder, local or `gs://`; a `Source` for `write_dataset`.

    Args:
        folder: the DIR above.
        cache: local folder for downloads from a bucket.

    Raises:
        SchemaError: a file is missing, not Parquet, or has not the columns of EB-NeRD.
        StorageError: a file could not be read.
    """

    name = "ebnerd"

    def __init__(self, folder: str, cache: Path) -> None:
        self._folder, self._cache = folder, cache
        self._articles = self._stat("articles.parquet")
        self._behaviors: dict[str, storage.FileInfo] = {}
        self._histories: dict[str, storage.FileInfo] = {}
        self.parameters: dict[str, Parameters] = {}
        self.rows: dict[str, int | None] = {}
        self.notes: list[str] = []
        families: Families = {}
        articles = self._check(self._articles, ARTICLES, families)
        for split in SPLITS:
            if storage.exists(storage.join(folder, split, "behaviors.parquet")):
                self._behaviors[split] = self._stat(split, "behaviors.parquet")
                self._histories[split] = self._stat(split, "history.parquet")
                self.rows[split] = self._check(self._behaviors[split], _columns(BEHAVIORS, split), families)
                self._check(self._histories[split], _columns(HISTORY, split), families)
                files = (self._articles, self._behaviors[split], self._histories[split])
                names = ("articles.parquet", "behaviors.parquet", "history.parquet")
                self.parameters[split] = {
                    "input": {name: fingerprint(info, cache) for name, info in zip(names, files, strict=True)}
                }
        if not self.parameters:
            raise schema_error(
                f"EB-NeRD must have behaviors.parquet in one of the folders {', '.join(SPLITS)}.",
                f"articles.parquet ({articles:,} rows) and none of them",
                folder,
                "Give --input the folder that the archive was unzipped to.",
            )

    def articles(self) -> pa.Table:
        """All columns of articles.parquet."""
        return pa.concat_tables(list(self._tables(self._articles)))

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """All columns of the split's behaviors.parquet, in its order."""
        return self._tables(self._behaviors[split])

    def histories(self, split: str) -> Iterator[pa.Table]:
        """All columns of the split's history.parquet, in its order."""
        return self._tables(self._histories[split])

    def _stat(self, *parts: str) -> storage.FileInfo:
        try:
            return storage.stat(storage.join(self._folder, *parts))
        except ObjectNotFound as error:
            raise schema_error(
                f"EB-NeRD must have the file {'/'.join(parts)}.",
                "no such file",
                self._folder,
                "Give --input the folder that the archive was unzipped to.",
            ) from error

    def _check(self, info: storage.FileInfo, columns: tuple[Column, ...], families: Families) -> int:
        with open_parquet(info, self._cache, columns, families) as reader:
            return reader.rows

    def _tables(self, info: storage.FileInfo) -> Iterator[pa.Table]:
        # Opened by the contract's door for its errors, which cover all that is read inside the block.
        with (
            open_parquet(info, self._cache, (), {}),
            pq.ParquetFile(storage.fetch(info, self._cache)) as file,
        ):
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(BATCH_ROWS):
                yield pa.Table.from_batches([batch])


def _columns(contract: tuple[Column, ...], split: str) -> tuple[Column, ...]:
    """The contract with what EB-NeRD has on top: times, and clicks except in the test split."""
    required = _OWN - {_CLICKS} if split == "test" else _OWN
    return tuple(replace(column, required=column.required or column.name in required) for column in contract)
