"""Reads the log of any news site: flat rows of what was shown to whom, and what was clicked.

A row is an article that was shown to a reader at a time in a list, with clicked 0 or 1. Where the
log has a column `shown`, a row of 0 shows nothing and only tells a click on what its list has
shown. Rows of one reader and list are an impression.

    first row        + history_days               last row - validation_days            last row
    | clicks feed histories | train: impressions of this time | validation: those after |

The history of a reader holds the clicks before the split begins, so no impression is scored with a
click of its future.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from nrms import storage
from nrms.sources.config import LogConfig
from nrms.sources.log_articles import LogArticles
from nrms.sources.log_checks import check_splits, clock, missing_articles
from nrms.sources.log_lists import Spill, grouped_histories, grouped_lists
from nrms.sources.log_rows import LogRows
from nrms.sources.log_values import are_integers
from nrms.sources.writer import Parameters
from nrms.storage.commit import fingerprint

logger = logging.getLogger("nrms.sources")

_SPLITS = ("train", "validation")
_DAY = 86_400_000_000  # microseconds
_TIME = pa.timestamp("us")


class Log:
    """The splits of one log, local or `gs://`; a `Source` for `write_dataset`.

    The log is read when `articles` is called: its rows are sorted on disk, in `cache`. Memory holds
    two runs of `sorted_by_time`, a block of a file, the articles and the ids of those in the log.

    Args:
        log: a file or a folder of CSV, gzipped CSV or Parquet files.
        articles: the same, of the articles.
        config: the names of the columns, the days of the splits, and how many rows may be bad.
        cache: local folder for downloads from a bucket and for sorting.

    Raises:
        SchemaError: a file cannot be read, a column is missing or of a wrong type.
        StorageError: a file could not be read.
    """

    name = "log"

    def __init__(self, log: str, articles: str, config: LogConfig, cache: Path) -> None:
        self._config, self._cache = config, cache
        self._log = LogRows(log, config, cache)
        self._articles = LogArticles(articles, config, cache)
        self.notes: list[str] = []
        self.rows: dict[str, int | None] = dict.fromkeys(_SPLITS)
        columns = {name: value for name, value in vars(config).items() if name.endswith("_column")}
        days = {"history_days": config.history_days, "validation_days": config.validation_days}
        inputs = {
            name: {
                info.uri.removeprefix(storage.parent(uri)): fingerprint(info, cache)
                for info in files.infos
            }
            for name, uri, files in (
                ("input", log, self._log.files),
                ("articles", articles, self._articles.files),
            )
        }
        parameters = {**inputs, "columns": columns, **days}
        self.parameters: dict[str, Parameters] = dict.fromkeys(_SPLITS, parameters)
        self._starts: dict[str, int] = {}  # of the splits, microseconds
        self._impressions: dict[str, Spill] = {}
        self._clicks = Spill(self._folder("rows") / "clicks.arrow")

    def articles(self) -> pa.Table:
        """All articles, with every column of their files.

        Raises:
            SchemaError: too many rows are bad, the log is shorter than its splits, or none of its
                articles is there.
        """
        articles = self._articles.read(self._config.max_bad)
        if not self._impressions:
            self._read_log()
        for line in missing_articles(
            self._log.articles, articles["article_id"], self._articles.files.uri
        ):
            self._warn(line)
        if not are_integers(articles["article_id"]):
            self._log.texts.add("article")
        table = articles.to_arrow(compat_level=pl.CompatLevel.oldest())
        for name, kind in (("article_id", self._kind("article")), ("title", pa.string())):
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(kind))
        return table

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """The impressions of a split, in no order. Without lists an impression's id is the number
        of its first row, counted over all files.
        """
        article = pa.list_(self._kind("article"))
        has_lists = "list" in self._log.columns
        for table in self._impressions[split].tables():
            yield pa.table(
                {
                    "impression_id": table["list"].cast(self._kind("list"))
                    if has_lists
                    else table["place"],
                    "user_id": table["reader"].cast(self._kind("reader")),
                    "impression_time": table["time"].cast(_TIME),
                    "article_ids_inview": table["in_view"].cast(article),
                    "article_ids_clicked": table["clicked"].cast(article),
                }
            )

    def histories(self, split: str) -> Iterator[pa.Table]:
        """The clicks of each reader before the split begins, oldest first. Readers without any have
        no row.
        """
        schema = pa.schema(
            {
                "user_id": self._kind("reader"),
                "article_id_fixed": pa.list_(self._kind("article")),
                "impression_time_fixed": pa.list_(_TIME),
            }
        )
        yield schema.empty_table()
        start = self._starts[split]
        before = (table.filter(pc.less(table["time"], start)) for table in self._clicks.tables())
        for frame in grouped_histories(before, self._folder(f"histories-{split}")):
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            columns = (column.cast(kind) for column, kind in zip(table, schema.types, strict=True))
            yield pa.Table.from_arrays(list(columns), schema=schema)

    def _read_log(self) -> None:
        """Reads all rows, and puts impressions and clicks into files."""
        files = self._log.files
        size = sum(info.size for info in files.infos)
        logger.info("reading %s files of the log, %s bytes", f"{len(files.infos):,}", f"{size:,}")
        spills = {
            split: Spill(self._folder("rows") / f"{split}.arrow") for split in ("early", *_SPLITS)
        }
        unseen = repeated = long = 0
        first_unseen: int | None = None
        for lists in grouped_lists(self._log.tables(), self._folder("lists")):
            train, validation = self._split_starts()
            time = pl.col("time")
            spills["early"].rows += len(lists.impressions.filter(time < train))
            for split, inside in (
                ("train", (time >= train) & (time < validation)),
                ("validation", time >= validation),
            ):
                spills[split].add(lists.impressions.filter(inside))
            self._clicks.add(lists.clicks)
            repeated, long = repeated + lists.repeated, long + lists.long
            if len(lists.unseen):
                unseen += int(lists.unseen["rows"].sum())
                place = int(lists.unseen["place"].to_numpy().min())
                first_unseen = place if first_unseen is None else min(place, first_unseen)
        if first_unseen is not None:
            self._log.faults.add("unseen_click", unseen, *self._log.where(first_unseen))
        for spill in (*spills.values(), self._clicks):
            spill.close()
        self._log.faults.check(self._log.rows, self._config.max_bad, files.uri)
        counts = {split: spills[split].rows for split in _SPLITS}
        check_splits(self._log, self._config, counts)
        self.rows.update(counts)
        self._impressions = {split: spills[split] for split in _SPLITS}
        self._note(spills["early"].rows, repeated, long)

    def _split_starts(self) -> tuple[int, int]:
        """When the splits begin, known as soon as all rows are read."""
        train = self._log.first + round(self._config.history_days * _DAY)
        # The last row is in the last day.
        validation = self._log.last - round(self._config.validation_days * _DAY) + 1
        self._starts = {"train": train, "validation": validation}
        return train, validation

    def _note(self, early: int, repeated: int, long: int) -> None:
        train, validation = self._split_starts()
        self.notes += [
            f"{self._log.rows:,} rows from {clock(self._log.first)} to {clock(self._log.last)} "
            f"(UTC); train begins at {clock(train)}, validation at {clock(validation)}",
            f"{early:,} impressions before train are not trained on (their clicks are in the "
            "histories)",
        ]
        for line in [*self._log.faults.lines(), *self._articles.faults.lines()]:
            self._warn(line)
        self.notes += self._articles.notes
        for files in (self._log.files, self._articles.files):
            if files.others:
                self._warn(
                    f"{len(files.others):,} files of {files.uri} are neither CSV nor Parquet and "
                    f"are not read (the first: {files.others[0]})"
                )
        counts = {
            "rows without any value (passed over)": self._log.files.blank,
            "rows show an article that their list has shown already (the first place counts)": (
                repeated
            ),
            "impressions have rows more than a day apart: is an id of a list used again?": long,
        }
        self.notes += [f"{count:,} {words}" for words, count in counts.items() if count]

    def _warn(self, line: str) -> None:
        logger.warning("%s", line)
        self.notes.append(line)

    def _kind(self, name: str) -> pa.DataType:
        """The type of the ids of readers, articles or lists."""
        return pa.string() if name in self._log.texts else pa.int64()

    def _folder(self, name: str) -> Path:
        folder = self._cache / "log" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
