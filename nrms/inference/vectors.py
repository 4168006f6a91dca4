"""Scores with the vectors of articles and users, each of which is encoded once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nrms.evaluation.ranking import place_unknown
from nrms.inference.runtime import Runtime, Scorable, by_length

NEWS_ENCODER, USER_ENCODER, NEWS_VECTORS = "news_encoder", "user_encoder", "news_vectors"

# So many dot products are computed at once, and their vectors stay in the processor's cache. With
# 65,536 at once, the same work takes ten times as long.
_CANDIDATES = 2048
_PRIOR_USERS = 4096


def encode_news(runtime: Runtime, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """News vectors, float32 `(articles, dim)`.

    Args:
        runtime: has the graph `news_encoder`.
        arrays: what this graph reads of at least one article, `(articles, ...)` by name.
    """
    return by_length(arrays, runtime.positions, lambda part: runtime.run(NEWS_ENCODER, part))


class VectorScorer:
    """Scores impressions by the dot products of user vectors and news vectors.

    An unknown candidate gets the mean score of its impression's known ones, so that its place is
    neutral; where all are unknown, all scores are 0. Scores depend on the arguments alone: no file,
    bucket or clock is read.

    Args:
        runtime: has the graph `user_encoder`.
        catalogue: `news_vectors`, float32 of shape `(articles + 1, dim)`; row 0 is zeros.
        histories: int32 of shape `(users + 1, history)`, rows of articles, 0 = padding; row 0 is
            empty.
        prior: float32 `(dim,)`, the vector of users whose history is empty (`prior_vector`). With
            None they get the encoder's vector, which is zeros, and all their candidates have equal
            scores.
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
        # Only rows that are written take memory, which are those of users that occur.
        self._user_vectors = np.zeros((len(histories), news_vectors.shape[1]), np.float32)
        self._encoded = np.zeros(len(histories), bool)

    def prepare(self, users: np.ndarray) -> None:
        """Encodes those of these users, rows of `histories`, that are not encoded yet, so that
        `score` has less to do.
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
            impressions: a shard of `n` impressions with `c` candidates in total.

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
        counted once: float32 `(dim,)`. At most 4,096 of them, evenly spaced, are used, because more
        would not change a digit that is shown. The mean of no users is zeros.
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
