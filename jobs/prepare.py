"""Bring data into the Parquet contract: `python -m jobs.prepare --source demo --output DATA`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import restricted_number_type
from tqdm import tqdm

from jobs.cli import run
from nrms.config import DateText, PositiveInt, Seed, Text, option, put_date, required
from nrms.errors import ConfigError
from nrms.sources.demo import MIN_ARTICLES, DemoSite
from nrms.sources.ebnerd import Ebnerd
from nrms.sources.mind import Mind
from nrms.sources.writer import Source, write_dataset
from nrms.storage.scratch import scratch_folder

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
    articles: DemoArticles = option(4_000, "articles, published over 32 days")
    users: PositiveInt = option(3_000, "readers")
    seed: Seed = option(42, "seed of all that is made up; the same seed gives the same files")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(SourceConfig, DemoConfig):
    """Everything that the prepared data depend on."""

    def __post_init__(self) -> None:
        put_date(self, "output")


def main(config: PrepareConfig) -> None:
    """Writes the splits that are not there yet, with a progress bar, and says what it wrote."""
    with scratch_folder() as cache, ExitStack() as stack:
        source = open_source(config, cache)
        bars: dict[str, tqdm] = {}

        def progress(split: str, rows: int) -> None:
            if split not in bars:
                stack.close()
                bar = tqdm(
                    desc=split, total=source.rows[split], unit=" impressions", unit_scale=True
                )
                bars[split] = stack.enter_context(bar)
            bars[split].update(rows)

        written = write_dataset(
            source,
            config.output,
            shard_rows=config.shard_rows,
            overwrite=config.overwrite,
            progress=progress,
        )
    for split in source.parameters:
        if split in written:
            print(f"{split}: {bars[split].n:,} impressions")
        else:
            print(f"{split}: complete already, nothing to do")
    for note in source.notes:
        print(note)
    print(f"data: {config.output}")


def open_source(config: PrepareConfig, cache: Path) -> Source:
    """The source that the configuration names. Raises ConfigError when a flag it
    needs is missing.
    """
    if config.source == "demo":
        validation = config.validation_impressions or max(1, config.impressions // 4)
        return DemoSite(
            seed=config.seed,
            articles=config.articles,
            users=config.users,
            impressions=config.impressions,
            validation_impressions=validation,
            date=config.date,
        )
    if config.input is None:
        raise ConfigError(
            f"--input must be given with --source {config.source}: the folder of the unzipped data."
        )
    if config.source == "ebnerd":
        return Ebnerd(config.input, cache)
    if config.split_name is None:
        raise ConfigError(
            "--split-name must be given with --source mind: train, validation or test."
        )
    return Mind(config.input, config.split_name, cache)


if __name__ == "__main__":
    sys.exit(run(main, PrepareConfig, prog="python -m jobs.prepare", description=__doc__))
