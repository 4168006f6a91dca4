"""Reads pre-trained word vectors from text files: `.vec` of fastText, which has a header line, and
`.txt` of GloVe, which does not.
"""

from __future__ import annotations

import codecs
import gzip
import logging
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from nrms.errors import ConfigError, SchemaError
from nrms.features.tokenizer import PAD, UNK

logger = logging.getLogger(__name__)

_SPREAD = 0.1  # standard deviation of the vectors drawn when no word was found


def read_word_vectors(
    path: Path, words: Sequence[str], word_dim: int, seed: int
) -> tuple[np.ndarray, float]:
    """Reads the vectors of a vocabulary, line by line, so memory holds the vocabulary and not the
    file.

    A word gets the vector of the first line with exactly its spelling. If there is no such line, it
    gets that of the first line that has its spelling once lower-cased and composed (NFC). The
    vectors of the other words are drawn from a normal distribution with the standard deviation of
    the vectors found.

    Args:
        path: `.vec` or `.txt`, or either with `.gz`. The first line shows whether it is a header.
        words: the vocabulary, `Tokenizer.words`, with PAD and UNK first.
        word_dim: the size of a vector.
        seed: seed for the vectors of words that the file lacks.

    Returns:
        The matrix, float32 of shape `(len(words), word_dim)`, with zeros for PAD; and the share of
        words found, PAD and UNK not counted.

    Raises:
        ConfigError: there is no such file, its suffix is of another format, or its vectors are not
            of size `word_dim`.
        SchemaError: the file is empty or damaged, or a line is cut short or holds something else
            than numbers; the message names file and line.
    """
    wanted = {word.encode(): row for row, word in enumerate(words) if row not in (PAD, UNK)}
    matrix = np.zeros((len(words), word_dim), np.float32)
    exact, found = np.zeros(len(words), bool), np.zeros(len(words), bool)
    with _open(path) as file:
        for number, line in _vector_lines(file, path, word_dim):
            word = line[: line.find(b" ")]
            row = wanted.get(word)
            spelled = row is not None
            if not spelled:
                row = wanted.get(_folded(word))
            if row is None or exact[row] or (found[row] and not spelled):
                continue
            fields = line.split()
            if len(fields) > word_dim + 1:  # a word with spaces, which no vocabulary has
                continue
            matrix[row] = _numbers(fields[1:], path, number)
            exact[row], found[row] = spelled, True

    missing = ~found
    missing[PAD] = False
    spread = matrix[found].std(dtype=np.float64) if found.any() else _SPREAD
    rng = np.random.default_rng(seed)
    matrix[missing] = rng.normal(0, spread, (np.count_nonzero(missing), word_dim))
    coverage = np.count_nonzero(found) / max(1, len(wanted))
    logger.info("%s: vectors for %.1f%% of %s words", path, 100 * coverage, f"{len(wanted):,}")
    return matrix, coverage


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix not in (".vec", ".txt"):
        raise ConfigError(
            "Word vectors must be a text file, .vec (fastText) or .txt (GloVe), or .gz of one. "
            f"Received: {path}. Convert the file."
        )
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield cast("IO[bytes]", file)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(
            f"Word vectors must be in a file. Received: {path}, which is not a file."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SchemaError(
            f"A .gz file must be whole. Received: {error}, in {path}. Copy it again."
        ) from error


def _vector_lines(file: IO[bytes], path: Path, word_dim: int) -> Iterator[tuple[int, bytes]]:
    """Each line that holds a vector, with its number, counted from 1."""
    promised, number = None, 0
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        line = line.rstrip()
        spaces = line.count(b" ")
        if number == 1:
            header = _header(line)
            size = header[1] if header else spaces
            if size != word_dim:
                raise ConfigError(
                    "`word_dim` must be the size of the word vectors. "
                    f"Received: `word_dim` = {word_dim}, and vectors of {size} "
                    f"in {path}. Set `word_dim` to {size} or give another file."
                )
            if header:
                promised = header[0]
                continue
        if spaces < word_dim:
            raise SchemaError(
                f"A line must hold a word and {word_dim} numbers. Received: {spaces} numbers, in "
                f"{path}, line {number:,}. The file is cut short or damaged: copy it again."
            )
        yield number, line
    if number == 0:
        raise SchemaError(
            f"A file of word vectors must hold some. Received: no line, in {path}. Copy it again."
        )
    if promised is not None and number - 1 != promised:
        raise SchemaError(
            f"The first line must give the number of vectors. Received: {promised:,} promised, "
            f"{number - 1:,} there, in {path}. The file is cut short: copy it again."
        )


def _header(line: bytes) -> tuple[int, int] | None:
    """The number and size of the vectors, if the line is a header; otherwise None."""
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        return int(fields[0]), int(fields[1])
    return None


def _folded(word: bytes) -> bytes:
    return unicodedata.normalize("NFC", word.decode(errors="replace").lower()).encode()


def _numbers(fields: Sequence[bytes], path: Path, number: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            vector = np.array([float(field) for field in fields], np.float32)
    except ValueError:
        vector = np.array(np.nan)
    if not np.isfinite(vector).all():
        raise SchemaError(
            f"A word vector must hold finite numbers. Received: another value in {path}, line "
            f"{number:,}. The file is damaged: copy it again."
        )
    return vector
