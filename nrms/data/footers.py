"""Opens the files of a split for the first time and keeps what their footers say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from nrms import storage
from nrms.data.mistakes import first
from nrms.data.parquet import ParquetReader, open_parquet
from nrms.data.schema import Column, Families, schema_error
from nrms.errors import SchemaError


class Footers:
    """Opens the files of one split and keeps what their footers say.

    Args:
        split: The split's name, for warnings.
        cache: Folder for local copies.
        articles: `Articles.ids`.

    Attributes:
        rows: Rows of each file opened so far, by its uri.
        zones: An example of a column of times with a zone (True), and of one without (False), if
            there is one.
    """

    def __init__(self, split: str, cache: Path, articles: pa.Array) -> None:
        self._split, self._cache, self._articles = split, cache, articles
        self._families: Families = {"article": articles.type}
        self._hints: dict[str, str] = {}
        self.rows: dict[str, int] = {}
        self.zones: dict[bool, str] = {}

    @contextmanager
    def open(
        self, path: str, info: storage.FileInfo, contract: tuple[Column, ...]
    ) -> Iterator[ParquetReader]:
        """Open the file at `path` inside the split, as `open_parquet` does. Its ids must be of the
        types that the articles and the files before it have.
        """
        with (
            _beside(self._articles),
            open_parquet(info, self._cache, contract, self._families) as reader,
        ):
            for column, hint in reader.hints().items():
                self._hints.setdefault(column, f"{self._split}/{path}: {hint}")
            self.rows[info.uri] = reader.rows
            for column, zone in reader.zones.items():
                self.zones.setdefault(zone is not None, f"`{column}` in {self._split}/{path}")
            yield reader

    @property
    def user_type(self) -> pa.DataType:
        """The type that the users of the files opened so far have inside; int64 where there are no
        users.
        """
        return self._families.get("user", pa.int64())

    @property
    def warnings(self) -> list[str]:
        """What may make the results wrong, one line each."""
        return [*self._hints.values(), *mixed_zones(self._split, self.zones)]


def mixed_zones(split: str, zones: Mapping[bool, str]) -> list[str]:
    """A warning where some times have a zone and others do not. `zones` are those of `Footers`."""
    if len(zones) < 2:
        return []
    return [
        f"{split}: times without a zone are read as UTC: {zones[False]} has none, {zones[True]} "
        "has one. If the former are local times, histories can hold the clicks to predict, or lack "
        "others. Write all times in UTC."
    ]


@contextmanager
def _beside(articles: pa.Array) -> Iterator[None]:
    """Show the first articles beside ids of another type."""
    try:
        yield
    except SchemaError as error:
        parts = error.parts
        if "article ids of the same type" not in parts.get("rule", ""):
            raise
        received = f"{parts['received']}; articles begin {first(articles)}"
        raise schema_error(parts["rule"], received, parts["where"], parts["todo"]) from error
