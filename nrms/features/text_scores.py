"""The scores that a text model gives to candidates, as an input of the ranker above it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from nrms.data.articles import Articles
from nrms.data.histories import Histories
from nrms.data.impressions import Impressions
from nrms.features.inputs import MomentInput

TEXT = "text"


class TextScores(MomentInput):
    """The scores of the candidates: float32 `(c,)`. No bundle declares it, because a model whose
    bundle holds both makes the scores itself.

    Args:
        scorer: gives a scorer of the readers with these histories, see
            `nrms.inference.loaded_model.Scorer`. It is called once for each split.

    Attributes:
        mean: the mean score in training, float32 `(1,)`, once it is fitted.
        deviation: its standard deviation, 1 where that is 0.
    """

    kind: ClassVar[str] = "text_scores"
    name = TEXT

    def __init__(self, scorer: Callable[[Histories], Any] | None = None) -> None:
        self._make = scorer
        self._scorers: dict[int, Any] = {}
        self.mean, self.deviation = np.zeros(1, np.float32), np.ones(1, np.float32)

    def fill(
        self,
        columns: Mapping[str, pa.Array],
        impressions: Impressions,
        articles: Articles,
        histories: Histories,
    ) -> np.ndarray | None:
        """See the class."""
        assert self._make is not None, "they were declared without a text model"
        if id(histories) not in self._scorers:
            self._scorers[id(histories)] = self._make(histories)
        return self._scorers[id(histories)].score(impressions)
