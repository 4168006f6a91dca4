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
from nrms.data import joins
from nrms.data.articles import Articles
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.quality import DataReport
from nrms.data.schema import schema_error
from nrms.errors import ArtifactError
from nrms.features.tokenizer import Tokenizer
from nrms.inference.article_vectors import ArticleVectors, default_folder
from nrms.inference.onnx_runtime import OnnxEncoders
from nrms.inference.scorer import Scorer, encode_titles, with_unknown
from nrms.storage import parquet

logger = logging.getLogger(__name__)

_FILES = ("news_encoder.onnx", "user_encoder.onnx", "tokenizer.json", bundles.PRIOR)


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
    """

    impressions: Impressions
    scores: np.ndarray
    empty_histories: int
    articles: Articles
    report: DataReport
    joins: Joins


@dataclass(frozen=True)
class ServedModel:
    """A model version with a catalogue. It never changes, so a request that holds it is scored by
    one version and one catalogue.

    Attributes:
        bundle: the model.
        model: its encoders.
        history_size: clicks that it sees.
        articles: the catalogue.
        articles_file: the file that the catalogue was read from.
        max_unknown: see `nrms.data.config.WarningsConfig`.
        vectors: of all articles met so far, by content.
        news_vectors: float32 of shape `(articles + 1, dim)`.
    """

    bundle: Bundle
    model: Model
    history_size: int
    articles: Articles
    articles_file: storage.FileInfo
    max_unknown: float
    vectors: ArticleVectors
    news_vectors: np.ndarray

    @classmethod
    def load(
        cls, settings: Settings, cache: Path, before: ServedModel | None = None
    ) -> ServedModel:
        """Loads the current version and the current articles, and scores with them once.

        Args:
            settings: where they are.
            cache: local folder for what comes from a bucket.
            before: what is served now; its encoders and vectors are used again if they are still
                right.

        Raises:
            ArtifactError: the model is missing, incomplete, altered, or gives no numbers.
            SchemaError: the articles break the contract.
            StorageError: something could not be read.
        """
        bundle = bundles.load(settings.model_uri, cache, _FILES)
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
            model = Model(bundle)
            vectors = ArticleVectors(bundle.sha256, model.encode_titles)
            vectors.load(folder, cache)
        articles_file = storage.stat(uri)
        articles = Articles.read(articles_file, cache)
        titles, history_size, encoded = (
            articles.titles.to_pylist(),
            bundle.number("history_size"),
            vectors.encoded,
        )
        # A few titles are tried first: a broken version is loaded again and again, and must not
        # encode the whole catalogue each time.
        model.try_out(with_unknown(model.encode_titles(titles[:history_size])), history_size)
        news_vectors = with_unknown(vectors.of(titles))
        model.try_out(news_vectors, history_size)
        encoded = vectors.encoded - encoded
        logger.info("%s: %s articles, %s encoded", uri, f"{len(titles):,}", f"{encoded:,}")
        vectors.save(folder)
        return cls(
            bundle,
            model,
            history_size,
            articles,
            articles_file,
            settings.max_unknown,
            vectors,
            news_vectors,
        )

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

    def score(self, folder: Path, row_histories: bool, warnings: list[str]) -> Scored:
        """Scores an upload that has been read, exactly as the nightly job would.

        Args:
            folder: see `api.uploads`.
            row_histories: whether the histories came in the rows.
            warnings: of the decoder, to which those about joins are added.

        Raises:
            SchemaError: it breaks the contract.
        """
        articles, news_vectors = self._with_articles_of(folder)
        dataset = Dataset(str(folder), folder, self.articles_file, articles)
        split = dataset.split("upload", self.history_size)
        impressions = split.read(0)
        joins.refuse_strangers(dataset, split, joins.FEW)
        found = joins.check(
            dataset, split, self.model.tokenizer.count, self.bundle.joins, self.max_unknown
        )
        scores = Scorer(
            self.model.encoders, news_vectors, split.histories.rows, self.model.prior
        ).score(impressions)
        empty = int(np.count_nonzero(split.histories.lengths[impressions.user] == 0))
        if row_histories:
            users = parquet.read(folder / "upload" / "behaviors.parquet", [ROW_USERS])[ROW_USERS]
            impressions = replace(impressions, user_id=users.combine_chunks())
        found = replace(found, warnings=warnings + found.warnings)
        return Scored(impressions, scores, empty, articles, split.report, found)

    def _with_articles_of(self, folder: Path) -> tuple[Articles, np.ndarray]:
        """The catalogue with the upload's articles that it lacks."""
        path = folder / "articles.parquet"
        if not path.exists():
            return self.articles, self.news_vectors
        uploaded = Articles.read(storage.stat(path), folder)
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
            return self.articles, self.news_vectors
        ids, titles = uploaded.ids.take(pa.array(new)), uploaded.titles.take(pa.array(new))
        articles = Articles(
            pa.concat_arrays([self.articles.ids, ids]),
            pa.concat_arrays([self.articles.titles, titles]),
            uploaded.report,
        )
        return articles, np.concatenate(
            [self.news_vectors, self.model.encode_titles(titles.to_pylist())]
        )


class Model:
    """A version's tokenizer and encoders.

    Args:
        bundle: the verified version.

    Attributes:
        encoders: see `nrms.inference.scorer`.
        prior: the vector of readers of whom nothing is known, float32 `(dim,)`; None in a version
            that has none.
        tokenizer: with the model's vocabulary.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.encoders = OnnxEncoders(
            bundle.files["news_encoder.onnx"], bundle.files["user_encoder.onnx"]
        )
        self.prior = bundle.prior()
        self.tokenizer = Tokenizer.load(bundle.files["tokenizer.json"])
        self._title_size = bundle.number("title_size")
        self._uri = bundle.uri

    def encode_titles(self, titles: list[str]) -> np.ndarray:
        """News vectors, float32 of shape `(titles, dim)`."""
        return encode_titles(self.encoders, self.tokenizer.encode(titles, self._title_size))

    def try_out(self, news_vectors: np.ndarray, history_size: int) -> None:
        """Scores all articles for a reader of the first ones, so that a model that cannot is never
        served.
        """
        rows = np.arange(1, min(len(news_vectors), history_size + 1), dtype=np.int32)
        user = self.encoders.encode_users(news_vectors[: len(rows) + 1], rows[None])
        if self.prior is not None and self.prior.shape != user[0].shape:
            raise ArtifactError(
                f"{self._uri}: {bundles.PRIOR} must be as long as a user vector. Received: "
                f"{len(self.prior)} numbers, not {len(user[0])}. Train it again."
            )
        if not np.isfinite(news_vectors @ user[0]).all():
            raise ArtifactError(
                f"{self._uri}: scores must be numbers. Received: NaN or infinity in a first try. "
                f"Train it again."
            )
