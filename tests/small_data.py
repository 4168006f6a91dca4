"""Small data sets in the Parquet contract: two impressions, three users, four articles, and any
change to them.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nrms.data.dataset import Dataset
from nrms.data.impressions import ShardInput
from nrms.data.split import Split

START = datetime(2023, 5, 18, 7)
IDS = {
    "article_id",
    "user_id",
    "impression_id",
    "article_ids_inview",
    "article_ids_clicked",
    "article_id_fixed",
}


def at(*minutes: int | None) -> list[datetime | None]:
    return [None if m is None else START + timedelta(minutes=m) for m in minutes]


ARTICLES = {"article_id": [10, 20, 30, 40], "title": ["a", "b", "c", "d"]}
BEHAVIORS = {
    "impression_id": [1, 2],
    "user_id": [7, 8],
    "impression_time": at(0, 5),
    "article_ids_inview": [[10, 20, 30], [20, 40]],
    "article_ids_clicked": [[20], [40]],
}
HISTORY = {
    "user_id": [7, 8, 9],
    "article_id_fixed": [[10, 30], [40], []],
    "impression_time_fixed": [at(-9, -8), at(-7), []],
}
# What the three tables above come to.
COUNTS = {"users": 3, "history_entries": 3, "impressions": 2, "candidates": 5, "clicks": 2}
USER, CANDIDATES, CLICKED = [1, 2], [1, 2, 3, 2, 4], [False, True, False, False, True]
HISTORIES = [[0, 0, 0], [1, 3, 0], [4, 0, 0], [0, 0, 0]]


def as_strings(value: object) -> object:
    if isinstance(value, list):
        return [as_strings(item) for item in value]
    return value if value is None else f"N{value}"


class Folder:
    """Writes small data sets whose ids are all integers or all strings."""

    def __init__(self, path: Path, strings: bool) -> None:
        self.path, self.strings = path, strings

    def ids(self, values: list) -> list:
        return as_strings(values) if self.strings else values

    def write(
        self, name: str, columns: dict[str, list | pa.Array | None], **options: object
    ) -> Path:
        """Write a file; a column that is None is left out."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            column: self.ids(values) if column in IDS and isinstance(values, list) else values
            for column, values in columns.items()
            if values is not None
        }
        pq.write_table(pa.table(arrays), path, **options)
        return path

    def write_all(
        self,
        articles: dict | None = None,
        behaviors: dict | None = None,
        history: dict | None = None,
    ) -> None:
        self.write("articles.parquet", ARTICLES | (articles or {}))
        self.write("train/behaviors.parquet", BEHAVIORS | (behaviors or {}))
        self.write("train/history.parquet", HISTORY | (history or {}))

    def open(self) -> Dataset:
        return Dataset.open(str(self.path), self.path / "cache")

    def split(
        self, history_size: int = 3, name: str = "train", inputs: Sequence[ShardInput] = ()
    ) -> Split:
        return self.open().split(name, history_size, inputs)
