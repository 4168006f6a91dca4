"""Reads EB-NeRD (Kruse et al., arXiv:2410.03432), as unzipped from ebnerd_demo, small, large or
testset.

    DIR/articles.parquet
    DIR/train|validation|test/behaviors.parquet, history.parquet    at least one of the splits, in
                                                                    any form that `nrms.data.layout`
                                                                    finds

Its columns are those of the contract, and all other columns are kept. The test split has no clicks.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from nrms import storage
from nrms.data.joins import refuse_strange_files
from nrms.data.layout import describe, find_files
from nrms.data.parquet import open_parquet
from nrms.data.schema import ARTICLES, BEHAVIORS, HISTORY, Column, Families, schema_error
from nrms.errors import ObjectNotFound
from nrms.sources.writer import SPLITS, Parameters
from nrms.storage.commit import fingerprint

_CLICKS = "article_ids_clicked"
# These are required here, but optional in the contract.
_OWN = {_CLICKS, "impression_time", "impression_time_fixed"}


class Ebnerd:
    """The splits of one unzipped EB-NeRD folder, local or `gs://`; a `Source` for `write_dataset`.

    Args:
        folder: the DIR above.
        cache: local folder for downloads from a bucket.

    Raises:
        SchemaError: a file is missing, is not Parquet, or lacks columns of EB-NeRD; or the files do
            not belong together.
        StorageError: a file could not be read.
    """

    name = "ebnerd"

    def __init__(self, folder: str, cache: Path) -> None:
        self._folder, self._cache = folder, cache
        self._articles = self._articles_file()
        self._files: dict[tuple[str, str], list[storage.FileInfo]] = {}
        self.parameters: dict[str, Parameters] = {}
        self.rows: dict[str, int | None] = {}
        self.notes: list[str] = []
        families: Families = {}
        articles = self._check([self._articles], ARTICLES, families)
        for split in SPLITS:
            uri = storage.join(folder, split)
            if storage.list_files(uri):
                found = find_files(uri)
                inputs = {"articles.parquet": self._articles}
                for stem, contract in (("behaviors", BEHAVIORS), ("history", HISTORY)):
                    files = list(found.files[stem].values())
                    inputs |= found.files[stem]
                    self._files[split, stem] = files
                    rows = self._check(files, _columns(contract, split), families)
                    self.rows.setdefault(split, rows)
                refuse_strange_files(
                    self._files[split, "behaviors"],
                    self._files[split, "history"],
                    self._articles,
                    cache,
                    uri,
                )
                self.notes += found.warnings
                self.parameters[split] = {
                    "input": {name: fingerprint(info, cache) for name, info in inputs.items()},
                    # Data sets of earlier releases, without this, are in the order of the files.
                    "order": "time",
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
        return pa.concat_tables(list(self._tables([self._articles], ARTICLES)))

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """All columns of the split's behaviours, in the order of the files."""
        return self._tables(self._files[split, "behaviors"], BEHAVIORS)

    def histories(self, split: str) -> Iterator[pa.Table]:
        """All columns of the split's histories, in the order of the files."""
        return self._tables(self._files[split, "history"], HISTORY)

    def _articles_file(self) -> storage.FileInfo:
        try:
            return storage.stat(storage.join(self._folder, "articles.parquet"))
        except ObjectNotFound as error:
            raise schema_error(
                "EB-NeRD must have the file articles.parquet.",
                describe(self._folder),
                self._folder,
                "Give --input the folder that the archive was unzipped to.",
            ) from error

    def _check(
        self, files: list[storage.FileInfo], columns: tuple[Column, ...], families: Families
    ) -> int:
        rows = 0
        for info in files:
            with open_parquet(info, self._cache, columns, families) as reader:
                rows += reader.rows
        return rows

    def _tables(
        self, files: list[storage.FileInfo], contract: tuple[Column, ...]
    ) -> Iterator[pa.Table]:
        """All rows of the files, with the columns of all files. A column that a file lacks is null
        in its rows.
        """
        empty = []
        for info in files:
            with open_parquet(info, self._cache, contract, {}) as reader:
                empty.append(next(reader.tables()))
        try:
            schema = pa.unify_schemas(
                [table.schema for table in empty], promote_options="permissive"
            )
        except pa.ArrowException as error:
            raise schema_error(
                "All files of a split must have the same columns.",
                " ".join(str(error).split()),
                storage.parent(files[0].uri),
                "Cast them to one type.",
            ) from error
        for info in files:
            with open_parquet(info, self._cache, contract, {}) as reader:
                for table in reader.tables():
                    if table.schema != schema:
                        table = pa.concat_tables(
                            [schema.empty_table(), table], promote_options="permissive"
                        )
                    yield table


def _columns(contract: tuple[Column, ...], split: str) -> tuple[Column, ...]:
    """The contract, with the columns required that EB-NeRD always has: times, and clicks except in
    the test split.
    """
    required = _OWN - {_CLICKS} if split == "test" else _OWN
    return tuple(
        replace(column, required=column.required or column.name in required) for column in contract
    )
