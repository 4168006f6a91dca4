"""Scoring by vectors: each article is encoded once, each user once, then dot products."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nrms.evaluation.ranking import place_unknown
from nrms.inference.runtime import Runtime, Scorable, by_length

NEWS_ENCODER, USER_ENCODER, NEWS_VECTORS = "news_encoder", "user_encoder", "news_vectors"

# Dot products at once: their vectors stay in the processor's cache. 65,536 at once take ten times
# as long.
_CANDIDATES = 2048
_PRIOR_USERS = 4096


def encode_news(runtime: Runtime, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """News vectors, float32 `(articles, dim)`.

    Args:
        runtime: has the graph `news_encoder`.
        arrays: what it reads of at least one article, `(articles, ...)` by name.
    """
    return by_length(arrays, runtime.positions, lambda part: runtime.run(NEWS_ENCODER, part))


class VectorScorer:
    """Scores impressions: each article is encoded once, each user once, then dot products.

    An unknown candidate gets the mean score of its impression's known ones, so that its place is
    neutral; where none is known, all are 0. Pure: no file, bucket or clock is touched.

    Args:
        runtime: has the graph `user_encoder`.
        catalogue: `news_vectors`, float32 of shape `(articles + 1, dim)`, row 0 zeros.
        histories: int32 array of shape `(users + 1, history)`, article rows, 0 = padding; row 0 is
            empty.
        prior: float32 `(dim,)`, the vector of users whose history is empty (`prior_vector`); None
            leaves them with the encoder's own, zeros, by which all candidates are equal.
    """

    def __init__(
        self,
        runtime: Runtime,
        catalogue: Mapping[str, np.ndarray],
        histories: np.ndarray,
        prior: np.ndarray | None = None,
    ):
        self._runtime = runtime
        self._news_vectors = news_vectors = catalogue[NEWS_VECTORS]
        self._histories = histories
        self._prior = prior
        # The operating system gives memory to the rows that are written: those of users that occur.
        self._user_vectors = np.zeros((len(histories), news_vectors.shape[1]), np.float32)
        self._encoded = np.zeros(len(histories), bool)

    def prepare(self, users: np.ndarray) -> None:
        """Encodes those of these users, rows of `histories`, that are not encoded yet; `score` then
        has less to do.
        """
        missing = np.unique(users)
        missing = missing[~self._encoded[missing]]
        if len(missing):
            histories = self._histories[missing]
            vectors = by_length({"history": histories}, self._runtime.positions, self._encode)
            if self._prior is not None:
                vectors[~histories.any(axis=1)] = self._prior
            self._user_vectors[missing] = vectors
            self._encoded[missing] = True

    def score(self, impressions: Scorable) -> np.ndarray:
        """Scores every candidate of a shard.

        Args:
            impressions: a shard of `n` impressions with `c` candidates in all.

        Returns:
            Float32 array of shape `(c,)`, in the order of `impressions.candidates`; higher is
            better.
        """
        self.prepare(impressions.user)
        owner = np.repeat(impressions.user, np.diff(impressions.offsets))
        scores = np.empty(len(impressions.candidates), np.float32)
        for start in range(0, len(scores), _CANDIDATES):
            part = slice(start, start + _CANDIDATES)
            candidates = self._news_vectors[impressions.candidates[part]]
            np.einsum("cd,cd->c", candidates, self._user_vectors[owner[part]], out=scores[part])
        return place_unknown(impressions.offsets, scores, impressions.candidates > 0)

    def prior_vector(self, users: np.ndarray) -> np.ndarray:
        """The mean vector of those of these users, rows of `histories`, that have a history, each
        counted once: float32 `(dim,)`. It takes at most 4,096 of them, evenly spaced: more would
        move no digit that is shown. Zeros for none.
        """
        users = np.unique(users)
        users = users[self._histories[users].any(axis=1)]
        users = users[np.linspace(0, len(users) - 1, min(len(users), _PRIOR_USERS), dtype=np.int64)]
        if not len(users):
            return np.zeros(self._user_vectors.shape[1], np.float32)
        self.prepare(users)
        return self._user_vectors[users].mean(axis=0, dtype=np.float64).astype(np.float32)

    def _encode(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        history = arrays["history"]
        articles, rows = np.unique(np.append(0, history), return_inverse=True)
        rows = rows[1:].reshape(history.shape).astype(np.int32)
        read = {NEWS_VECTORS: self._news_vectors[articles], "history": rows}
        return self._runtime.run(USER_ENCODER, read)
