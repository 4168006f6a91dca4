"""The words of an article's title."""

from __future__ import annotations

from typing import Any

from nrms.features.inputs import History, Inputs, registered
from nrms.features.text import Text


@registered
class Title(Text):
    """Word ids of titles: int32 `(articles, size)`, see `Text`.

    Args:
        size: how many words of a title are read, from the first one on.
        min_count: how often a word must occur in the training titles to get an id.

    Raises:
        ValueError: see `nrms.features.inputs.checked_size`.
    """

    kind = "title"

    def __init__(self, size: int, min_count: int = 1) -> None:
        super().__init__("title", {"title": size}, min_count)
        self.settings = {"size": size, "min_count": min_count}


def titles_and_histories(config: Any) -> Inputs:
    """The inputs of a model that reads titles and histories only.

    Args:
        config: see `nrms.training.config.TrainConfig`.
    """
    title = Title(config.title_size, config.min_word_count)
    return Inputs([title], History(config.history_size))
