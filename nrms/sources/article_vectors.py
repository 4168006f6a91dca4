"""Given vectors, of documents or of entities, as columns of articles.parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.columns import is_list, row_numbers
from nrms.data.schema import VECTORS, schema_error
from nrms.errors import SchemaError
from nrms.sources.writer import Parameters, Source
from nrms.storage.commit import fingerprint

_ENTITIES = ("title_entities", "abstract_entities")


class WithVectors:
    """A source whose articles get vectors from files; a `Source` for `write_dataset`. An article
    that no file knows has none.

    Args:
        source: the source.
        documents: a Parquet file of `article_id` and one column of lists of floats, as those of
            EB-NeRD; None for none.
        entities: a text file with a line for each entity, its id and its vector, separated by tabs,
            as MIND's `entity_embedding.vec`. An article gets the mean vector of the entities that
            its columns `title_entities` and `abstract_entities` name, each as often as it occurs;
            None for none.
        cache: local folder for downloads from a bucket.

    Raises:
        StorageError: a file is missing or could not be read.
    """

    def __init__(
        self, source: Source, documents: str | None, entities: str | None, cache: Path
    ) -> None:
        self._source = source
        given = {"vector": documents, "entities": entities}
        self._files = {name: storage.stat(uri) for name, uri in given.items() if uri is not None}
        self._paths = {name: storage.fetch(info, cache) for name, info in self._files.items()}
        prints = {name: fingerprint(info, cache) for name, info in self._files.items()}
        self.name, self.notes = source.name, source.notes
        self.parameters: dict[str, Parameters] = {
            split: {**parameters, "vectors": prints}
            for split, parameters in source.parameters.items()
        }

    @property
    def rows(self) -> Mapping[str, int | None]:
        """Those of the source."""
        return self._source.rows

    def articles(self) -> pa.Table:
        """Those of the source, with a column for each file. Raises SchemaError: a file is not what
        it should be.
        """
        articles = self._source.articles()
        for name, info in self._files.items():
            read = _of_documents if name == "vector" else _of_entities
            vectors = read(articles, self._paths[name], info.uri)
            if len(articles) == vectors.null_count:
                raise schema_error(
                    "A file of vectors must know articles of the source.",
                    f"none of {len(articles):,} articles has a vector",
                    info.uri,
                    "Give the file of the same data set.",
                )
            self.notes.append(
                f"{VECTORS[name]}: {vectors.null_count:,} of {len(articles):,} articles have none"
            )
            columns = [column for column in articles.column_names if column != VECTORS[name]]
            articles = articles.select(columns).append_column(VECTORS[name], vectors)
        return articles

    def behaviors(self, split: str) -> Iterator[pa.Table]:
        """Those of the source."""
        return self._source.behaviors(split)

    def histories(self, split: str) -> Iterator[pa.Table]:
        """Those of the source."""
        return self._source.histories(split)


def _of_documents(articles: pa.Table, path: Path, uri: str) -> pa.Array:
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        lists = [
            field.name
            for field in schema
            if is_list(field.type) and pa.types.is_floating(field.type.value_type)
        ]
        if "article_id" not in schema.names or len(lists) != 1:
            raise schema_error(
                "A file of document vectors must have `article_id` and one column of lists of "
                "floats.",
                f"columns {', '.join(f'{field.name} ({field.type})' for field in schema)}",
                uri,
                "Give a file such as EB-NeRD's contrastive_vector.parquet.",
            )
        table = file.read(columns=["article_id", lists[0]])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(uri, error) from error
    wanted = articles["article_id"].combine_chunks()
    known = table["article_id"].combine_chunks()
    if pa.types.is_integer(wanted.type) != pa.types.is_integer(known.type):
        wanted, known = wanted.cast(pa.string()), known.cast(pa.string())
    rows = row_numbers(wanted, known.cast(wanted.type))
    vectors = table[lists[0]].combine_chunks().cast(pa.list_(pa.float32()))
    return vectors.take(pa.array(rows - 1, mask=rows == 0))


def _of_entities(articles: pa.Table, path: Path, uri: str) -> pa.Array:
    try:
        lines = pl.read_csv(
            path, separator="\t", has_header=False, quote_char=None, infer_schema_length=10_000
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(uri, error) from error
    # The lines end with a tab, which makes an empty column.
    values = [name for name in lines.columns[1:] if lines[name].dtype.is_numeric()]
    columns = [name for name in _ENTITIES if name in articles.column_names]
    if not values or not columns:
        raise schema_error(
            "Entity vectors need lines of an entity and numbers, separated by tabs, and articles "
            f"with a column of {' or '.join(_ENTITIES)}.",
            f"{len(values)} columns of numbers, and articles of columns "
            f"{', '.join(articles.column_names)}",
            uri,
            "Give MIND's entity_embedding.vec, and MIND as the source.",
        )
    named = [
        pl.Series(articles[name].combine_chunks())
        .cast(pl.String)
        .fill_null("")
        .str.extract_all(r'"WikidataId"\s*:\s*"[^"]+"')
        for name in columns
    ]
    pairs = pl.concat(
        [
            pl.DataFrame({"article": np.arange(len(articles)), "entity": found})
            .explode("entity")
            .drop_nulls()
            .with_columns(pl.col("entity").str.extract(r':\s*"([^"]+)"'))
            for found in named
        ]
    )
    vectors = lines.rename({lines.columns[0]: "entity"}).unique("entity", keep="first")
    joined = pairs.join(vectors.with_columns(pl.col("entity").cast(pl.String)), on="entity")
    means = joined.group_by("article").agg(pl.col(values).mean().cast(pl.Float32)).sort("article")
    flat = means.select(values).to_numpy()
    offsets = pa.array(np.arange(len(means) + 1) * len(values), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(flat.ravel(), pa.float32()))
    places = np.full(len(articles), -1)
    places[means["article"].to_numpy()] = np.arange(len(means))
    return lists.take(pa.array(places, mask=places < 0))


def _unreadable(uri: str, error: Exception) -> SchemaError:
    return schema_error(
        "A file of vectors must be readable.",
        " ".join(str(error).split()) or type(error).__name__,
        uri,
        "Write it again.",
    )
