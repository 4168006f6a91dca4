"""Scores with a text model and a ranker of lists that reads its scores."""

from __future__ import annotations

import numpy as np

from nrms.features.text_scores import TEXT
from nrms.inference.lists import ListScorer
from nrms.inference.runtime import Lists, Scorable
from nrms.inference.vectors import VectorScorer


class RankedScorer:
    """Scores impressions by the ranker, on the scores of the text model.

    Args:
        vectors: the scorer of the text model.
        lists: the scorer of the ranker.

    Attributes:
        vectors: as given.
    """

    def __init__(self, vectors: VectorScorer, lists: ListScorer) -> None:
        self.vectors, self._lists = vectors, lists

    def prepare(self, users: np.ndarray) -> None:
        """Encodes these users, rows of the histories."""
        self.vectors.prepare(users)

    def score(self, impressions: Scorable) -> np.ndarray:
        """Scores every candidate of a shard: float32 `(c,)`, in their order; higher is better. The
        scores of the text model may be among the shard's arrays.
        """
        text = impressions.per_candidate.get(TEXT)
        if text is None:
            text = self.vectors.score(impressions)
        return self._lists.score(
            Lists(
                impressions.user,
                impressions.offsets,
                impressions.candidates,
                impressions.per_impression,
                {**impressions.per_candidate, TEXT: text},
            )
        )
