"""Writes a source into the Parquet contract: shards first, what makes them valid last.

    <output>/articles.parquet
    <output>/<split>/behaviors-NNNNN.parquet    at most `shard_rows` rows each
    <output>/<split>/history.parquet            one row for each user
    <output>/<split>/manifest.json              source, parameters, rows; name, rows, size, crc32c of files
    <output>/<split>/_SUCCESS                   empty; written last

A manifest stands there from the start, at first with source and parameters alone. Without `_SUCCESS` it marks
an unfinished split, which the same command may write again.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.parquet import open_parquet
from nrms.data.schema import ARTICLES, schema_error
from nrms.errors import ConfigError, ObjectNotFound, PreconditionFailed
from nrms.storage.scratch import scratch_folder

SPLITS = ("train", "validation", "test")
MANIFEST, SUCCESS = "manifest.json", "_SUCCESS"

Parameters = dict[str, Any]


class Source(Protocol):
    """What `write_dataset` needs to know of a source.

    Attributes:
        name: "demo", "ebnerd" or "mind".
        parameters: for each split to write, all that its content depends on (JSON values).
        rows: impressions of each split; None where that is not known before reading.
        notes: what a person should know of the data, one line each; complete after reading.
    """

    name: str
    parameters: dict[str, Parameters]
    rows: dict[str, int | None]
    notes: list[str]

    def articles(self) -> pa.Table:
        """All articles, with the contract's columns and any others."""
        ...

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """The impressions of a split in tables of any number of rows, all with the same columns."""
        ...

    def histories(self, split: str) -> Iterator[pa.Table]:
        """One row for each user, in at least one table; read after all of `behaviors`."""
        ...


def write_dataset(
    source: Source,
    output: str,
    *,
    shard_rows: int,
    overwrite: bool,
    progress: Callable[[str, int], None],
) -> list[str]:
    """Write the splits of `source` that are not complete in `output` yet.

    Articles are joined with those of other splits of the same source, by id; the article that was there first
    stays. Memory holds one shard, the articles and what the source itself keeps.

    Args:
        output: folder, local or `gs://`.
        shard_rows: most rows of a behaviours file.
        overwrite: replace the splits and whatever else keeps them from being written.
        progress: called with a split when it begins, and with the number of impressions just written.

    Returns:
        The splits that were written; none when all of them are complete.

    Raises:
        ConfigError: `output` holds other data.
        SchemaError: the source has no impressions or its articles do not fit those in `output`.
        StorageError: `output` could not be read or written.
    """
    wanted = {
        split: {"source": source.name, "parameters": {**parameters, "shard_rows": shard_rows}}
        for split, parameters in source.parameters.items()
    }
    pending = _claim(output, source.name, wanted, overwrite)
    if pending:
        _write_articles(source, storage.join(output, "articles.parquet"))
    for split in pending:
        _write_split(source, split, storage.join(output, split), wanted[split], shard_rows, progress)
    return pending


def checksum(path: Path) -> str:
    """crc32c of a local file: base64 of the big-endian value, as Google Cloud Storage gives it."""
    crc = google_crc32c.Checksum()
    with path.open("rb") as file:
        for _ in crc.consume(file, 1 << 20):
            pass
    return base64.b64encode(crc.digest()).decode()


def fingerprint(info: storage.FileInfo, cache: Path) -> Parameters:
    """Size and crc32c of an input file, by which a manifest tells whether its input is still the same."""
    return {"size": info.size, "crc32c": info.crc32c or checksum(storage.fetch(info, cache))}


def _claim(output: str, source: str, wanted: dict[str, Parameters], overwrite: bool) -> list[str]:
    """Make room for the splits in `wanted` and mark them as unfinished; gives those that have to be written."""
    articles = storage.join(output, "articles.parquet")
    has_articles = storage.exists(articles)
    listed = {split: _prepared_files(storage.join(output, split)) for split in SPLITS}
    manifests = {split: _read_manifest(files) for split, files in listed.items() if files}
    foreign = [split for split, manifest in manifests.items() if manifest.get("source") != source]
    stale = [split for split in wanted if split in manifests and not wanted[split].items() <= manifests[split].items()]
    if not overwrite:
        in_the_way = [storage.join(output, split) for split in foreign + stale]
        if has_articles and len(foreign) == len(manifests):
            in_the_way.append(articles)
        if in_the_way:
            raise ConfigError(
                f"--output must be empty or hold the same data. Received: {in_the_way[0]}, which has another source "
                "or other parameters. Choose another --output or pass --overwrite."
            )
    complete = [split for split in wanted if has_articles and SUCCESS in listed[split]]
    pending = [split for split in wanted if overwrite or split not in complete]
    if overwrite and set(manifests) <= {*wanted, *foreign}:
        storage.delete(articles)
    for split in {*pending, *foreign}:
        # What makes the split valid goes first: a run cut short in here must leave nothing that looks whole.
        storage.delete(storage.join(output, split, SUCCESS))
        if split in pending:
            _write_json(wanted[split], storage.join(output, split, MANIFEST))
        for name, info in listed[split].items():
            if split not in pending or name.endswith(".parquet"):
                storage.delete(info.uri)
    return pending


def _prepared_files(folder: str) -> dict[str, storage.FileInfo]:
    files = {info.uri[len(folder) + 1 :]: info for info in storage.list_files(folder)}
    return {name: info for name, info in files.items() if name in (MANIFEST, SUCCESS) or name.endswith(".parquet")}


def _read_manifest(files: dict[str, storage.FileInfo]) -> Parameters:
    try:
        manifest = json.loads(storage.read_bytes(files[MANIFEST]))
    except (KeyError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _write_json(value: Parameters, uri: str) -> None:
    storage.write_bytes(json.dumps(value, indent=1).encode() + b"\n", uri)


def _write_articles(source: Source, uri: str) -> None:
    incoming = source.articles()
    while True:
        with scratch_folder() as scratch:
            try:
                current = storage.stat(uri)
                with open_parquet(current, scratch, ARTICLES, {}) as reader:
                    stored = pa.concat_tables(list(reader.tables()))
                generation = current.generation
            except ObjectNotFound:
                stored, generation = incoming.slice(0, 0), storage.ABSENT
            articles, conflicts = _join_articles(stored, incoming, uri)
            if len(articles) > len(stored) or generation == storage.ABSENT:
                path = scratch / "articles.parquet"
                pq.write_table(articles, path, compression="zstd")
                try:
                    storage.upload(path, uri, if_generation=generation)
                except PreconditionFailed:  # another split's articles came first: join them
                    continue
        if conflicts:
            source.notes.append(f"{conflicts:,} articles with another title than before (the first is kept)")
        return


def _join_articles(stored: pa.Table, incoming: pa.Table, uri: str) -> tuple[pa.Table, int]:
    """All articles, each id once, first come first; and the number of ids with different titles."""
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
    # Not by their numbers: that joins the text of all first, and Arrow ends at 2 GiB of it.
    return articles.filter(pa.array(first)), int((groups["title"] > 1).sum())


def _write_split(
    source: Source,
    split: str,
    folder: str,
    manifest: Parameters,
    shard_rows: int,
    progress: Callable[[str, int], None],
) -> None:
    files = []
    progress(split, 0)
    for number, shard in enumerate(_shards(source.behaviors(split), shard_rows)):
        files.append(_write_parquet([shard], storage.join(folder, f"behaviors-{number:05}.parquet")))
        progress(split, len(shard))
    if not files:
        raise schema_error("A split must have impressions.", "none", f"the split {split}", "Check --input.")
    rows = sum(file["rows"] for file in files)
    files.append(_write_parquet(source.histories(split), storage.join(folder, "history.parquet")))
    _write_json({**manifest, "rows": rows, "files": files}, storage.join(folder, MANIFEST))
    storage.write_bytes(b"", storage.join(folder, SUCCESS))


def _shards(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows; the last may be shorter."""
    waiting, count = [], 0
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


def _write_parquet(tables: Iterable[pa.Table], uri: str) -> Parameters:
    """Write one file; gives its line in the manifest."""
    with scratch_folder() as scratch:
        path = scratch / storage.name(uri)
        tables = iter(tables)
        table = next(tables)
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            for table in tables:
                writer.write_table(table)
        rows = pq.read_metadata(path).num_rows
        size = storage.upload(path, uri).size
        return {"name": storage.name(uri), "rows": rows, "size": size, "crc32c": checksum(path)}
