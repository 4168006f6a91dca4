"""The inputs of a model: it declares them, training fits them, and its bundle keeps them.

A model reads something of each article (`ArticleInput`), the history of each reader (`History`),
and perhaps something of the moment (`MomentInput`). Each kind of input has a name by which a bundle
finds its class; the module that defines the class registers it with `registered`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa

from nrms.data.articles import Articles
from nrms.data.histories import Histories
from nrms.data.impressions import Impressions
from nrms.data.schema import Column
from nrms.errors import ArtifactError
from nrms.features.spec import Spec

_KEY_BYTES = 16
_LARGEST = 100_000  # words, clicks, ...
_KINDS: dict[str, type] = {}
Kind = TypeVar("Kind", bound=Any)


def registered(cls: Kind) -> Kind:
    """Makes a class of inputs known to bundles by its `kind`; a decorator. Raises ValueError:
    another class has this kind, so that bundles would be opened with the wrong one.
    """
    known = _KINDS.setdefault(cls.kind, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"an input must have a kind of its own. Received: {cls.kind!r} of {cls.__qualname__}; "
            f"{known.__module__}.{known.__qualname__} has it. Rename one of them."
        )
    _KINDS[cls.kind] = cls
    return cls


class ArticleInput(ABC):
    """Something that a model reads of an article.

    Attributes:
        kind: name of the class in bundles.
        reads_words: whether it has a `tokenizer`, see `Inputs.words`.
        name: name of the array, and of the graph's input.
        axes: axes of the array, `articles` first; each a length, or a name for any length.
        dtype: dtype of the array.
        columns: columns of articles.parquet that it reads, beyond those of the contract.
        files: names of the files that `save` writes into a bundle.
        settings: JSON-ready values from which `cls(**settings)` makes the input again. What `fit`
            learns is in them or in `files`.
    """

    kind: ClassVar[str]
    reads_words: ClassVar[bool] = False
    name: str
    axes: tuple[str | int, ...] = ("articles",)
    dtype: str = "int32"
    columns: tuple[Column, ...] = ()
    files: tuple[str, ...] = ()
    settings: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def fit(self, articles: Articles, rows: np.ndarray) -> None:
        """Learns from the articles that occur in training: `rows` of `articles`, int64, from 0."""

    @abstractmethod
    def encode(self, articles: Articles) -> np.ndarray:
        """An array of shape `(articles, ...)`, in which 0 stands for padding or for unknown."""

    def content(self, articles: Articles) -> Iterable[bytes]:
        """What is read of each article, as bytes. Articles with equal bytes have equal arrays."""
        return (row.tobytes() for row in self.encode(articles))

    def save(self, folder: Path) -> None:  # noqa: B027  not every input has files
        """Writes `files`."""

    def load(self, files: Mapping[str, Path]) -> None:  # noqa: B027
        """Reads what `save` wrote, from verified files by name. Raises ArtifactError: a file is
        damaged.
        """


class MomentInput(ABC):
    """Something that a model reads of an impression or of each of its candidates. It is a
    `nrms.data.impressions.ShardInput` that a bundle can keep.

    Attributes:
        kind: name of the class in bundles.
        name: name of the array, and of the graph's input.
        per: whether there is one value for an impression or for each candidate.
        shape: shape of one value.
        dtype: dtype of the array.
        columns: optional columns of the behaviours files that it reads, beyond the contract.
        files: names of the files that `save` writes into a bundle.
        settings: JSON-ready values from which `cls(**settings)` makes the input again.
        reads_past: whether a shard must be told what had happened before it.
        mean: see `standardise`.
        deviation: see `standardise`.
    """

    kind: ClassVar[str]
    reads_past: ClassVar[bool] = False
    mean: np.ndarray
    deviation: np.ndarray
    name: str
    per: Literal["impression", "candidate"] = "candidate"
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    columns: tuple[Column, ...] = ()
    files: tuple[str, ...] = ()
    settings: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def fill(
        self,
        columns: Mapping[str, pa.Array],
        impressions: Impressions,
        articles: Articles,
        histories: Histories,
    ) -> np.ndarray | None:
        """The array of a shard, `(n, ...)` or `(c, ...)`; None where its file lacks what is needed,
        and zeros are then used. See `nrms.data.impressions.ShardInput`.
        """

    def save(self, folder: Path) -> None:  # noqa: B027  not every input has files
        """Writes `files`."""

    def load(self, files: Mapping[str, Path]) -> None:  # noqa: B027
        """See `ArticleInput.load`."""

    def standardise(self, filled: Iterable[np.ndarray]) -> None:
        """Learns `mean` and `deviation`, float32 of the shape of one value, 1 for a deviation of 0,
        from arrays of training, in parts.
        """
        count, total, squares = 0, np.zeros(self.shape), np.zeros(self.shape)
        for part in filled:
            values = part.astype(np.float64)
            count += len(values)
            total = total + values.sum(axis=0)
            squares = squares + (values**2).sum(axis=0)
        mean = total / max(1, count)
        deviation = np.sqrt(np.maximum(squares / max(1, count) - mean**2, 0))
        self.mean = np.atleast_1d(mean).astype(np.float32)
        self.deviation = np.atleast_1d(np.where(deviation > 1e-4, deviation, 1)).astype(np.float32)


@registered
class History:
    """The last clicks of a reader: int32 `(readers + 1, size)`, rows of articles, oldest first, 0 =
    padding (see `nrms.data.histories.Histories.rows`).

    Args:
        size: the number of clicks.

    Raises:
        ValueError: see `checked_size`.
    """

    kind: ClassVar[str] = "history"
    name = "history"

    def __init__(self, size: int) -> None:
        self.size = checked_size(size)
        self.settings = {"size": size}


def checked_size(size: Any) -> int:
    """A size that a bundle gives. Raises ValueError: it is not a whole number from 1 to 100,000, as
    in a damaged bundle, and could take all memory.
    """
    if type(size) is not int or not 1 <= size <= _LARGEST:
        raise ValueError(f"a size must be a whole number from 1 to {_LARGEST:,}")
    return size


@dataclass(frozen=True)
class Inputs:
    """All that a model reads.

    Attributes:
        articles: what it reads of an article.
        history: what it reads of a reader.
        moment: what it reads of an impression or a candidate.
    """

    articles: Sequence[ArticleInput]
    history: History
    moment: Sequence[MomentInput] = field(default=())

    @classmethod
    def load(cls, declared: Mapping[str, Any], files: Mapping[str, Path], where: str) -> Inputs:
        """The inputs of a bundle.

        Args:
            declared: the inputs by name, as the property `declared` gave them.
            files: the bundle's verified files, by name.
            where: the bundle, for messages.

        Raises:
            ArtifactError: an input is of a kind that is not registered, or is damaged, or there is
                not exactly one history.
        """
        made: dict[str, Any] = {}
        for name, about in declared.items():
            try:
                made[name] = _KINDS[about["kind"]](**about["settings"])
            except (KeyError, TypeError, ValueError) as error:
                raise ArtifactError(
                    f"{where}: meta.json must declare inputs of kinds that are registered "
                    f"({', '.join(sorted(_KINDS))}), with settings that these take. Received: "
                    f"{name} = {str(about)[:80]} ({type(error).__name__}: {error}). Import the "
                    "module that defines its kind, or train the model again."
                ) from error
        articles = [one for one in made.values() if isinstance(one, ArticleInput)]
        histories = [one for one in made.values() if isinstance(one, History)]
        if len(histories) != 1:
            raise ArtifactError(
                f"{where}: meta.json must declare one history. Received: "
                f"{', '.join(made) or 'nothing'}. Train the model again."
            )
        moment = [one for one in made.values() if isinstance(one, MomentInput)]
        every: list[ArticleInput | MomentInput] = [*articles, *moment]
        for each in every:
            each.load(files)
        return cls(articles, histories[0], moment)

    @property
    def declared(self) -> dict[str, Any]:
        """The inputs by name, as a bundle's meta.json lists them, JSON-ready."""
        every: list[ArticleInput | History | MomentInput] = [
            *self.articles,
            self.history,
            *self.moment,
        ]
        return {
            one.name: {
                "kind": one.kind,
                "settings": dict(one.settings),
                "files": list(getattr(one, "files", ())),
            }
            for one in every
        }

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of articles.parquet that are read, beyond those of the contract."""
        return tuple(column for one in self.articles for column in one.columns)

    @property
    def specs(self) -> dict[str, Spec]:
        """The dtype and axes of the arrays of `encode`, by name."""
        return {one.name: Spec(one.dtype, one.axes) for one in self.articles}

    @property
    def moment_specs(self) -> dict[str, Spec]:
        """The dtype and axes of the arrays of the moment in a batch of lists, by name."""
        return {
            one.name: Spec(
                one.dtype,
                ("lists", *(("candidates",) if one.per == "candidate" else ()), *one.shape),
            )
            for one in self.moment
        }

    def fit(self, articles: Articles, rows: np.ndarray) -> None:
        """Fits the inputs of articles to these `rows` of `articles`, int64, from 0. Raises what an
        input raises that cannot be fitted.
        """
        for one in self.articles:
            one.fit(articles, rows)

    def save(self, folder: Path) -> None:
        """Writes the files of all inputs into a folder."""
        every: list[ArticleInput | MomentInput] = [*self.articles, *self.moment]
        for one in every:
            one.save(folder)

    def encode(self, articles: Articles) -> dict[str, np.ndarray]:
        """Arrays of shape `(articles, ...)` by name."""
        return {one.name: one.encode(articles) for one in self.articles}

    def keys(self, articles: Articles) -> list[bytes]:
        """For each article a hash, 16 bytes, of all that is read of it."""
        keys = []
        for parts in zip(*(one.content(articles) for one in self.articles), strict=True):
            digest = hashlib.blake2b(digest_size=_KEY_BYTES)
            for part in parts:
                if len(parts) > 1:  # so that no two lists of parts have the same bytes
                    digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
            keys.append(digest.digest())
        return keys

    @property
    def past(self) -> Any:
        """The input that reads what had happened before, `nrms.features.context.input.Context`;
        None where there is no such input.
        """
        return next((one for one in self.moment if one.reads_past), None)

    @property
    def words(self) -> Any:
        """The input that has a vocabulary, such as `nrms.features.title.Title`; None where there is
        no such input.
        """
        return next((one for one in self.articles if one.reads_words), None)

    @property
    def count_words(self) -> Callable[[list[str]], tuple[int, int]] | None:
        """Counts the words of titles, and those among them that the vocabulary lacks; None where
        the model reads no words.
        """
        return None if self.words is None else self.words.count_words


def with_unknown(array: np.ndarray) -> np.ndarray:
    """Puts a row of zeros, for the unknown article, before the rows of the articles: shape
    `(articles + 1, ...)` from `(articles, ...)`.
    """
    return np.concatenate([np.zeros_like(array[:1]), array])
