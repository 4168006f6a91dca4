"""From row numbers to scores: the one way that validation, the nightly job and the API share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import pyarrow as pa

from nrms.data.impressions import Impressions
from nrms.evaluation.ranking import place_unknown, ranks

# Dot products at once: their vectors stay in the processor's cache. 65,536 at once take ten times
# as long.
_CANDIDATES = 2048
_PRIOR_USERS = 4096


class Encoders(Protocol):
    """What a model must offer to be scored with, whatever runtime executes it.

    Attributes:
        positions: words or clicks, padding counted, that the runtime is given at once: where it is
            fastest.
    """

    positions: int

    def encode_news(self, titles: np.ndarray) -> np.ndarray:
        """Int32 word ids `(articles, title)` to float32 vectors `(articles, dim)`."""

    def encode_users(self, news_vectors: np.ndarray, history: np.ndarray) -> np.ndarray:
        """Float32 `(articles, dim)` and int32 rows into them `(users, history)` to float32 `(users,
        dim)`.
        """


def encode_titles(encoders: Encoders, titles: np.ndarray) -> np.ndarray:
    """News vectors of titles, float32 `(articles, dim)`, from int32 word ids `(articles, title)`, 0
    = padding. At least one title.
    """
    return _by_length(titles, encoders.positions, encoders.encode_news)


def with_unknown(news_vectors: np.ndarray) -> np.ndarray:
    """Puts row 0, the unknown article, before the vectors of articles 1, 2, ...: zeros, which say
    nothing.
    """
    return np.concatenate([np.zeros_like(news_vectors[:1]), news_vectors])


class Scorer:
    """Scores impressions: each article is encoded once, each user once, then dot products.

    An unknown candidate gets the mean score of its impression's known ones, so that its place is
    neutral; where none is known, all are 0. Pure: no file, bucket or clock is touched.

    Args:
        encoders: the model.
        news_vectors: float32 array of shape `(articles + 1, dim)`, the whole catalogue as
            `with_unknown` gives it.
        histories: int32 array of shape `(users + 1, history)`, article rows, 0 = padding; row 0 is
            empty.
        prior: float32 `(dim,)`, the vector of users whose history is empty (`prior_vector`); None
            leaves them with the encoder's own, zeros, by which all candidates are equal.
    """

    def __init__(
        self,
        encoders: Encoders,
        news_vectors: np.ndarray,
        histories: np.ndarray,
        prior: np.ndarray | None = None,
    ):
        self._encoders = encoders
        self._news_vectors = news_vectors
        self._histories = histories
        self._prior = prior
        # The operating system gives memory to the rows that are written: those of users that occur.
        self._user_vectors = np.zeros((len(histories), news_vectors.shape[1]), np.float32)
        self._encoded = np.zeros(len(histories), bool)

    def encode_users(self, users: np.ndarray) -> None:
        """Encodes those of these users, rows of `histories`, that are not encoded yet; `score` then
        has less to do.
        """
        missing = np.unique(users)
        missing = missing[~self._encoded[missing]]
        if len(missing):
            histories = self._histories[missing]
            vectors = _by_length(histories, self._encoders.positions, self._encode_histories)
            if self._prior is not None:
                vectors[~histories.any(axis=1)] = self._prior
            self._user_vectors[missing] = vectors
            self._encoded[missing] = True

    def score(self, impressions: Impressions) -> np.ndarray:
        """Scores every candidate of a shard.

        Args:
            impressions: a shard of `n` impressions with `c` candidates in all.

        Returns:
            Float32 array of shape `(c,)`, in the order of `impressions.candidates`; higher is
            better.
        """
        self.encode_users(impressions.user)
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
        self.encode_users(users)
        return self._user_vectors[users].mean(axis=0, dtype=np.float64).astype(np.float32)

    def _encode_histories(self, history: np.ndarray) -> np.ndarray:
        articles, rows = np.unique(np.append(0, history), return_inverse=True)
        rows = rows[1:].reshape(history.shape).astype(np.int32)
        return self._encoders.encode_users(self._news_vectors[articles], rows)


def predictions(impressions: Impressions, scores: np.ndarray) -> pa.Table:
    """The predictions of a shard in the contract, a row for each impression in its order.

    Args:
        impressions: the shard, `c` candidates in all.
        scores: float32 of shape `(c,)`.

    Returns:
        `impression_id`, `user_id`, `article_ids_inview`, `scores` (list of float32), `ranks` (list
        of int32, 1 = best), and `article_ids_clicked` where clicks were given.
    """

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(impressions.offsets, pa.int32()), values)

    columns = {
        "impression_id": impressions.impression_id,
        "user_id": impressions.user_id,
        "article_ids_inview": lists(impressions.candidate_ids),
        "scores": lists(pa.array(scores, pa.float32())),
        "ranks": lists(pa.array(ranks(impressions.offsets, scores))),
    }
    if impressions.clicks is not None:
        columns["article_ids_clicked"] = impressions.clicks
    return pa.table(columns)


def _by_length(
    rows: np.ndarray, positions: int, encode: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Encodes zero-padded rows in batches of like length, each cut where its longest ends: no
    arithmetic on padding.
    """
    items = rows != 0
    lengths = np.where(items.any(axis=1), rows.shape[1] - np.argmax(items[:, ::-1], axis=1), 0)
    order = np.argsort(-lengths, kind="stable")
    encoded, start = np.empty((0, 0), np.float32), 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        chosen = order[start : start + max(1, positions // longest)]
        vectors = encode(rows[chosen, :longest])
        if start == 0:
            encoded = np.empty((len(rows), vectors.shape[1]), np.float32)
        encoded[chosen] = vectors
        start += len(chosen)
    return encoded
