"""The interface of Keras and ONNX Runtime as executors of graphs, and of impressions to score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Runtime(Protocol):
    """Executes the graphs of one model.

    Attributes:
        positions: the size of a batch, in words, clicks or candidates with padding, at which it is
            fastest.
        inputs: the names of the arrays that each graph reads, by the graph's name.
    """

    @property
    def positions(self) -> int: ...  # noqa: D102

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]: ...  # noqa: D102

    def run(self, graph: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output, float32, of the graph of that name for arrays by the names of its inputs."""


class Scorable(Protocol):
    """What scoring reads of a shard of `n` impressions with `c` candidates in total, such as
    `nrms.data.impressions.Impressions`, which describes the attributes.
    """

    @property
    def user(self) -> np.ndarray: ...  # noqa: D102

    @property
    def offsets(self) -> np.ndarray: ...  # noqa: D102

    @property
    def candidates(self) -> np.ndarray: ...  # noqa: D102

    @property
    def per_impression(self) -> Mapping[str, np.ndarray]: ...  # noqa: D102

    @property
    def per_candidate(self) -> Mapping[str, np.ndarray]: ...  # noqa: D102


@dataclass(frozen=True)
class Lists:
    """A `Scorable` of these arrays."""

    user: np.ndarray
    offsets: np.ndarray
    candidates: np.ndarray
    per_impression: Mapping[str, np.ndarray]
    per_candidate: Mapping[str, np.ndarray]


def by_length(
    arrays: Mapping[str, np.ndarray],
    positions: int,
    encode: Callable[[dict[str, np.ndarray]], np.ndarray],
) -> np.ndarray:
    """Encodes rows in batches of similar length, so that little arithmetic is spent on padding.

    Args:
        arrays: arrays of shape `(rows, ...)`, with at least one row. Sequences, which are integers
            of shape `(rows, length)` with zeros as padding, are cut where the longest one in a
            batch ends.
        positions: the size of a batch, padding included, see `Runtime`.
        encode: gives the vectors of a batch, float32 `(rows, dim)`.

    Returns:
        The vectors of all rows, in their order: float32 `(rows, dim)`.
    """
    rows = len(next(iter(arrays.values())))
    ends = {
        name: _ends(array)
        for name, array in arrays.items()
        if array.ndim == 2 and np.issubdtype(array.dtype, np.integer)
    }
    lengths = sum(ends.values(), np.zeros(rows, np.int64))
    order = np.argsort(-lengths, kind="stable")
    encoded, start = np.empty((0, 0), np.float32), 0
    while start < rows:
        longest = max(1, lengths[order[start]])
        chosen = order[start : start + max(1, positions // longest)]
        vectors = encode(
            {
                name: array[chosen, : max(1, ends[name][chosen].max())]
                if name in ends
                else array[chosen]
                for name, array in arrays.items()
            }
        )
        if start == 0:
            encoded = np.empty((rows, vectors.shape[1]), np.float32)
        encoded[chosen] = vectors
        start += len(chosen)
    return encoded


def _ends(sequences: np.ndarray) -> np.ndarray:
    """The length of each row up to its last item: int64 of shape `(rows,)`."""
    items = sequences != 0
    return np.where(items.any(axis=1), items.shape[1] - np.argmax(items[:, ::-1], axis=1), 0)
