"""Why a candidate has its score: what the model would say if one thing of it were as in the mean of
its list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nrms.data.impressions import Impressions
from nrms.features.context.features import NAMES, OF_LIST
from nrms.features.context.words import WORDS
from nrms.features.text_scores import TEXT
from nrms.inference.loaded_model import Scorer
from nrms.inference.ranked import RankedScorer
from nrms.inference.runtime import Lists


@dataclass(frozen=True)
class Reason:
    """What one feature does to a candidate's score.

    Attributes:
        feature: its name, of `nrms.features.context.features.NAMES`, or "text".
        words: what it says, for people.
        value: its value.
        mean: its mean over the candidates of the list.
        change: the score less the one that the candidate would have with the mean.
    """

    feature: str
    words: str
    value: float
    mean: float
    change: float


def reasons(
    scorer: Scorer, impressions: Impressions, name: str, row: int, place: int, count: int = 3
) -> list[Reason]:
    """What moved a candidate's score most.

    Args:
        scorer: scores the impressions; of a model that reads what happened before.
        impressions: with the arrays of the model's inputs.
        name: of the array of features, `(c, features)`.
        row: of the impression.
        place: of the candidate in its list.
        count: reasons at most.

    Returns:
        The reasons whose change is not 0, the greatest first.
    """
    one = impressions.take(np.array([row]))
    arrays, size = dict(one.per_candidate), len(one.candidates)
    # What is the same for a whole list is its mean already.
    columns = [(feature, name, number) for number, feature in enumerate(NAMES[:-OF_LIST])]
    if isinstance(scorer, RankedScorer):
        arrays[TEXT] = scorer.vectors.score(one)
        columns.append((TEXT, TEXT, 0))
    # The list as it is, and once for each feature with its mean in the candidate's place.
    copies = 1 + len(columns)
    tiled = {key: np.repeat(array[None], copies, axis=0) for key, array in arrays.items()}
    found = []
    for copy, (feature, key, number) in enumerate(columns, 1):
        values = arrays[key].reshape(size, -1)[:, number]
        mean = values.mean()
        tiled[key].reshape(copies, size, -1)[copy, place, number] = mean
        found.append((feature, float(values[place]), float(mean)))
    lists = Lists(
        np.repeat(one.user, copies),
        np.arange(copies + 1) * size,
        np.tile(one.candidates, copies),
        {key: np.repeat(array, copies, axis=0) for key, array in one.per_impression.items()},
        {key: array.reshape(-1, *array.shape[2:]) for key, array in tiled.items()},
    )
    scores = scorer.score(lists).reshape(copies, size)[:, place]
    changes = zip(found, (scores[0] - scores[1:]).tolist(), strict=True)
    ranked = sorted(changes, key=lambda pair: -abs(pair[1]))
    return [
        Reason(feature, WORDS[feature], value, mean, change)
        for (feature, value, mean), change in ranked[:count]
        if change
    ]
