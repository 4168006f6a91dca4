"""A vector that somebody else has made of an article: of its text, its entities or its image."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nrms.data.articles import Articles
from nrms.data.columns import unnest
from nrms.data.schema import VECTORS, Column, schema_error
from nrms.errors import ArtifactError
from nrms.features.inputs import ArticleInput, checked_size, registered

logger = logging.getLogger(__name__)

_LARGEST = 1e6  # an entry beyond it is taken for damage


@registered
class Vector(ArticleInput):
    """Vectors of articles: float32 `(articles, dim)`. An article without one has the mean vector of
    those that occur in training.

    Args:
        name: a name of `nrms.data.schema.VECTORS`, whose column is read, a list of floats.
        dim: size of a vector; 0 until it is fitted.
    """

    kind = "vector"
    dtype = "float32"

    def __init__(self, name: str, dim: int = 0) -> None:
        self.name = name
        self._column = VECTORS[name]
        self.columns = (Column(self._column, "numbers", required=False),)
        self.files = (f"{name}_mean.npy",)
        self._dim = checked_size(dim) if dim else 0
        self.axes = ("articles", dim)
        self._mean = np.zeros(dim, np.float32)

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return self._dim

    @property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `ArticleInput`."""
        return {"name": self.name, "dim": self._dim}

    def fit(self, articles: Articles, rows: np.ndarray) -> None:
        """Learns the size and the mean. Raises SchemaError: none of these articles has a vector, or
        they have different sizes.
        """
        values, there = self._vectors(articles.take(rows))
        if not there.any():
            raise schema_error(
                f"Column `{self._column}` must hold vectors for a model that reads them.",
                f"{len(rows):,} articles of training, none with one",
                "articles.parquet",
                "Add that column to articles.parquet, or leave this input out.",
            )
        if not there.all():
            logger.warning(
                "%s: %s of %s articles of training have none, and get the mean vector",
                *(self.name, f"{int((~there).sum()):,}", f"{len(there):,}"),
            )
        self._dim = values.shape[1]
        self.axes = ("articles", values.shape[1])
        self._mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Writes the mean."""
        np.save(folder / self.files[0], self._mean)

    def load(self, files: Mapping[str, Path]) -> None:
        """Reads the mean. Raises ArtifactError: it is damaged."""
        path = files[self.files[0]]
        try:
            mean = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise _damaged(path, " ".join(str(error).split())[:100]) from error
        if mean.dtype != np.float32 or mean.shape != (self.dim,) or not np.isfinite(mean).all():
            raise _damaged(path, f"{mean.dtype} of shape {mean.shape}")
        self._mean = mean

    def encode(self, articles: Articles) -> np.ndarray:
        """See the class. Raises SchemaError: the vectors have another size than in training."""
        values, there = self._vectors(articles)
        out = np.tile(self._mean, (len(articles), 1))
        if not there.any():
            return out
        if values.shape[1] != self.dim:
            raise schema_error(
                f"Column `{self._column}` must hold vectors of the size of training, {self.dim}.",
                f"vectors of size {values.shape[1]}",
                "articles.parquet",
                "Write vectors of the same kind, or train again.",
            )
        out[there] = values
        return out

    def _vectors(self, articles: Articles) -> tuple[np.ndarray, np.ndarray]:
        """The vectors that there are, float32 `(vectors, dim)`, and for each article whether it has
        one, bool `(articles,)`.
        """
        column = articles.columns[self._column]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        offsets, flat = unnest(column)
        lengths = np.diff(offsets)
        there = lengths > 0
        sizes = np.unique(lengths[there])
        if len(sizes) > 1:
            raise schema_error(
                f"Column `{self._column}` must hold vectors of one size.",
                f"vectors of sizes {', '.join(str(size) for size in sizes[:5].tolist())}",
                "articles.parquet",
                "Write vectors of one kind.",
            )
        if not len(sizes):
            return np.empty((0, 0), np.float32), there
        values = flat.cast(pa.float32()).to_numpy(zero_copy_only=False).reshape(-1, sizes[0])
        usable = (np.abs(values) < _LARGEST).all(axis=1)  # not where there is NaN
        there[there] = usable
        return values[usable], there


def _damaged(path: Path, received: str) -> ArtifactError:
    return ArtifactError(
        f"{path.name} must be the mean vector that training wrote. Received: {received}. Publish "
        "the model again."
    )
