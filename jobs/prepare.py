"""Bring data into the Parquet contract: `python -m jobs.prepare --source demo --output DATA`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from jobs.cli import run
from nrms.errors import ConfigError
from nrms.sources.article_vectors import WithVectors
from nrms.sources.config import PrepareConfig
from nrms.sources.demo import DemoSite
from nrms.sources.ebnerd import Ebnerd
from nrms.sources.log import Log
from nrms.sources.mind import Mind
from nrms.sources.writer import Source, write_dataset
from nrms.storage.scratch import scratch_folder


def main(config: PrepareConfig) -> None:
    """Writes the splits that are not there yet, with a progress bar, and says what it wrote."""
    with scratch_folder() as cache, ExitStack() as stack:
        source = open_source(config, cache)
        if config.document_vectors is not None or config.entity_vectors is not None:
            documents, entities = config.document_vectors, config.entity_vectors
            source = WithVectors(source, documents, entities, cache)
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
        what = "the log" if config.source == "log" else "the folder of the unzipped data"
        raise ConfigError(f"--input must be given with --source {config.source}: {what}.")
    if config.source == "log":
        if config.articles_input is None:
            raise ConfigError(
                "--articles-input must be given with --source log: the ids and titles of the "
                "articles."
            )
        return Log(config.input, config.articles_input, config, cache)
    if config.source == "ebnerd":
        return Ebnerd(config.input, cache)
    if config.split_name is None:
        raise ConfigError(
            "--split-name must be given with --source mind: train, validation or test."
        )
    return Mind(config.input, config.split_name, cache)


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.prepare") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, PrepareConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
