"""A model opened to score. Only this module turns a bundle's files into scores.

Validation, the nightly job, the service and the benchmarks use it and not the modules below it:

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
from nrms.inference.ranked import RankedScorer
from nrms.inference.runtime import Lists, Runtime, Scorable
from nrms.inference.vectors import (
    NEWS_ENCODER,
    NEWS_VECTORS,
    USER_ENCODER,
    VectorScorer,
    encode_news,
)

RuntimeName = Literal["keras", "onnx"]

# The graphs that a bundle must have for each way of scoring.
_VECTORS = (NEWS_ENCODER, USER_ENCODER)
_GRAPHS = {"vectors": _VECTORS, "lists": (LIST_SCORER,), "ranked": (*_VECTORS, LIST_SCORER)}


class Scorer(Protocol):
    """Scores impressions of one catalogue and one set of readers."""

    def prepare(self, users: np.ndarray) -> None:
        """Does now what can be done in advance for these users, rows of the histories."""

    def score(self, impressions: Scorable) -> np.ndarray:
        """Scores every candidate of a shard: float32 `(c,)`, in their order; higher is better."""


@dataclass(frozen=True)
class Catalogue:
    """Articles with the arrays in which scoring looks them up.

    Attributes:
        articles: the articles.
        arrays: arrays of shape `(articles + 1, ...)`, by name; row 0 is the unknown article.
    """

    articles: Articles
    arrays: Mapping[str, np.ndarray]

    @property
    def vectors(self) -> np.ndarray | None:
        """News vectors, float32 `(articles + 1, dim)`; None for a model without them."""
        return self.arrays.get(NEWS_VECTORS)

    def extended(self, others: Catalogue) -> Catalogue:
        """These articles followed by others, of a catalogue of the same model."""
        arrays = {
            name: np.concatenate([array, others.arrays[name][1:]])
            for name, array in self.arrays.items()
        }
        return Catalogue(self.articles.extended(others.articles), arrays)


class LoadedModel:
    """A model with the runtime that executes it.

    Args:
        inputs: what the model reads.
        runtime: makes the runtime; called when it is first needed.
        scoring: `vectors`: dot products of the vectors of articles and readers; `lists`: all
            candidates of an impression at once; `ranked`: lists whose candidates have the scores
            of vectors.
        prior: where there are vectors, the vector of readers without a history, float32
            `(dim,)`. With None their vector is zeros, and all their candidates have equal scores.
        where: the bundle, for messages.

    Attributes:
        inputs: as given.
        scoring: as given.
        prior: as given, or what `fit_prior` found.
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
            ArtifactError: a part is damaged, or the graphs that its way of scoring needs are
                missing. A graph that ONNX Runtime cannot load raises it when the runtime is first
                needed.
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
            # Imported here, because importing TensorFlow takes seconds, and ONNX Runtime does not
            # need it.
            if runtime == "onnx":
                from nrms.inference.onnx_runtime import OnnxRuntime

                return OnnxRuntime({name: bundle.files[f"{name}.onnx"] for name in graphs})
            from nrms.inference.keras_runtime import KerasRuntime

            return KerasRuntime.load(bundle.files[KERAS], inputs.specs)

        return cls(inputs, make, scoring, bundle.prior(), bundle.uri)

    @classmethod
    def of(cls, model: HasGraphs, inputs: Inputs) -> LoadedModel:
        """A float32 Keras model in memory. Each call uses the weights that it has then."""
        from nrms.inference.keras_runtime import KerasRuntime

        return cls(inputs, lambda: KerasRuntime(model, inputs.specs), model.scoring)

    @functools.cached_property
    def runtime(self) -> Runtime:
        """The runtime that executes the graphs, made when it is first needed. Raises ArtifactError:
        ONNX Runtime cannot load a graph.
        """
        return self._make_runtime()

    def catalogue(self, articles: Articles, kept: ArticleVectors | None = None) -> Catalogue:
        """Encodes at least one article for scoring.

        Args:
            articles: the articles, read with `inputs.columns`.
            kept: vectors that were made earlier; new ones are added. With None every article is
                encoded.
        """
        if self.scoring == "lists" or kept is None:
            return self.catalogue_of(articles, self.inputs.encode(articles))
        vectors = kept.of(
            self.inputs.keys(articles),
            lambda rows: encode_news(self.runtime, self.inputs.encode(articles.take(rows))),
        )
        return Catalogue(articles, {NEWS_VECTORS: with_unknown(vectors)})

    def catalogue_of(self, articles: Articles, arrays: Mapping[str, np.ndarray]) -> Catalogue:
        """The same for articles whose `arrays` `inputs.encode` has already made."""
        if self.scoring != "lists":
            arrays = {NEWS_VECTORS: encode_news(self.runtime, arrays)}
        return Catalogue(articles, {name: with_unknown(array) for name, array in arrays.items()})

    def scorer(self, catalogue: Catalogue, histories: np.ndarray) -> Scorer:
        """Makes the scorer of impressions of these articles and readers.

        Args:
            catalogue: articles encoded by this model.
            histories: int32 `(users + 1, history)`, rows of articles, 0 = padding; row 0 is empty.

        Raises:
            ArtifactError: the prior is not as long as a user vector.
        """
        if self.scoring == "lists":
            return self._list_scorer(catalogue)
        dim = catalogue.arrays[NEWS_VECTORS].shape[1]
        if self.prior is not None and self.prior.shape != (dim,):
            raise ArtifactError(
                f"{self._where}: prior.npy must be as long as a user vector. Received: "
                f"{len(self.prior)} numbers, not {dim}. Train the model again."
            )
        vectors = VectorScorer(self.runtime, catalogue.arrays, histories, self.prior)
        if self.scoring == "vectors":
            return vectors
        return RankedScorer(vectors, self._list_scorer(catalogue))

    def _list_scorer(self, catalogue: Catalogue) -> ListScorer:
        needed = [] if self.inputs.past is None else [self.inputs.past.name]
        return ListScorer(self.runtime, catalogue.arrays, self.inputs.moment_specs, needed)

    def fit_prior(self, catalogue: Catalogue, histories: np.ndarray, users: np.ndarray) -> None:
        """Sets `prior` to the mean vector of these users, rows of `histories`; to None for a model
        without vectors.
        """
        self.prior = None
        scorer = self.scorer(catalogue, histories)
        if isinstance(scorer, RankedScorer):
            scorer = scorer.vectors
        if isinstance(scorer, VectorScorer):
            self.prior = scorer.prior_vector(users)

    def try_out(self, articles: Articles, kept: ArticleVectors | None = None) -> Catalogue:
        """The catalogue of these articles, after all of them have been scored once for a reader of
        the first ones, so that a model that cannot score is found before it is used.

        Raises:
            ArtifactError: a score is not a finite number; or as `scorer` and `runtime` raise it.
        """
        catalogue = self.catalogue(articles, kept)
        candidates = np.arange(1, len(articles) + 1, dtype=np.int32)
        history = np.zeros((2, self.inputs.history.size), np.int32)
        read = candidates[: history.shape[1]]
        history[1, : len(read)] = read
        moment = {
            one.name: np.zeros((len(candidates), *one.shape), one.dtype)
            for one in self.inputs.moment
            if one.reads_past
        }
        scores = self.scorer(catalogue, history).score(
            Lists(np.ones(1, np.int32), np.array([0, len(candidates)]), candidates, {}, moment)
        )
        if not np.isfinite(scores).all():
            raise ArtifactError(
                f"{self._where}: scores must be numbers. Received: NaN or infinity in a first try. "
                "Train it again."
            )
        return catalogue
