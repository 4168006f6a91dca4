"""Keeps news vectors by content from one night to the next, so that a model encodes an article
once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.errors import ObjectNotFound, PreconditionFailed, StorageError
from nrms.storage import parquet
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)

_KEY_BYTES = 16
_FLOATS = np.dtype("<f4")  # stored as bytes, in a tenth of the time that Parquet's lists take
_MODEL = b"nrms.model"  # key of the Parquet metadata
# A vector that is not used is kept for so many days, because a night is seldom scored later.
_KEPT_DAYS = 30


def default_folder(version: str) -> str:
    """Where the vectors of a version (its URI) are kept by default: in a folder beside the
    versions.
    """
    return storage.join(storage.parent(version), "article_vectors")


class ArticleVectors:
    """The news vectors of one model. Their keys are hashes of all that it reads of an article.

    Args:
        model: the model's sha256.
        runtime: the name of what executes the model, because runtimes differ in the last digits.

    Attributes:
        encoded: how many vectors `of` had to encode.
    """

    def __init__(self, model: str, runtime: str) -> None:
        self._model = model
        self._runtime = runtime
        self._rows: dict[bytes, int] = {}
        self._vectors = np.zeros((0, 0), np.float32)
        self._days = np.zeros(0, np.int32)  # when each was last used, counted from 1970
        self._generation = storage.ABSENT
        self._unsaved = False
        self.encoded = 0

    def of(self, keys: Sequence[bytes], encode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The vectors of at least one article: float32 `(articles, dim)`.

        Of the vectors of other articles, those are forgotten that were not used for 30 days. Of the
        rest, the latest stay, at most as many as there are different keys.

        Args:
            keys: the key of each article, 16 bytes (see `nrms.features.inputs.Inputs.keys`).
            encode: gives the vectors, float32 `(rows, dim)`, of articles that are not kept yet. It
                takes their positions in `keys`, int64, at least one.
        """
        new: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._rows:
                new.setdefault(key, row)
        today = _today()
        if new:
            vectors = encode(np.fromiter(new.values(), np.int64, len(new)))
            self._keep(list(new), vectors, np.full(len(new), today, np.int32))
            self.encoded += len(new)
        rows = np.fromiter(map(self._rows.__getitem__, keys), np.int64, len(keys))
        # Days alone are saved once one of them is older than half of `_KEPT_DAYS`. Otherwise the
        # vectors that are used every night would be forgotten like unused ones.
        self._unsaved |= bool(new) or bool((self._days[rows] < today - _KEPT_DAYS // 2).any())
        self._days[rows] = today
        vectors = self._vectors[rows]
        self._forget(np.unique(rows), today)
        return vectors

    def load(self, folder: str, cache: Path) -> None:
        """Adds the vectors that `save` wrote into `folder` for this model. A missing file adds
        nothing; so does one that cannot be read, with a warning.

        Args:
            folder: local path or `gs://` URI.
            cache: local folder for files from a bucket.
        """
        try:
            storage.tidy(folder)
            info = storage.stat(self._uri(folder))
            self._generation = info.generation
            keys, vectors, days = self._read(storage.fetch(info, cache))
        except ObjectNotFound:
            return
        except (StorageError, pa.ArrowException, OSError, ValueError, KeyError) as error:
            _warn("cannot be read, so all articles are encoded", folder, error)
            return
        lacking = [row for row, key in enumerate(keys) if key not in self._rows]
        self._keep([keys[row] for row in lacking], vectors[lacking], days[lacking])

    def save(self, folder: str) -> None:
        """Writes the vectors, if there is something new. An error is logged and not raised; the
        next night then encodes these articles again.
        """
        if not self._unsaved:
            return
        vectors = np.ascontiguousarray(self._vectors, _FLOATS)
        table = pa.table(
            {
                "key": pa.array(list(self._rows), pa.binary(_KEY_BYTES)),
                "vector": pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(vectors.itemsize * vectors.shape[1]),
                    len(vectors),
                    [None, pa.py_buffer(vectors)],
                ),
                "day": pa.array(self._days),
            }
        )
        try:
            with scratch_folder() as scratch:
                path = scratch / "vectors.parquet"
                model = {_MODEL: self._model.encode()}
                parquet.write(path, table, model, compression="none", use_dictionary=False)
                try:
                    info = storage.upload(path, self._uri(folder), if_generation=self._generation)
                except PreconditionFailed:
                    logger.info("%s: another run saved its article vectors first", folder)
                    self.load(folder, scratch)  # so that the next time both are saved
                else:
                    self._generation, self._unsaved = info.generation, False
        except (StorageError, OSError) as error:
            _warn(
                "cannot be written, so the next night encodes these articles again", folder, error
            )

    def _uri(self, folder: str) -> str:
        return storage.join(folder, f"{self._model[:16]}-{self._runtime}.parquet")

    def _keep(self, keys: list[bytes], vectors: np.ndarray, days: np.ndarray) -> None:
        """Adds vectors whose keys are new."""
        self._vectors = np.concatenate([self._vectors, vectors]) if self._rows else vectors
        self._days = np.concatenate([self._days, days])
        self._rows.update(zip(keys, range(len(self._rows), len(self._days)), strict=True))

    def _forget(self, current: np.ndarray, today: int) -> None:
        others = np.delete(np.arange(len(self._days)), current)
        others = others[self._days[others] > today - _KEPT_DAYS]
        latest = others[np.argsort(-self._days[others], kind="stable")][: len(current)]
        kept = np.sort(np.concatenate([current, latest]))
        if len(kept) < len(self._days):
            keys = list(self._rows)
            self._rows = {keys[row]: place for place, row in enumerate(kept)}
            self._vectors, self._days = self._vectors[kept], self._days[kept]

    def _read(self, path: Path) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        table = parquet.read(path).combine_chunks()
        if (table.schema.metadata or {}).get(_MODEL) != self._model.encode():
            raise ValueError("it is of another model")
        # The first releases, whose models read titles alone, called this column `title`.
        key = "key" if "key" in table.column_names else "title"
        keys, column = table[key].combine_chunks(), table["vector"].combine_chunks()
        if keys.type != pa.binary(_KEY_BYTES) or not pa.types.is_fixed_size_binary(column.type):
            raise ValueError(f"its columns are {keys.type} and {column.type}")
        if keys.null_count or column.null_count or not len(keys):
            raise ValueError("it holds nulls, or nothing")
        vectors = np.frombuffer(column.buffers()[1], _FLOATS).reshape(len(keys), -1)
        if not np.isfinite(vectors).all():
            raise ValueError("its vectors are no finite numbers")
        if len(set(keys.to_pylist())) < len(keys):
            raise ValueError("it holds a key twice")
        # The first release kept no days.
        days = (
            table["day"].to_numpy() if "day" in table.column_names else np.full(len(keys), _today())
        )
        return keys.to_pylist(), vectors, days.astype(np.int32)


def _today() -> int:
    return (datetime.now(UTC) - datetime.fromtimestamp(0, UTC)).days


def _warn(what: str, folder: str, error: Exception) -> None:
    logger.warning("article vectors in %s: %s: %s", folder, what, " ".join(str(error).split()))
