"""News vectors by content, from one night to the next: what a model encoded once, it does not encode again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrms import storage
from nrms.errors import ObjectNotFound, PreconditionFailed, StorageError
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)

_KEY_BYTES = 16
_FLOATS = np.dtype("<f4")  # of a vector, as bytes: a tenth of the time that Parquet's lists take
_MODEL = b"nrms.model"  # key of the Parquet metadata


def default_folder(version: str) -> str:
    """Where the vectors of a model's version (its URI) are kept unless said otherwise: beside the versions."""
    return storage.join(storage.parent(version), "article_vectors")


class ArticleVectors:
    """The news vectors of one model, by what it reads of an article: its title.

    Args:
        model: the model's sha256.
        encode: titles to float32 vectors `(titles, dim)`; called for those that are new, at least one.

    Attributes:
        encoded: how many vectors `encode` made.
    """

    def __init__(self, model: str, encode: Callable[[list[str]], np.ndarray]) -> None:
        self._model = model
        self._encode = encode
        self._rows: dict[bytes, int] = {}
        self._vectors = np.zeros((0, 0), np.float32)
        self._used = np.zeros(0, bool)
        self._generation = storage.ABSENT
        self.encoded = 0

    def of(self, titles: Sequence[str]) -> np.ndarray:
        """The vectors of these titles, at least one: float32 `(titles, dim)`."""
        keys = [hashlib.blake2b(title.encode(), digest_size=_KEY_BYTES).digest() for title in titles]
        new = {key: title for key, title in zip(keys, titles, strict=True) if key not in self._rows}
        if new:
            vectors = self._encode(list(new.values()))
            self._keep(list(new), np.concatenate([self._vectors, vectors]) if self._rows else vectors)
            self.encoded += len(new)
        rows = np.fromiter(map(self._rows.__getitem__, keys), np.int64, len(keys))
        self._used[rows] = True
        return self._vectors[rows]

    def load(self, folder: str, cache: Path) -> None:
        """Takes what `save` wrote into `folder` for this model; where that is nothing or damaged, nothing.

        Args:
            folder: local path or `gs://` URI.
            cache: local folder for what comes from a bucket.
        """
        try:
            info = storage.stat(self._uri(folder))
            self._generation = info.generation
            keys, vectors = self._read(storage.fetch(info, cache))
        except ObjectNotFound:
            return
        except (StorageError, pa.ArrowException, OSError, ValueError, KeyError) as error:
            _warn("cannot be read, so all articles are encoded", folder, error)
            return
        self._rows.clear()
        self._keep(keys, vectors)

    def save(self, folder: str) -> None:
        """Writes the vectors that `of` gave, and as many others at most, if any is new. Whatever fails is logged: the
        next night then encodes these articles again."""
        if not self.encoded:
            return
        used = np.flatnonzero(self._used)
        kept = np.concatenate([used, np.flatnonzero(~self._used)[: len(used)]])
        keys = list(self._rows)
        vectors = np.ascontiguousarray(self._vectors[kept], _FLOATS)
        table = pa.table(
            {
                "title": pa.array([keys[row] for row in kept], pa.binary(_KEY_BYTES)),
                "vector": pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(vectors.itemsize * vectors.shape[1]), len(vectors), [None, pa.py_buffer(vectors)]
                ),
            }
        ).replace_schema_metadata({_MODEL: self._model.encode()})
        try:
            with scratch_folder() as scratch:
                path = scratch / "vectors.parquet"
                pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
                self._generation = storage.upload(path, self._uri(folder), if_generation=self._generation).generation
        except PreconditionFailed:
            logger.info("%s: another run saved its article vectors first", folder)
        except (StorageError, OSError) as error:
            _warn("cannot be written, so the next night encodes these articles again", folder, error)

    def _uri(self, folder: str) -> str:
        return storage.join(folder, f"{self._model[:16]}.parquet")

    def _keep(self, keys: list[bytes], vectors: np.ndarray) -> None:
        self._rows.update(zip(keys, range(len(self._rows), len(vectors)), strict=True))
        self._vectors = vectors
        self._used = np.append(self._used[: len(vectors)], np.zeros(len(vectors) - len(self._used), bool))

    def _read(self, path: Path) -> tuple[list[bytes], np.ndarray]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if (file.schema_arrow.metadata or {}).get(_MODEL) != self._model.encode():
                raise ValueError("it is of another model")
            table = file.read().combine_chunks()
        keys, column = table["title"].combine_chunks(), table["vector"].combine_chunks()
        if keys.type != pa.binary(_KEY_BYTES) or not pa.types.is_fixed_size_binary(column.type):
            raise ValueError(f"its columns are {keys.type} and {column.type}")
        if keys.null_count or column.null_count or not len(keys):
            raise ValueError("it holds nulls, or nothing")
        vectors = np.frombuffer(column.buffers()[1], _FLOATS).reshape(len(keys), -1)
        if not np.isfinite(vectors).all():
            raise ValueError("its vectors are no finite numbers")
        if len(set(keys.to_pylist())) < len(keys):
            raise ValueError("it holds a title twice")
        return keys.to_pylist(), vectors


def _warn(what: str, folder: str, error: Exception) -> None:
    logger.warning("article vectors in %s: %s: %s", folder, what, " ".join(str(error).split()))
