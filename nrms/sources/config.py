"""The flags of preparing a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import restricted_number_type

from nrms.config import DateText, PositiveInt, Seed, Text, option, put_date, required
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

    source: Literal["demo", "ebnerd", "mind"] = required(
        "what to prepare: made-up data, or a public data set"
    )
    input: Text | None = option(
        None,
        "ebnerd, mind: folder or gs:// URI that holds articles.parquet and the splits, or news.tsv "
        "and behaviors.tsv",
    )
    split_name: Literal["train", "validation", "test"] | None = option(
        None, "mind: the split that --input becomes in --output"
    )
    document_vectors: Text | None = option(
        None,
        "ebnerd, mind: Parquet file of article_id and one column of vectors, as EB-NeRD's; they "
        "become the column document_vector",
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
class PrepareConfig(SourceConfig, DemoConfig):
    """All flags of preparing a data set. `{date}` in `output` is replaced, see `put_date`."""

    def __post_init__(self) -> None:
        put_date(self, "output")
