"""The class of the models that `nrms.load` gives to other Python programs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pyarrow as pa

from nrms import bundles, storage
from nrms.data.articles import Articles
from nrms.data.config import WarningsConfig
from nrms.data.dataset import Dataset
from nrms.data.layout import SplitFiles
from nrms.data.schema import schema_error
from nrms.errors import ConfigError, SchemaError
from nrms.inference.article_vectors import ArticleVectors
from nrms.inference.loaded_model import LoadedModel, RuntimeName
from nrms.inference.table import prediction_table
from nrms.inference.vectors import NEWS_VECTORS
from nrms.inference.whole import score_whole
from nrms.storage import parquet
from nrms.storage.scratch import scratch_folder

Table = Any  # of Polars, pandas or Arrow; or the path of a Parquet file


class Model:
    """A published model in memory. It scores as the nightly job and the service do.

    Its arguments may be tables of Polars, pandas or Arrow, or paths or `gs://` URIs of Parquet
    files, with the columns of a data set. The vectors of articles are kept in memory, so the next
    call with the same articles is faster. Only one thread at a time may use a model.

    Args:
        uri: see `nrms.load`.
        runtime: see `nrms.load`.

    Attributes:
        uri: the version's folder.
        version: the version's name.
    """

    def __init__(self, uri: storage.Location, runtime: RuntimeName = "onnx") -> None:
        if runtime not in get_args(RuntimeName):
            raise ConfigError(
                f"runtime must be one of {', '.join(get_args(RuntimeName))}. Received: {runtime!r}."
            )
        with scratch_folder() as cache:
            self._bundle = bundles.load(storage.normal(uri), cache, [runtime])
            self._model = LoadedModel.open(self._bundle, runtime)
            _ = self._model.runtime  # read now, because the files are deleted after the block
        self._vectors = ArticleVectors(self._bundle.sha256, runtime)
        self.uri, self.version = self._bundle.uri, self._bundle.version

    def __repr__(self) -> str:
        return f"nrms.load({self.uri!r})"

    def score(self, articles: Table, history: Table, behaviors: Table) -> pl.DataFrame:
        """Scores every candidate of every impression.

        A `UserWarning` says what may make the scores wrong, such as many unknown candidates.

        Args:
            articles: `article_id`, `title`, and what else the model reads of an article.
            history: `user_id`, `article_id_fixed`; optional `impression_time_fixed`.
            behaviors: `impression_id`, `user_id`, `article_ids_inview`; optional
                `impression_time`, `article_ids_clicked`.

        Returns:
            A row for each impression, in their order, with `impression_id`, `user_id`,
            `article_ids_inview`, `scores` (list of Float32, higher is better), `ranks` (list of
            Int32, 1 = best), and `article_ids_clicked` where clicks were given.

        Raises:
            SchemaError: something breaks the contract of a data set.
            StorageError: a file cannot be read.
        """
        inputs = self._model.inputs
        with _scratch() as folder:
            files = {
                name: _file(name, given, folder)
                for name, given in {"history": history, "behaviors": behaviors}.items()
            }
            file = _file("articles", articles, folder)
            catalogue = self._model.catalogue(
                Articles.read(file, folder, inputs.columns), self._vectors
            )
            dataset = Dataset(str(folder), folder, file, catalogue.articles)
            scored = score_whole(
                self._model,
                catalogue,
                dataset,
                "tables",
                self._bundle.joins,
                WarningsConfig().max_unknown,
                files=SplitFiles({name: {name: info} for name, info in files.items()}),
            )
            table = prediction_table(scored.impressions, scored.scores)
        for text in scored.joins.warnings:
            warnings.warn(text, stacklevel=2)
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def encode(self, articles: Table) -> np.ndarray:
        """News vectors, for example for a search index: float32 `(articles, dim)`, with a row for
        each row of the table.

        Args:
            articles: as for `score`.

        Raises:
            ConfigError: the model has no news vectors, because it compares the candidates of a
                list.
            SchemaError: the table breaks the contract of a data set.
            StorageError: a file cannot be read.
        """
        if self._model.scoring == "lists":
            raise ConfigError(
                f"{self.uri}: a model must have news vectors to encode articles. Received: one "
                f"that scores {self._model.scoring}. Use score."
            )
        with _scratch() as folder:
            read = Articles.read(
                _file("articles", articles, folder), folder, self._model.inputs.columns
            )
        return self._model.catalogue(read, self._vectors).arrays[NEWS_VECTORS][1:]


@contextmanager
def _scratch() -> Iterator[Path]:
    """Gives the block a folder. Errors name its files as the caller does, without the folder."""
    with scratch_folder() as folder:
        try:
            yield folder
        except SchemaError as error:
            below = f"{folder}{os.sep}"
            parts = {name: text.replace(below, "") for name, text in error.parts.items()}
            raise SchemaError(str(error).replace(below, ""), parts) from None


def _file(name: str, given: Table, folder: Path) -> storage.FileInfo:
    """The Parquet file that was given, or one that a table was written to."""
    if isinstance(given, str | os.PathLike):
        return storage.stat(given)
    try:
        # Arrow's schema is left out, because it would restore types that the contract lacks, such
        # as the views of Polars.
        parquet.write(folder / name, pa.table(given), compression="none", store_schema=False)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise schema_error(
            f"`{name}` must be a table of Polars, pandas or Arrow, or the path of a Parquet file.",
            f"{type(given).__name__} ({' '.join(str(error).split())})",
            name,
            "Give one of these.",
        ) from error
    return storage.stat(folder / name)
