"""The words of an article's texts."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.articles import Articles
from nrms.data.schema import Column
from nrms.features.inputs import ArticleInput, checked_size, registered
from nrms.features.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_FILE = "tokenizer.json"
# So many characters are read for each word that is asked for, so that a book costs no more than a
# page. A word and what separates it from the next have 6 on average.
_CHARACTERS = 64


@registered
class Text(ArticleInput):
    """Word ids of an article's texts, one after the other: int32 `(articles, sum of sizes)`, 0 =
    padding, 1 = a word unknown in training. A text that is null or not there has no words.

    Args:
        name: name of the array.
        sizes: how many words of each column of articles.parquet are read, from the first one on.
        min_count: how often a word must occur in the training texts to get an id.

    Attributes:
        tokenizer: holds the vocabulary, once the input is fitted or loaded.
        vectors: word vectors that a training starts from, float32 `(vocabulary, dim)`, or None.

    Raises:
        ValueError: see `nrms.features.inputs.checked_size`.
    """

    kind = "text"
    reads_words = True
    files = (_FILE,)

    def __init__(self, name: str, sizes: Mapping[str, int], min_count: int = 1) -> None:
        self.name = name
        self.axes = ("articles", name)
        self.sizes = {column: checked_size(size) for column, size in sizes.items()}
        self.columns = tuple(
            Column(column, "text", required=False) for column in sizes if column != "title"
        )
        self.min_count = min_count
        self.settings = {"name": name, "sizes": self.sizes, "min_count": min_count}
        self._tokenizer: Tokenizer | None = None
        self._sharing: Sequence[Text] = ()
        self.vectors: np.ndarray | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """See the class."""
        assert self._tokenizer is not None, "neither fitted nor loaded"
        return self._tokenizer

    def share(self, others: Sequence[Text]) -> None:
        """Makes these have its vocabulary, which it then learns from their texts as well."""
        self._sharing = others

    def fit(self, articles: Articles, rows: np.ndarray) -> None:
        """Learns the vocabulary of the texts of these articles, where no other input has learned it
        for this one. Raises SchemaError: there is no word; ConfigError: no word occurs `min_count`
        times.
        """
        for column in self.sizes:
            empty = self._texts(articles.take(rows), column).count("")
            if empty and column != "title":  # titles are counted where articles are read
                logger.warning(
                    "%s: %s of %s articles of training have none",
                    *(column, f"{empty:,}", f"{len(rows):,}"),
                )
        if self._tokenizer is None:
            texts = self._training_texts(articles, rows)
            self._tokenizer = Tokenizer.train(texts, self.min_count)
            for other in self._sharing:
                other._tokenizer = self._tokenizer

    def save(self, folder: Path) -> None:
        """Writes the vocabulary. Inputs that share it write the same."""
        self.tokenizer.save(folder / _FILE)

    def load(self, files: Mapping[str, Path]) -> None:
        """Reads the vocabulary. Raises ArtifactError: it is damaged."""
        self._tokenizer = Tokenizer.load(files[_FILE])

    def encode(self, articles: Articles) -> np.ndarray:
        """See the class."""
        parts = [
            self.tokenizer.encode(self._texts(articles, column), size)
            for column, size in self.sizes.items()
        ]
        if len(parts) == 1:
            return parts[0]
        every = np.concatenate(parts, axis=1)
        # Padding goes to the end, where it costs no arithmetic.
        order = np.argsort(every == 0, axis=1, kind="stable")
        return np.take_along_axis(every, order, axis=1)

    def content(self, articles: Articles) -> Iterable[bytes]:
        """The bytes of the texts."""
        columns = [self._texts(articles, column) for column in self.sizes]
        if len(columns) == 1:
            return (text.encode() for text in columns[0])
        return ("\0".join(texts).encode() for texts in zip(*columns, strict=True))

    def count_words(self, titles: list[str]) -> tuple[int, int]:
        """The number of words in these titles, and of those that the vocabulary lacks."""
        return self.tokenizer.count(titles)

    def unseen_share(self, articles: Articles, rows: np.ndarray) -> float:
        """See `Tokenizer.unseen_share`; the arguments are those of `fit`."""
        return self.tokenizer.unseen_share(self._training_texts(articles, rows), self.min_count)

    def _training_texts(self, articles: Articles, rows: np.ndarray) -> list[str]:
        seen = articles.take(rows)
        return list(
            itertools.chain.from_iterable(
                one._texts(seen, column) for one in (self, *self._sharing) for column in one.sizes
            )
        )

    def _texts(self, articles: Articles, column: str) -> list[str]:
        texts = articles.titles if column == "title" else articles.columns[column]
        filled = pc.fill_null(texts.cast(pa.string()), "")
        return pc.utf8_slice_codeunits(filled, 0, _CHARACTERS * self.sizes[column]).to_pylist()
