"""From row numbers to scores: the one way that validation, the nightly job and the API share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from nrms.data.impressions import Impressions

_TITLES = 1024  # titles encoded at once
_USERS = 512  # histories encoded at once
_CANDIDATES = 65_536  # dot products at once: two gathered blocks of 100 MB at 400 dimensions


class Encoders(Protocol):
    """What a model must offer to be scored with, whatever runtime executes it."""

    def encode_news(self, titles: np.ndarray) -> np.ndarray:
        """Int32 word ids `(articles, title)` to float32 vectors `(articles, dim)`."""

    def encode_users(self, news_vectors: np.ndarray, history: np.ndarray) -> np.ndarray:
        """Float32 `(articles, dim)` and int32 rows into them `(users, history)` to float32 `(users, dim)`."""


class Scorer:
    """Scores impressions: the catalogue is encoded once, users once, then dot products.

    Pure: no file, bucket or clock is touched.

    Args:
        encoders: the model.
        titles: int32 array of shape `(articles + 1, title)`, word ids of the catalogue; row 0 is empty.

    Attributes:
        news_vectors: float32 array of shape `(articles + 1, dim)`, the whole catalogue; row 0, the unknown
            article, is zeros, so an unknown candidate scores 0.
    """

    def __init__(self, encoders: Encoders, titles: np.ndarray):
        self._encoders = encoders
        self.news_vectors = self._encode_titles(titles)

    def score(self, impressions: Impressions, histories: np.ndarray) -> np.ndarray:
        """Scores every candidate of a shard.

        Args:
            impressions: a shard of `n` impressions with `c` candidates in all.
            histories: int32 array of shape `(users + 1, history)`, article rows, 0 = padding at the end.

        Returns:
            Float32 array of shape `(c,)`, in the order of `impressions.candidates`; higher is better.
        """
        users, user_of = np.unique(impressions.user, return_inverse=True)
        user_vectors = self.encode_histories(histories[users])
        owner = np.repeat(user_of, np.diff(impressions.offsets))
        scores = np.empty(len(impressions.candidates), np.float32)
        for start in range(0, len(scores), _CANDIDATES):
            part = slice(start, start + _CANDIDATES)
            candidates = self.news_vectors[impressions.candidates[part]]
            np.einsum("cd,cd->c", candidates, user_vectors[owner[part]], out=scores[part])
        return scores

    def encode_histories(self, histories: np.ndarray) -> np.ndarray:
        """Int32 article rows `(users, history)` to float32 user vectors `(users, dim)`."""

        def encode(history: np.ndarray) -> np.ndarray:
            articles, rows = np.unique(np.append(0, history), return_inverse=True)
            rows = rows[1:].reshape(history.shape).astype(np.int32)
            return self._encoders.encode_users(self.news_vectors[articles], rows)

        return _by_length(histories, _USERS, encode)

    def _encode_titles(self, titles: np.ndarray) -> np.ndarray:
        vectors = _by_length(titles, _TITLES, self._encoders.encode_news)
        vectors[0] = 0
        return vectors


def _by_length(rows: np.ndarray, batch: int, encode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Encodes zero-padded rows in batches of like length, each cut to its longest: no arithmetic on padding."""
    lengths = np.count_nonzero(rows, axis=1)
    order = np.argsort(lengths, kind="stable")
    encoded = None
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        vectors = encode(rows[chosen, : max(1, lengths[chosen[-1]])])
        if encoded is None:
            encoded = np.empty((len(rows), vectors.shape[1]), np.float32)
        encoded[chosen] = vectors
    return encoded
