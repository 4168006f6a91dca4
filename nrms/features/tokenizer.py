"""Turns titles into rows of word ids of one length, and reads and writes the vocabulary file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from nrms.data.schema import schema_error
from nrms.errors import ArtifactError, ConfigError

PAD, UNK = 0, 1
# These words stand in no title, because brackets are never part of a word.
_PAD_WORD, _UNK_WORD = "[PAD]", "[UNK]"
_CHUNK = 16_384  # titles at once, because the library's objects for each take much memory


class Tokenizer:
    """Splits text into lower-case Unicode words and numbers, of Danish and English alike. All other
    characters separate words.

    Ids: 0 is padding and 1 an unknown word. Then come the words by falling frequency in the
    training titles, and equally frequent ones by code point. The same titles, in any order, give
    the same ids.

    Example:
        tokenizer = Tokenizer.train(titles, min_count=2)
        tokenizer.encode(["Hej verden"], title_size=4)  # [[17, 4, 0, 0]]
    """

    def __init__(self, pipeline: tokenizers.Tokenizer) -> None:
        self._pipeline = pipeline
        vocabulary = pipeline.get_vocab()
        self.words: list[str] = sorted(vocabulary, key=vocabulary.__getitem__)

    @classmethod
    def train(cls, titles: Iterable[str], min_count: int) -> Tokenizer:
        """Learns the vocabulary: the words that occur at least `min_count` times.

        Raises:
            SchemaError: there is no word.
            ConfigError: no word occurs that often.
        """
        titles = list(titles)
        counter = _pipeline(models.WordLevel(unk_token=_UNK_WORD))
        # The trainer sorts by falling count, then by code point.
        trainer = trainers.WordLevelTrainer(
            vocab_size=2**31 - 1, min_frequency=min_count, special_tokens=[], show_progress=False
        )
        counter.train_from_iterator(titles, trainer)
        vocabulary = counter.get_vocab()
        if not vocabulary and not any(
            counter.pre_tokenizer.pre_tokenize_str(title) for title in titles
        ):
            raise schema_error(
                "Column `title` must hold words.",
                f"{len(titles):,} titles, all of them null, empty or without a letter or digit",
                "articles.parquet",
                "Write the titles into that column.",
            )
        if not vocabulary:
            raise ConfigError(
                "The titles must hold a word that occurs at least `min_count` times. Received: "
                f"`min_count` = {min_count} and no such word. Lower it, or check the titles."
            )
        words = [_PAD_WORD, _UNK_WORD, *sorted(vocabulary, key=vocabulary.__getitem__)]
        numbered = {word: number for number, word in enumerate(words)}
        return cls(_pipeline(models.WordLevel(numbered, unk_token=_UNK_WORD)))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads a `tokenizer.json`. It is data, and nothing in it is executed.

        Raises:
            ArtifactError: there is no such file, or it is not a tokenizer that `save` wrote.
        """
        try:
            pipeline = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise _damaged(path, " ".join(str(error).split())) from error
        model, tokenizer = pipeline.model, cls(pipeline)
        if not isinstance(model, models.WordLevel) or model.unk_token != _UNK_WORD:
            raise _damaged(path, f"a {type(model).__name__} model")
        if tokenizer.words[:2] != [_PAD_WORD, _UNK_WORD]:
            raise _damaged(path, f"{tokenizer.words[:2]} as the first words")
        if sorted(pipeline.get_vocab().values()) != list(range(len(tokenizer))):
            raise _damaged(path, "word ids with gaps")
        return tokenizer

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`; equal tokenizers give equal bytes."""
        self._pipeline.save(str(path))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, titles: Sequence[str], title_size: int) -> np.ndarray:
        """The ids of each title's first `title_size` words, with padding at the end: int32 of shape
        `(titles, title_size)`.
        """
        rows = np.full((len(titles), title_size), PAD, np.int32)
        for start in range(0, len(titles), _CHUNK):
            encodings = self._pipeline.encode_batch_fast(titles[start : start + _CHUNK])
            ids = [encoding.ids[:title_size] for encoding in encodings]
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            filled = np.arange(title_size) < lengths[:, None]
            rows[start : start + len(ids)][filled] = np.fromiter(chain.from_iterable(ids), np.int32)
        return rows

    def count(self, titles: Sequence[str]) -> tuple[int, int]:
        """The number of words in the titles, and of unknown words among them."""
        ids = [encoding.ids for encoding in self._pipeline.encode_batch_fast(titles)]
        return sum(map(len, ids)), sum(row.count(UNK) for row in ids)

    def unseen_share(self, titles: Sequence[str], min_count: int) -> float:
        """The share of words that the vocabulary would lack, had it been learned without the title
        that they stand in. New titles of the same kind will have about this share of unknown words
        (Good, Biometrika 1953).

        Args:
            titles: the titles that the vocabulary was learned from, with at least one word.
            min_count: the same as for `train`.
        """
        counts = np.zeros(len(self), np.int64)
        for start in range(0, len(titles), _CHUNK):
            encodings = self._pipeline.encode_batch_fast(titles[start : start + _CHUNK])
            ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)
            counts += np.bincount(ids, minlength=len(self))
        rare = counts <= min_count
        rare[UNK] = True
        return float(counts[rare].sum() / counts.sum())


def _pipeline(model: models.Model) -> tokenizers.Tokenizer:
    pipeline = tokenizers.Tokenizer(model)
    pipeline.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pipeline.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"[\p{L}\p{M}\p{N}]+"), behavior="removed", invert=True
    )
    return pipeline


def _damaged(path: Path, received: str) -> ArtifactError:
    return ArtifactError(
        f"A vocabulary must be a whole tokenizer.json of this project. Received: {received}, in "
        f"{path}. Publish the model again."
    )
