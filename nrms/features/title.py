"""The words of an article's title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nrms.data.articles import Articles
from nrms.features.inputs import ArticleInput, History, Inputs, checked_size, registered
from nrms.features.tokenizer import Tokenizer

_FILE = "tokenizer.json"


@registered
class Title(ArticleInput):
    """Word ids of titles: int32 `(articles, size)`, 0 = padding, 1 = a word unknown in training.

    Args:
        size: how many words of a title are read, from the first one on.
        min_count: how often a word must occur in the training titles to get an id.

    Attributes:
        tokenizer: holds the vocabulary, once the input is fitted or loaded.
        vectors: word vectors that a training starts from, float32 `(vocabulary, dim)`, or None.

    Raises:
        ValueError: see `nrms.features.inputs.checked_size`.
    """

    kind = "title"
    reads_words = True
    name = "title"
    axes = ("articles", "title")
    files = (_FILE,)

    def __init__(self, size: int, min_count: int = 1) -> None:
        self.size = checked_size(size)
        self.min_count = min_count
        self.settings = {"size": size, "min_count": min_count}
        self._tokenizer: Tokenizer | None = None
        self.vectors: np.ndarray | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """See the class."""
        assert self._tokenizer is not None, "neither fitted nor loaded"
        return self._tokenizer

    def fit(self, articles: Articles, rows: np.ndarray) -> None:
        """Learns the vocabulary of these titles. Raises SchemaError: there is no word; ConfigError:
        no word occurs `min_count` times.
        """
        titles = articles.titles.take(pa.array(rows)).to_pylist()
        self._tokenizer = Tokenizer.train(titles, self.min_count)

    def save(self, folder: Path) -> None:
        """Writes the vocabulary."""
        self.tokenizer.save(folder / _FILE)

    def load(self, files: Mapping[str, Path]) -> None:
        """Reads the vocabulary. Raises ArtifactError: it is damaged."""
        self._tokenizer = Tokenizer.load(files[_FILE])

    def encode(self, articles: Articles) -> np.ndarray:
        """See the class."""
        return self.tokenizer.encode(articles.titles.to_pylist(), self.size)

    def content(self, articles: Articles) -> Iterable[bytes]:
        """The bytes of the titles."""
        return (title.encode() for title in articles.titles.to_pylist())

    def count_words(self, titles: list[str]) -> tuple[int, int]:
        """The number of words in these titles, and of those that the vocabulary lacks."""
        return self.tokenizer.count(titles)

    def unseen_share(self, articles: Articles, rows: np.ndarray) -> float:
        """See `Tokenizer.unseen_share`; the arguments are those of `fit`."""
        titles = articles.titles.take(pa.array(rows)).to_pylist()
        return self.tokenizer.unseen_share(titles, self.min_count)


def titles_and_histories(config: Any) -> Inputs:
    """The inputs of a model that reads titles and histories only.

    Args:
        config: see `nrms.training.config.TrainConfig`.
    """
    title = Title(config.title_size, config.min_word_count)
    return Inputs([title], History(config.history_size))
