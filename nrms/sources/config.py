"""The flags of preparing a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import restricted_number_type

from nrms.config import (
    DateText,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Text,
    option,
    put_date,
    required,
)
from nrms.sources.demo import MIN_ARTICLES

if TYPE_CHECKING:
    DemoArticles = int
else:
    DemoArticles = restricted_number_type(
        "DemoArticles", int, (">=", MIN_ARTICLES), docstring=f"a whole number >= {MIN_ARTICLES}"
    )


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Source and output"""

    source: Literal["demo", "ebnerd", "mind", "log"] = required(
        "what to prepare: made-up data, a public data set, or the log of a site of your own"
    )
    input: Text | None = option(
        None,
        "ebnerd, mind: folder or gs:// URI that holds articles.parquet and the splits, or news.tsv "
        "and behaviors.tsv; log: a file or folder of .csv, .csv.gz or .parquet",
    )
    split_name: Literal["train", "validation", "test"] | None = option(
        None, "mind: the split that --input becomes in --output"
    )
    document_vectors: Text | None = option(
        None,
        "ebnerd, mind, log: Parquet file of article_id and one column of vectors, as EB-NeRD's; "
        "they become the column document_vector",
    )
    entity_vectors: Text | None = option(
        None,
        "mind: entity_embedding.vec; the mean vector of an article's entities becomes the column "
        "entity_vector",
    )
    output: Text = required("where the data set goes: a folder or gs:// URI")
    date: DateText | None = option(
        None,
        "stands for {date} in --output; demo: only this day of the same site, as the split "
        "validation",
    )
    shard_rows: PositiveInt = option(
        100_000, "impressions in a file, at most; training holds one file in memory"
    )
    overwrite: bool = option(False, "replace other data in --output")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Size of the demo data"""

    impressions: PositiveInt = option(20_000, "impressions to train on, spread over 7 days")
    validation_impressions: PositiveInt | None = option(
        None, "impressions to validate on, in the 2 days after; not set: a quarter of --impressions"
    )
    articles: DemoArticles = option(6_400, "articles, published over 32 days")
    users: PositiveInt = option(1_400, "readers")
    seed: Seed = option(42, "seed of all that is made up; the same seed gives the same files")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Your own log"""

    articles_input: Text | None = option(
        None, "the articles: a CSV or Parquet file or a folder of them, here or in a bucket"
    )
    time_column: Text = option("time", "column of --input: when, in ISO 8601 or since 1970")
    reader_column: Text = option("reader", "column of --input: id of the reader")
    article_column: Text = option("article", "column of --input: id of the article")
    clicked_column: Text = option("clicked", "column of --input: 1 if it was clicked, else 0")
    shown_column: Text | None = option(
        None,
        "column of --input: 1 if the row shows the article, 0 if it only tells a click; not set: "
        "`shown` where there is one, else each row shows its article",
    )
    list_column: Text | None = option(
        None,
        "column of --input: id of the list or page view that showed the article; not set: `list` "
        "where there is one, else a reader's rows of one time are a list",
    )
    position_column: Text | None = option(
        None,
        "column of --input: place in the list, a number; not set: `position` where there is one, "
        "else the order of the rows",
    )
    article_id_column: Text = option("article_id", "column of --articles-input: id of the article")
    title_column: Text = option("title", "column of --articles-input: the title")
    published_time_column: Text | None = option(
        None,
        "column of --articles-input: when it was published; not set: `published_time` where there "
        "is one",
    )
    category_column: Text | None = option(
        None, "column of --articles-input: its category; not set: `category` where there is one"
    )
    history_days: PositiveFloat = option(
        1.0, "days at the start of the log whose clicks only feed the histories to train on"
    )
    validation_days: PositiveFloat = option(
        1.0, "days at the end of the log to validate on; those between are trained on"
    )
    max_bad: Share = option(0.01, "share of bad rows above which the job stops")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(SourceConfig, DemoConfig, LogConfig):
    """All flags of preparing a data set. `{date}` in `output` is replaced, see `put_date`."""

    def __post_init__(self) -> None:
        put_date(self, "output")
