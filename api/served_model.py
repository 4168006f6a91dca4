"""What the service scores with: a model version and a catalogue, which are loaded and exchanged
together.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from api.settings import Settings
from api.uploads.contract import ROW_USERS
from nrms import bundles, storage
from nrms.bundles import Bundle
from nrms.data.articles import Articles
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.quality import DataReport
from nrms.data.schema import schema_error
from nrms.errors import ArtifactError, ObjectNotFound
from nrms.events.event import now
from nrms.features.context.start import is_stale
from nrms.features.context.state import State
from nrms.inference.article_vectors import ArticleVectors, default_folder
from nrms.inference.loaded_model import Catalogue, LoadedModel, RuntimeName, Scorer
from nrms.inference.whole import live_before, rows_before, score_whole
from nrms.storage import parquet

logger = logging.getLogger(__name__)

_RUNTIME: RuntimeName = "onnx"


@dataclass(frozen=True)
class Scored:
    """A scored upload.

    Attributes:
        impressions: its rows, users as they came.
        scores: float32 of shape `(c,)`.
        empty_histories: impressions whose user the model knows nothing of.
        articles: the catalogue with the upload's own articles.
        report: what was counted while it was read.
        joins: its shares, and warnings for people.
        scorer: what made the scores.
        context: "fresh" or "stale", see `nrms.features.context.start.is_stale`; None where it was
            not scored with the state of the service.
    """

    impressions: Impressions
    scores: np.ndarray
    empty_histories: int
    articles: Articles
    report: DataReport
    joins: Joins
    scorer: Scorer
    context: str | None = None


@dataclass(frozen=True)
class ServedModel:
    """A model version with a catalogue. It never changes, so a request that holds it is scored by
    one version and one catalogue.

    Attributes:
        bundle: the version.
        model: what scores with it.
        catalogue: the articles.
        articles_file: the file that these were read from.
        max_unknown: see `nrms.data.config.WarningsConfig`.
        vectors: of all articles met so far, by content.
    """

    bundle: Bundle
    model: LoadedModel
    catalogue: Catalogue
    articles_file: storage.FileInfo
    max_unknown: float
    vectors: ArticleVectors

    @classmethod
    def load(
        cls, settings: Settings, cache: Path, before: ServedModel | None = None
    ) -> ServedModel:
        """Loads the current version and the current articles, and scores with them once.

        Args:
            settings: where they are.
            cache: local folder for what comes from a bucket.
            before: what is served now; its model and vectors are used again if they are still
                right.

        Raises:
            ArtifactError: the model is missing, incomplete, altered, or gives no numbers.
            SchemaError: the articles break the contract.
            StorageError: something could not be read.
        """
        bundle = bundles.load(settings.model_uri, cache, [_RUNTIME])
        uri = settings.articles_uri or bundle.meta.get("data", {}).get("articles")
        if not isinstance(uri, str):
            raise ArtifactError(
                f"{bundle.uri}: meta.json must say which articles the model was trained with. "
                "Received: nothing. Set ARTICLES_URI."
            )
        folder = settings.article_vectors or default_folder(bundle.uri)
        if before is not None and before.bundle.sha256 == bundle.sha256:
            model, vectors = before.model, before.vectors
        else:
            model = LoadedModel.open(bundle, _RUNTIME)
            vectors = ArticleVectors(bundle.sha256, _RUNTIME)
            vectors.load(folder, cache)
        try:
            articles_file = storage.stat(uri)
        except ObjectNotFound as error:
            raise ArtifactError(
                f"{uri}: the articles to serve must be there. Received: no file, looked for from "
                f"{Path.cwd()}. Set ARTICLES_URI."
            ) from error
        articles = Articles.read(articles_file, cache, model.inputs.columns)
        encoded = vectors.encoded
        # A few articles are tried first: a broken version is loaded again and again, and must not
        # encode the whole catalogue each time.
        model.try_out(articles.take(np.arange(min(len(articles), model.inputs.history.size))))
        catalogue = model.try_out(articles, vectors)
        encoded = vectors.encoded - encoded
        logger.info("%s: %s articles, %s encoded", uri, f"{len(articles):,}", f"{encoded:,}")
        vectors.save(folder)
        return cls(bundle, model, catalogue, articles_file, settings.max_unknown, vectors)

    @property
    def articles(self) -> Articles:
        """The articles of the catalogue."""
        return self.catalogue.articles

    @property
    def string_ids(self) -> bool:
        """Whether the catalogue's article ids are strings, and not integers."""
        return pa.types.is_string(self.articles.ids.type)

    def is_current(self, settings: Settings) -> bool:
        """Whether `load` would give the same. Raises what `load` raises."""
        version = bundles.latest_version(settings.model_uri)
        # There is no latest.json where the URI is a version's own folder.
        own_folder = self.bundle.uri == storage.normal(settings.model_uri)
        same = own_folder if version is None else self.bundle.version == version
        return same and storage.stat(self.articles_file.uri) == self.articles_file

    def score(
        self, folder: Path, row_histories: bool, warnings: list[str], live: State | None = None
    ) -> Scored:
        """Scores an upload that has been read, exactly as the nightly job would.

        Args:
            folder: see `api.uploads`.
            row_histories: whether the histories came in the rows.
            warnings: of the decoder, to which those about joins are added.
            live: what a model that reads the past starts from, and then the upload's own rows do
                not count; None for its own state and these rows.

        Raises:
            SchemaError: it breaks the contract.
        """
        catalogue = self._with_articles_of(folder)
        dataset = Dataset(str(folder), folder, self.articles_file, catalogue.articles)
        users = None
        if row_histories:
            rows = parquet.read(folder / "upload" / "behaviors.parquet", [ROW_USERS])
            users = rows[ROW_USERS].combine_chunks()
        clock, before = now(), None
        past = self.model.inputs.past
        if past is not None and live is not None:
            before = live_before(live, clock, users)
        elif past is not None:
            before = rows_before(past.state, clock, users)
        scored = score_whole(
            self.model, catalogue, dataset, "upload", self.bundle.joins, self.max_unknown, before
        )
        impressions, split = scored.impressions, scored.split
        empty = int(np.count_nonzero(split.histories.lengths[impressions.user] == 0))
        if users is not None:
            impressions = replace(impressions, user_id=users)
        found = replace(scored.joins, warnings=warnings + scored.joins.warnings)
        context = None
        if live is not None:
            context = "stale" if is_stale(live, split.last_time or clock) else "fresh"
        return Scored(
            impressions,
            scored.scores,
            empty,
            catalogue.articles,
            split.report,
            found,
            scored.scorer,
            context,
        )

    def _with_articles_of(self, folder: Path) -> Catalogue:
        """The catalogue with the upload's articles that it lacks."""
        path = folder / "articles.parquet"
        if not path.exists():
            return self.catalogue
        uploaded = Articles.read(storage.stat(path), folder, self.model.inputs.columns)
        if uploaded.ids.type != self.articles.ids.type:
            raise schema_error(
                f"Column `article_id` must hold ids of the same type as the catalogue "
                f"({self.articles.ids.type}).",
                str(uploaded.ids.type),
                "articles",
                "Cast the column.",
            )
        new = np.flatnonzero(self.articles.rows(uploaded.ids) == 0)
        if not len(new):
            return self.catalogue
        return self.catalogue.extended(self.model.catalogue(uploaded.take(new)))
