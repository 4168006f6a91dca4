"""Writes a source in the Parquet contract. Shards come first, and the files that make them valid
last.

    <output>/articles.parquet
    <output>/<split>/behaviors-NNNNN.parquet    at most `shard_rows` rows each, in time order
                                                within each and from each to the next
    <output>/<split>/history.parquet            one row for each user
    <output>/<split>/manifest.json              source, parameters, rows, rows without a time;
                                                name, rows, size, crc32c of files
    <output>/<split>/_SUCCESS                   empty; written last

A manifest is written at the start, too, with source and parameters only. Without `_SUCCESS` it
marks an unfinished split, which the same command may write again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from nrms import storage
from nrms.data.schema import schema_error
from nrms.errors import ObjectNotFound, PreconditionFailed, StorageError
from nrms.sources.time_sort import TIME, sorted_by_time
from nrms.storage import commit, parquet
from nrms.storage.commit import SUCCESS, Found, Output
from nrms.storage.scratch import scratch_folder

SPLITS = ("train", "validation", "test")
_CONTENT = "the same data"  # the content that --output may already have, for messages

Parameters = dict[str, Any]


class Source(Protocol):
    """What `write_dataset` needs to know of a source.

    Attributes:
        name: "demo", "ebnerd", "mind" or "log".
        parameters: for each split to write, all that its content depends on, JSON-ready.
        rows: the number of impressions of each split; None where it is not known before reading.
        notes: what a user should know of the data, one line each; complete after reading.
    """

    name: str
    parameters: dict[str, Parameters]
    notes: list[str]

    @property
    def rows(self) -> Mapping[str, int | None]:
        """See the class."""
        ...

    def articles(self) -> pa.Table:
        """All articles, with the columns of the contract and perhaps others."""
        ...

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """The impressions of a split, in any order, in tables of any number of rows, all with the
        same columns.
        """
        ...

    def histories(self, split: str) -> Iterator[pa.Table]:
        """One row for each user, in at least one table. It is read after all of `behaviors`."""
        ...


def write_dataset(
    source: Source,
    output: str,
    *,
    shard_rows: int,
    overwrite: bool,
    progress: Callable[[str, int], None],
) -> list[str]:
    """Writes the splits of `source` that are not yet complete in `output`.

    Articles are added by id to those of other splits of the same source. Of two with one id, the
    first stays. Impressions are sorted by time, and those without a time come last. Memory holds
    one shard, two runs of `sorted_by_time`, the articles and what the source itself keeps.

    Args:
        source: the data to write.
        output: folder, local or `gs://`.
        shard_rows: most rows of a behaviours file.
        overwrite: whether to replace the splits, and other data that stand in their way.
        progress: called with the split and the number of impressions just written, which is 0 when
            a split begins.

    Returns:
        The names of the splits that were written; empty when all were complete.

    Raises:
        ConfigError: `output` holds other data.
        SchemaError: the source has no impressions or its articles do not fit those in `output`.
        StorageError: `output` could not be read or written.
    """
    # A split that is there but not wanted must be of the same source, with any parameters.
    plans: dict[str, dict[str, Any]] = {split: {"source": source.name} for split in SPLITS}
    for split, parameters in source.parameters.items():
        plans[split]["parameters"] = {**parameters, "shard_rows": shard_rows}
    outputs = {
        split: Output(storage.join(output, split), plan, _belongs, _CONTENT)
        for split, plan in plans.items()
    }
    articles = storage.join(output, "articles.parquet")
    looked = _look(articles, outputs, overwrite)
    wanted = list(source.parameters)
    incoming = None
    if overwrite or any(looked[split].success is None for split in wanted):
        # A source that is wrong is found out before the folder is claimed or cleared. Reading may
        # take long, so the folder is looked at again.
        incoming = source.articles()
        looked = _look(articles, outputs, overwrite)
    pending = _claim(articles, outputs, looked, wanted, overwrite)
    if pending:
        _write_articles(source, source.articles() if incoming is None else incoming, articles)
    for split in pending:
        _write_split(source, split, outputs[split], shard_rows, progress)
    return pending


def _look(articles: str, outputs: dict[str, Output], overwrite: bool) -> dict[str, Found]:
    """What lies in the folder of each split. Raises ConfigError where other data stand in the way
    that may not be overwritten.
    """
    looked = {split: commit.look(out.uri) for split, out in outputs.items()}
    if overwrite:
        return looked
    there = {split: found for split, found in looked.items() if found.is_occupied(_belongs)}
    for split, found in there.items():
        if not outputs[split].is_planned(found):
            raise outputs[split].taken(found)
    if not there and storage.exists(articles):
        raise commit.taken(_CONTENT, articles, "which holds other files")
    return looked


def _claim(
    articles: str,
    outputs: dict[str, Output],
    looked: dict[str, Found],
    wanted: list[str],
    overwrite: bool,
) -> list[str]:
    """Makes room for the wanted splits and marks them as unfinished. Gives the splits that have to
    be written.
    """
    there = {split: found for split, found in looked.items() if found.is_occupied(_belongs)}
    others = [split for split, found in there.items() if not outputs[split].is_planned(found)]
    kept = there.keys() - {*others, *(wanted if overwrite else [])}
    for split in there.keys() - kept:
        commit.clear(there[split], _belongs)
    if overwrite and not kept:
        storage.delete(articles)
    finished = [split for split in kept if there[split].success is not None]
    if finished and not _has_articles(articles):
        for split in finished:  # the articles of each have to be written again
            storage.delete(storage.join(outputs[split].uri, SUCCESS))
    return [split for split in wanted if outputs[split].claim()]


def _belongs(path: str) -> bool:
    return path.endswith(".parquet")


def _has_articles(uri: str) -> bool:
    with scratch_folder() as scratch:
        return _stored_articles(uri, scratch)[0] is not None


def _stored_articles(uri: str, folder: Path) -> tuple[pa.Table | None, str]:
    """The articles in `output`, None where they are missing or damaged; and their generation."""
    try:
        info = storage.stat(uri)
    except ObjectNotFound:
        return None, storage.ABSENT
    path = storage.fetch(info, folder)
    try:
        return parquet.read(path), info.generation
    except StorageError:
        return None, info.generation


def _write_articles(source: Source, incoming: pa.Table, uri: str) -> None:
    while True:
        with scratch_folder() as scratch:
            try:
                stored, generation = _stored_articles(uri, scratch)
                articles, conflicts = _join_articles(
                    incoming.slice(0, 0) if stored is None else stored, incoming, uri
                )
                if stored is None or len(articles) > len(stored):
                    path = scratch / "articles.parquet"
                    parquet.write(path, articles)
                    storage.upload(path, uri, if_generation=generation)
            except PreconditionFailed:  # another split's articles came first, and are joined
                continue
        if conflicts:
            source.notes.append(
                f"{conflicts:,} articles with another title than before (the first is kept)"
            )
        return


def _join_articles(stored: pa.Table, incoming: pa.Table, uri: str) -> tuple[pa.Table, int]:
    """All articles, of each id the first one; and the number of ids with different titles."""
    try:
        articles = pa.concat_tables([stored, incoming], promote_options="default")
    except pa.ArrowException as error:
        raise schema_error(
            "All splits of a data set must have the same article columns.",
            " ".join(str(error).split()),
            uri,
            "Prepare into another --output.",
        ) from error
    keys = pl.DataFrame(articles.select(["article_id", "title"])).with_row_index()
    groups = keys.group_by("article_id").agg(pl.col("index").min(), pl.col("title").n_unique())
    first = np.zeros(len(articles), bool)
    first[groups["index"].to_numpy()] = True
    # Taking them by number would join all text first, of which Arrow allows at most 2 GiB.
    return articles.filter(pa.array(first)), int((groups["title"] > 1).sum())


def _write_split(
    source: Source,
    split: str,
    output: Output,
    shard_rows: int,
    progress: Callable[[str, int], None],
) -> None:
    def add(tables: pa.Table | Iterable[pa.Table], name: str) -> int:
        with scratch_folder() as scratch:
            path = scratch / name
            written = output.write_part(path, tables)
            output.add(path)
            return written

    rows = untimed = 0
    progress(split, 0)
    with scratch_folder() as folder:
        in_order = sorted_by_time(source.behaviors(split), folder)
        for number, shard in enumerate(_shards(in_order, shard_rows)):
            rows += add(shard, f"behaviors-{number:05}.parquet")
            untimed += shard[TIME].null_count if TIME in shard.column_names else len(shard)
            progress(split, len(shard))
    if untimed:
        source.notes.append(f"{split}: {untimed:,} impressions without a time (they come last)")
    if not rows:
        raise schema_error(
            "A split must have impressions.", "none", f"the split {split}", "Check --input."
        )
    add(source.histories(split), "history.parquet")
    output.finish({"rows": rows, "rows_without_time": untimed})


def _shards(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows, of which the last may be shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + len(table) >= rows:
            yield pa.concat_tables([*waiting, table.slice(0, rows - count)])
            table = table.slice(rows - count)
            waiting, count = [], 0
        if len(table):
            waiting.append(table)
            count += len(table)
    if waiting:
        yield pa.concat_tables(waiting)
