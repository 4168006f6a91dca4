"""Reads MIND (Wu et al., ACL 2020): `news.tsv` and `behaviors.tsv` of one split, as they are in its
archives.

    news.tsv       id, category, subcategory, title, abstract, url, title entities,
                   abstract entities
    behaviors.tsv  impression id, user id, time, history, impressions

Columns are separated by tabs, there is no header, and quotes have no meaning. A time is "11/15/2019
8:55:22 AM". A history is "N1 N2" or empty. Impressions are "N3-1 N4-0", or "N3 N4" in the test
split, whose clicks are not published.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import csv

from nrms import storage
from nrms.errors import SchemaError
from nrms.storage.commit import fingerprint

NEWS = (
    "article_id",
    "category_str",
    "subcategory_str",
    "title",
    "subtitle",  # MIND's abstract
    "url",
    "title_entities",
    "abstract_entities",
)
BEHAVIORS = ("impression_id", "user_id", "impression_time", "history", "impressions")

_TIME = pl.col("impression_time").str.to_datetime(
    "%m/%d/%Y %I:%M:%S %p", time_unit="us", strict=False
)
_IMPRESSION_ID = pl.col("impression_id").cast(pl.Int64, strict=False)
_LABELLED = r"^\S+-[01]( \S+-[01])*$"
_UNLABELLED = r"^[^\s-]+( [^\s-]+)*$"
_BLOCK = 1 << 24  # bytes of a file that are parsed at once, about 30,000 impressions
_HISTORY_ROWS = 65_536

_IDS = pa.list_(pa.string())
_BEHAVIORS_SCHEMA = pa.schema(
    {
        "impression_id": pa.int64(),
        "user_id": pa.string(),
        "impression_time": pa.timestamp("us"),
        "article_ids_inview": _IDS,
        "article_ids_clicked": _IDS,
    }
)
_HISTORY_SCHEMA = pa.schema({"user_id": pa.string(), "article_id_fixed": _IDS})


class Mind:
    """One split of MIND, local or `gs://`; a `Source` for `write_dataset`.

    MIND repeats a user's history in each impression. The one in the user's earliest impression is
    kept, because a later one could hold clicks to predict.

    Args:
        folder: the folder with news.tsv and behaviors.tsv.
        split: the name that the split gets, "train", "validation" or "test".
        cache: local folder for downloads from a bucket.

    Raises:
        StorageError: a file is missing or could not be read.
    """

    name = "mind"

    def __init__(self, folder: str, split: str, cache: Path) -> None:
        files = {
            name: storage.stat(storage.join(folder, name)) for name in ("news.tsv", "behaviors.tsv")
        }
        self._uris = {name: info.uri for name, info in files.items()}
        self._paths = {name: storage.fetch(info, cache) for name, info in files.items()}
        self.parameters = {
            split: {
                "input": {name: fingerprint(info, cache) for name, info in files.items()},
                # Data sets of earlier releases, without this, are in the order of the file.
                "order": "time",
            }
        }
        self.rows = {split: None}
        self.notes: list[str] = []
        self._users = _Users()

    def articles(self) -> pa.Table:
        """All articles with the columns of `NEWS`, which are strings.

        Raises:
            SchemaError: a line is malformed; the message gives its number.
        """
        tables, schema = [], pa.schema([(name, pa.string()) for name in NEWS])
        for line, news in self._read("news.tsv", NEWS):
            self._require(
                pl.col("article_id").str.contains(r"^\S+$"), "a news id", news, line, "news.tsv"
            )
            tables.append(news.to_arrow().cast(schema))
        return pa.concat_tables(tables)

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """The impressions in the order of the file. For a file without labels there is no column of
        clicks.

        Raises:
            SchemaError: a line is malformed; the message gives its number.
        """
        self._users = _Users()
        labelled = None
        for line, rows in self._read("behaviors.tsv", BEHAVIORS):
            if labelled is None:
                labelled = rows["impressions"].str.contains(_LABELLED)[0]
            self._check(rows, line, labelled)
            rows = rows.with_columns(_IMPRESSION_ID, _TIME, pl.col("impressions").str.split(" "))
            self._users.add(rows.select("user_id", "impression_time", "history"))
            ids, candidate = pl.col("impressions").list, pl.element()
            if labelled:
                clicked = candidate.filter(candidate.str.ends_with("-1"))
                lists = {
                    "article_ids_inview": ids.eval(candidate.str.head(-2)),
                    "article_ids_clicked": ids.eval(clicked.str.head(-2)),
                }
            else:
                lists = {"article_ids_inview": pl.col("impressions")}
            table = rows.select("impression_id", "user_id", "impression_time", **lists).to_arrow()
            yield table.cast(
                pa.schema([_BEHAVIORS_SCHEMA.field(name) for name in table.column_names])
            )

    def histories(self, split: str) -> Iterator[pa.Table]:
        """The users in the impressions that were read last, in order of appearance. A history may
        be an empty list.
        """
        users = self._users.finish()
        changing = int((users["lowest"] != users["highest"]).sum())
        if changing:
            self.notes.append(
                f"{changing:,} of {len(users):,} users have a history that changes "
                "(that of the earliest impression is kept)"
            )
        for part in users.iter_slices(_HISTORY_ROWS):
            ids = pl.col("history").str.extract_all(r"\S+")
            yield part.select("user_id", article_id_fixed=ids).to_arrow().cast(_HISTORY_SCHEMA)

    def _check(self, rows: pl.DataFrame, line: int, labelled: bool) -> None:
        if labelled:
            pattern, shape = _LABELLED, "candidates with labels, as N1-1 N2-0, like the first line"
        else:
            pattern, shape = (
                _UNLABELLED,
                "candidates as N1-1 N2-0, or throughout the file without labels as N1 N2",
            )
        for valid, rule in (
            (_IMPRESSION_ID.is_not_null(), "a whole number as impression id"),
            (pl.col("user_id").str.contains(r"^\S+$"), "a user id"),
            (_TIME.is_not_null(), "a time like 11/15/2019 8:55:22 AM"),
            (pl.col("impressions").str.contains(pattern), shape),
        ):
            self._require(valid, rule, rows, line, "behaviors.tsv")

    def _require(self, valid: pl.Expr, rule: str, rows: pl.DataFrame, line: int, name: str) -> None:
        wrong = rows.with_row_index().filter(~valid).head(1)
        if len(wrong):
            raise self._error(name, line + wrong["index"][0], rule)

    def _error(self, name: str, line: int | str, rule: str, received: str = "") -> SchemaError:
        if isinstance(line, int):
            received = self._line(name, line)
        shown = received if len(received) <= 200 else received[:197] + "..."
        return SchemaError(
            f"A line must have {rule}. Received: {shown}, in {self._uris[name]}, line {line}. "
            "Repair or remove the line."
        )

    def _line(self, name: str, number: int) -> str:
        """The line of the file, with escapes for characters that cannot be printed."""
        with self._paths[name].open("rb") as file:
            line = next(itertools.islice(file, number - 1, None), b"").rstrip(b"\r\n")
        text = line.decode("utf-8", "backslashreplace")
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )

    def _read(self, name: str, columns: tuple[str, ...]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Reads the file in blocks of string columns, each with the number of its first line,
        counted from 1.
        """
        line = 1
        try:
            for batch in csv.open_csv(
                self._paths[name],
                # With several threads errors do not give the number of the line.
                csv.ReadOptions(column_names=columns, block_size=_BLOCK, use_threads=False),
                csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
                csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
            ):
                rows = pl.DataFrame(batch).with_columns(pl.all().str.strip_chars())
                yield line, rows
                line += len(rows)
        except pa.ArrowInvalid as error:
            reason = " ".join(str(error).split())
            if reason == "Empty CSV file":
                raise SchemaError(
                    f"A file must have at least one line. Received: none, in {self._uris[name]}. "
                    f"Copy it again."
                ) from error
            at = re.search(r"Row #(\d+): ", reason)
            raise self._error(
                name,
                int(at[1]) if at else f"{line} or later",
                f"{len(columns)} tab-separated columns of UTF-8 text ({', '.join(columns)})",
                reason,
            ) from error


class _Users:
    """Finds the history in each user's earliest impression, from impressions in any order."""

    def __init__(self) -> None:
        self._kept: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        digest = pl.col("history").hash()
        self._kept.append(self._earliest(rows.with_columns(lowest=digest, highest=digest)))
        # This is not done for every block, because the time would grow with blocks times users.
        if sum(map(len, self._kept[1:])) > len(self._kept[0]):
            self.finish()

    def finish(self) -> pl.DataFrame:
        self._kept = [self._earliest(pl.concat(self._kept))]
        return self._kept[0]

    @staticmethod
    def _earliest(rows: pl.DataFrame) -> pl.DataFrame:
        first = pl.col("impression_time").arg_min()
        return rows.group_by("user_id", maintain_order=True).agg(
            pl.col("impression_time", "history").get(first),
            pl.col("lowest").min(),
            pl.col("highest").max(),
        )
