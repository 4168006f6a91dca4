"""A model opened to score: the only thing that joins a bundle's files to scores.

Validation, the nightly job, the service and the benchmarks use it, and nothing below it:

    model = LoadedModel.open(bundles.load("gs://bucket/models", cache), "onnx")
    catalogue = model.catalogue(articles)
    scores = model.scorer(catalogue, split.histories.rows).score(split.read(0))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from nrms.architectures.model_graph import HasGraphs
from nrms.bundles import Bundle
from nrms.bundles.parts import KERAS
from nrms.data.articles import Articles
from nrms.errors import ArtifactError
from nrms.features.inputs import Inputs, with_unknown
from nrms.inference.article_vectors import ArticleVectors
from nrms.inference.lists import LIST_SCORER, ListScorer
from nrms.inference.runtime import Runtime, Scorable
from nrms.inference.vectors import (
    NEWS_ENCODER,
    NEWS_VECTORS,
    USER_ENCODER,
    VectorScorer,
    encode_news,
)

RuntimeName = Literal["keras", "onnx"]

# The graphs that each way of scoring needs.
_GRAPHS = {"vectors": (NEWS_ENCODER, USER_ENCODER), "lists": (LIST_SCORER,)}


class Scorer(Protocol):
    """Scores impressions of the readers and articles that it was made for."""

    def prepare(self, users: np.ndarray) -> None:
        """Does beforehand what can be done for these users, rows of the histories."""

    def score(self, impressions: Scorable) -> np.ndarray:
        """Scores every candidate of a shard: float32 `(c,)`, in their order; higher is better."""


@dataclass(frozen=True)
class Catalogue:
    """Articles, and what scoring looks up of them.

    Attributes:
        articles: the articles.
        arrays: of shape `(articles + 1, ...)` by name; row 0 is the unknown article.
    """

    articles: Articles
    arrays: Mapping[str, np.ndarray]

    def extended(self, others: Catalogue) -> Catalogue:
        """With other articles after these."""
        arrays = {
            name: np.concatenate([array, others.arrays[name][1:]])
            for name, array in self.arrays.items()
        }
        return Catalogue(self.articles.extended(others.articles), arrays)


class LoadedModel:
    """A model with what executes it.

    Args:
        inputs: what it reads.
        runtime: gives what executes its graphs, when it is needed first.
        scoring: how it scores: `vectors`, those of articles and readers; or `lists`, the candidates
            of an impression at once.
        prior: of a model of vectors, that of a reader of whom nothing is known, float32 `(dim,)`;
            None leaves such readers with zeros, by which all candidates are equal.
        where: the bundle, for messages.
    """

    def __init__(
        self,
        inputs: Inputs,
        runtime: Callable[[], Runtime],
        scoring: str,
        prior: np.ndarray | None = None,
        where: str = "model",
    ) -> None:
        self.inputs = inputs
        self.scoring = scoring
        self.prior = prior
        self._make_runtime = runtime
        self._where = where

    @classmethod
    def open(cls, bundle: Bundle, runtime: RuntimeName = "onnx") -> LoadedModel:
        """Opens a verified bundle that was loaded for this runtime.

        Raises:
            ArtifactError: it lacks what its way of scoring needs, or, when the runtime is needed
                first, cannot be executed.
        """
        inputs = Inputs.load(bundle.parts.inputs, bundle.files, bundle.uri)
        scoring, graphs = bundle.parts.scoring, bundle.parts.graphs
        if scoring not in _GRAPHS or not set(_GRAPHS[scoring]) <= set(graphs):
            raise ArtifactError(
                f"{bundle.uri}: meta.json must name a way of scoring ({', '.join(_GRAPHS)}) and "
                f"its graphs. Received: {scoring!r:.60} and {', '.join(graphs)}. Train the model "
                "again."
            )

        def make() -> Runtime:
            # Imported here: TensorFlow takes seconds, and one of the two is enough.
            if runtime == "onnx":
                from nrms.inference.onnx_runtime import OnnxRuntime

                return OnnxRuntime({name: bundle.files[f"{name}.onnx"] for name in graphs})
            from nrms.inference.keras_runtime import KerasRuntime

            return KerasRuntime.load(bundle.files[KERAS], inputs.specs)

        return cls(inputs, make, scoring, bundle.prior(), bundle.uri)

    @classmethod
    def of(cls, model: HasGraphs, inputs: Inputs) -> LoadedModel:
        """A Keras model in memory, in float32; its current weights are used at each call."""
        from nrms.inference.keras_runtime import KerasRuntime

        return cls(inputs, lambda: KerasRuntime(model, inputs.specs), model.scoring)

    @functools.cached_property
    def runtime(self) -> Runtime:
        """What executes its graphs."""
        return self._make_runtime()

    def catalogue(self, articles: Articles, kept: ArticleVectors | None = None) -> Catalogue:
        """What scoring looks up of these articles, at least one.

        Args:
            articles: read with `inputs.columns`.
            kept: vectors of earlier times by content, added to; None encodes every article.
        """
        if self.scoring != "vectors" or kept is None:
            return self.catalogue_of(articles, self.inputs.encode(articles))
        vectors = kept.of(
            self.inputs.keys(articles),
            lambda rows: encode_news(self.runtime, self.inputs.encode(articles.take(rows))),
        )
        return Catalogue(articles, {NEWS_VECTORS: with_unknown(vectors)})

    def catalogue_of(self, articles: Articles, arrays: Mapping[str, np.ndarray]) -> Catalogue:
        """The same of articles that `inputs.encode` has encoded already."""
        if self.scoring == "vectors":
            arrays = {NEWS_VECTORS: encode_news(self.runtime, arrays)}
        return Catalogue(articles, {name: with_unknown(array) for name, array in arrays.items()})

    def scorer(
        self, catalogue: Catalogue, histories: np.ndarray, state: object | None = None
    ) -> Scorer:
        """What scores impressions of these articles and readers.

        Args:
            catalogue: of this model.
            histories: int32 `(users + 1, history)`, rows of articles, 0 = padding; row 0 is empty.
            state: what happened before; no model reads it yet.

        Raises:
            ArtifactError: the bundle's prior is not as long as a vector.
        """
        if self.scoring == "lists":
            return ListScorer(self.runtime, catalogue.arrays, self.inputs.moment_specs)
        dim = catalogue.arrays[NEWS_VECTORS].shape[1]
        if self.prior is not None and self.prior.shape != (dim,):
            raise ArtifactError(
                f"{self._where}: prior.npy must be as long as a user vector. Received: "
                f"{len(self.prior)} numbers, not {dim}. Train the model again."
            )
        return VectorScorer(self.runtime, catalogue.arrays, histories, self.prior)

    def fit_prior(self, catalogue: Catalogue, histories: np.ndarray, users: np.ndarray) -> None:
        """Takes the mean vector of these users, rows of `histories`, as its prior; nothing where
        it has no vectors.
        """
        self.prior = None
        scorer = self.scorer(catalogue, histories)
        if isinstance(scorer, VectorScorer):
            self.prior = scorer.prior_vector(users)

    def try_out(self, articles: Articles, kept: ArticleVectors | None = None) -> Catalogue:
        """The catalogue of these articles, after all have been scored once for a reader of the
        first ones: so a model that cannot score is found before it is served.

        Raises:
            ArtifactError: scores are no numbers; and what `scorer` raises.
        """
        catalogue = self.catalogue(articles, kept)
        candidates = np.arange(1, len(articles) + 1, dtype=np.int32)
        history = np.zeros((2, self.inputs.history.size), np.int32)
        read = candidates[: history.shape[1]]
        history[1, : len(read)] = read
        scores = self.scorer(catalogue, history).score(
            _Lists(np.ones(1, np.int32), np.array([0, len(candidates)]), candidates, {}, {})
        )
        if not np.isfinite(scores).all():
            raise ArtifactError(
                f"{self._where}: scores must be numbers. Received: NaN or infinity in a first try. "
                "Train it again."
            )
        return catalogue


@dataclass(frozen=True)
class _Lists:
    user: np.ndarray
    offsets: np.ndarray
    candidates: np.ndarray
    per_impression: Mapping[str, np.ndarray]
    per_candidate: Mapping[str, np.ndarray]
