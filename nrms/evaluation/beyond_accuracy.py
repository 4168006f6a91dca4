r"""What accuracy does not say of a ranking: how diverse, novel and well spread its lists are.

A list is the top k of an impression, k = 5 and 10, in the order of the ranks of the predictions:
equal scores stand in the given order. An impression of fewer candidates has a shorter list. Nothing
is known of an article that is not in `articles.parquet`: it takes its place in the list and is left
out of what follows.

- `ild_vectors@k`: intra-list diversity, the mean cosine distance :math:`1 - \cos(v_i, v_j)` over
  all pairs of a list (Smyth and McClave, ICCBR 2001), of the news vectors of the model. An article
  whose vector is zeros is left out; a list of fewer than two others has no diversity.
- `ild_categories@k`: the same with a dimension for each category, which is the share of pairs of
  different categories. An article without a category is left out.
- `serendipity@k`: the mean cosine distance between an article of the list and one of the reader's
  history, as the model saw it, over all pairs (Lu, Dumitrache and Graus, 2020).
- `novelty@k`: the mean of :math:`-\log_2 p` over the list, where p is the article's share of all
  clicks of the split, those after the impression too (Zhou et al., PNAS 2010; Vargas and Castells,
  RecSys 2011). An article without a click counts as one with a single click.
- `calibration@k`: how far the list's mix of categories q is from the history's p, in nats:
  :math:`\sum_c p_c \ln(p_c / \tilde q_c)` with :math:`\tilde q = 0.99\,q + 0.01\,p` (Steck, RecSys
  2018). It is 0 for equal mixes, and lower is better.
- `new_articles@k`: the share of the list's articles that are under 1 h old, as the slice
  `article_age` tells it. An article of which that is not known is left out.
- `coverage@k`: how many different articles the lists of all impressions hold, of those that are
  candidates in any (Ge et al., RecSys 2010).
- `gini@k`: the Gini index of how often each of these candidates is in a list, :math:`\sum_i (2i - n
  - 1)\,x_i / (n \sum_i x_i)` for the n counts x in ascending order, i from 1. It is 0 where all are
  shown equally often, and near 1 where a few are shown always.

All but the last two are means over the lists for which they are defined. Of a split of more than
10,000 impressions, these are the lists of at most so many, evenly spaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from nrms.data.articles import Articles
from nrms.data.columns import row_numbers
from nrms.data.impressions import Impressions
from nrms.data.schema import Column
from nrms.data.split import Split
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.baselines import Popularity
from nrms.evaluation.ranking import top
from nrms.features.category import Category, labels_of

logger = logging.getLogger(__name__)

CUTOFFS = (5, 10)
# The name of each and what people are shown, in the order of a report.
_MEANS = {
    "ild_vectors": "diversity of news vectors",
    "ild_categories": "diversity of categories",
    "serendipity": "serendipity",
    "novelty": "novelty, bits",
    "calibration": "calibration, nats",
    "new_articles": "share of new articles",
}
MEANS = tuple(_MEANS)
TITLES = {**_MEANS, "coverage": "coverage", "gini": "Gini index"}
NAMES = tuple(TITLES)
# The means are over at most so many lists, so that a night of millions is not slowed by them. Their
# standard error is then about a hundredth of the deviation of lists.
MEASURED = 10_000

_CATEGORY = "category"
_SMOOTHING = 0.01  # Steck's alpha, as in his experiments
_CHUNK = 256  # lists measured at once, so that their vectors stay in the processor's cache


def with_category(columns: Sequence[Column]) -> list[Column]:
    """These columns of articles.parquet, and those of the categories that are not among them."""
    names = {column.name for column in columns}
    return [*columns, *(one for one in Category(_CATEGORY).columns if one.name not in names)]


def category_codes(articles: Articles) -> np.ndarray | None:
    """The category of each article, int32 `[articles + 1]`, 0 where it is unknown, null or empty;
    None where no category is known, which is logged.

    Args:
        articles: read `with_category`.
    """
    labels = labels_of(articles, _CATEGORY)
    known = labels.drop_null().unique()
    if not len(known):
        logger.info(
            "articles.parquet has no categories: their diversity and calibration are left out"
        )
        return None
    return np.append(0, row_numbers(labels, known)).astype(np.int32)


class BeyondAccuracy:
    """Takes shards with their rankings one by one, and gives the metrics over all of them. Shards
    may come in parts.

    Memory: 16 bytes for each article and ranking, and 17 for each article.

    Args:
        articles: the number of articles.
        histories: `Histories.rows`, int32 `[users + 1, history]`.
        categories: `category_codes`; None leaves out what reads them, as with the others.
        vectors: news vectors, float32 `[articles + 1, dim]`; row 0 is ignored.
        clicks: clicks on each article, int64 `[articles + 1]`.
        ages: tells new articles.
        every: the means are over the first impression and every so many after it.

    Example:
        beyond = BeyondAccuracy.of(split, articles, popularity, ages, vectors)
        for i in range(len(split)):
            shard = split.read(i)
            beyond.add(shard, {"model": best_first(shard.offsets, scores(shard))})
        beyond.result()["model"]["novelty@5"]
    """

    def __init__(
        self,
        articles: int,
        histories: np.ndarray,
        categories: np.ndarray | None = None,
        vectors: np.ndarray | None = None,
        clicks: np.ndarray | None = None,
        ages: ArticleAges | None = None,
        every: int = 1,
    ) -> None:
        self._histories, self._ages, self._every = histories, ages, every
        self._categories = categories
        self._columns = 1 if categories is None else 1 + int(categories.max(initial=0))
        self._vectors = vectors
        if vectors is not None:
            norms = np.sqrt(np.einsum("ad,ad->a", vectors, vectors))
            norms[0] = 0
            self._scales = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        self._information = None
        if clicks is not None and clicks.any():
            self._information = -np.log2(np.maximum(clicks, 1) / clicks.sum())
        self._seen = 0
        self._shown = np.zeros(articles + 1, bool)
        self._rankings: dict[str, _Sums] = {}

    @classmethod
    def of(
        cls,
        split: Split,
        articles: Articles,
        popularity: Popularity,
        ages: ArticleAges,
        vectors: np.ndarray | None,
    ) -> BeyondAccuracy:
        """Makes it for all good shards of a split.

        Args:
            split: the split.
            articles: the article table, read `with_category`.
            popularity: knows all clicks of the split.
            ages: knows all showings of the split.
            vectors: news vectors, float32 `[articles + 1, dim]`; None for a model without them.
        """
        rows = sum(split.file_rows[info.uri] for info in split.good)
        return cls(
            len(articles),
            split.histories.rows,
            category_codes(articles),
            vectors,
            popularity.clicks(len(articles)),
            ages,
            every=max(1, -(-rows // MEASURED)),
        )

    def add(self, impressions: Impressions, orders: Mapping[str, np.ndarray]) -> None:
        """Adds a shard.

        Args:
            impressions: the shard.
            orders: `nrms.evaluation.ranking.best_first` of each ranking, int64 `[c]`, by its name.
        """
        self._shown[impressions.candidates] = True
        rows = np.arange(-self._seen % self._every, len(impressions), self._every)
        self._seen += len(impressions)
        candidates = np.append(impressions.candidates, np.int32(0))  # 0 for a place without one
        lists = {}
        for name, order in orders.items():
            found = candidates[top(impressions.offsets, order, CUTOFFS[-1])]
            self._rankings.setdefault(name, _Sums(len(self._shown))).count(found)
            lists[name] = found[rows]
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            reader = self._reader(self._histories[impressions.user[rows[part]]])
            now = None if impressions.time is None else impressions.time[rows[part]]
            for name, found in lists.items():
                self._rankings[name].add(self._measured(found[part], now, *reader))

    def result(self) -> dict[str, dict[str, float]]:
        """The metrics of each ranking, such as `novelty@5`, by its name. What could not be computed
        is absent.
        """
        return {name: sums.result(self._shown) for name, sums in self._rankings.items()}

    def _reader(self, histories: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The means of the unit vectors of histories, float32 `[m, dim]`, NaN without one; and
        their mixes of categories, float64 `[m, categories]`.
        """
        mean = mix = None
        if self._vectors is not None:
            scales = self._scales[histories]
            counts = np.count_nonzero(scales, axis=1)[:, None]
            total = (scales[:, None] @ self._vectors[histories])[:, 0]
            mean = np.divide(total, counts, out=np.full_like(total, np.nan), where=counts > 0)
        if self._categories is not None:
            mix = _shares(self._counts(histories))
        return mean, mix

    def _measured(
        self,
        lists: np.ndarray,
        now: np.ndarray | None,
        history: np.ndarray | None,
        mix: np.ndarray | None,
    ) -> np.ndarray:
        """The metrics of lists, float64 `[metrics, cutoffs, m]`, rows as in `MEANS`; NaN where one
        is not defined.

        Args:
            lists: articles, int32 `[m, 10]`, the best first, 0 for an unknown one and for none.
            now: times, datetime64[us] `[m]`.
            history: see `_reader`.
            mix: see `_reader`.
        """
        found = dict.fromkeys(MEANS, np.full((len(CUTOFFS), len(lists)), np.nan))
        if history is not None:
            found["ild_vectors"], found["serendipity"] = self._distances(lists, history)
        if mix is not None:
            counts = [self._counts(lists[:, :k]) for k in CUTOFFS]
            found["ild_categories"] = np.stack([_different_pairs(count) for count in counts])
            found["calibration"] = np.stack([_divergence(mix, _shares(count)) for count in counts])
        if self._information is not None:
            found["novelty"] = _means(self._information[lists], lists > 0)
        if self._ages is not None and now is not None:
            found["new_articles"] = _means(*self._ages.are_new(lists, now[:, None]))
        return np.stack(list(found.values()))

    def _distances(self, lists: np.ndarray, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Diversity and serendipity, float `[cutoffs, m]`. The sum of the unit vectors of a list
        holds all that its pairs add up to, so no pair is looked at.
        """
        scales = np.zeros((len(lists), len(CUTOFFS), lists.shape[1]), np.float32)
        for row, k in enumerate(CUTOFFS):
            scales[:, row, :k] = self._scales[lists[:, :k]]
        assert self._vectors is not None
        totals = scales @ self._vectors[lists]
        n = np.count_nonzero(scales, axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = (np.einsum("mkd,mkd->mk", totals, totals) - n) / (n * (n - 1))
            beside = np.einsum("mkd,md->mk", totals, history) / n
        diversity = np.where(n > 1, np.maximum(0, 1 - pairs), np.nan)
        return diversity.T, np.where(n > 0, 1 - beside, np.nan).T

    def _counts(self, articles: np.ndarray) -> np.ndarray:
        """How many articles of each row have each category: int64 `[m, categories]`."""
        assert self._categories is not None
        rows = np.arange(len(articles))[:, None] * self._columns
        keys = (rows + self._categories[articles]).ravel()
        counts = np.bincount(keys, minlength=len(articles) * self._columns)
        return counts.reshape(len(articles), self._columns)[:, 1:]


class _Sums:
    """The sums of one ranking.

    Args:
        articles: the number of articles, with the unknown one.
    """

    def __init__(self, articles: int) -> None:
        self._totals = np.zeros((len(MEANS), len(CUTOFFS)))
        self._defined = np.zeros((len(MEANS), len(CUTOFFS)), np.int64)
        self._listed = np.zeros((len(CUTOFFS), articles), np.int64)

    def count(self, lists: np.ndarray) -> None:
        """Counts how often articles are listed. Args: as `BeyondAccuracy._measured`."""
        for listed, k in zip(self._listed, CUTOFFS, strict=True):
            listed += np.bincount(lists[:, :k].ravel(), minlength=len(listed))

    def add(self, values: np.ndarray) -> None:
        """Adds what `BeyondAccuracy._measured` gives."""
        self._totals += np.nansum(values, axis=2)
        self._defined += np.count_nonzero(~np.isnan(values), axis=2)

    def result(self, shown: np.ndarray) -> dict[str, float]:
        """See `BeyondAccuracy.result`. Args: which articles are candidates, bool `[articles]`."""
        found = {
            f"{name}@{k}": float(self._totals[row, column] / self._defined[row, column])
            for row, name in enumerate(MEANS)
            for column, k in enumerate(CUTOFFS)
            if self._defined[row, column]
        }
        listed = self._listed[:, 1:][:, shown[1:]]
        if listed.any():
            found |= {
                f"coverage@{k}": float(np.mean(counts > 0))
                for k, counts in zip(CUTOFFS, listed, strict=True)
            }
            found |= {f"gini@{k}": _gini(x) for k, x in zip(CUTOFFS, listed, strict=True)}
        return found


def _means(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The mean of those of the first k values of each row that are counted, for each of the
    cutoffs: float64 `[cutoffs, m]`, NaN where none is.

    Args:
        values: `[m, 10]`.
        counted: bool `[m, 10]`.
    """
    ends = np.array(CUTOFFS) - 1
    totals = np.cumsum(np.where(counted, values, 0), axis=1, dtype=np.float64)[:, ends].T
    counts = np.cumsum(counted, axis=1)[:, ends].T
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Each row over its sum, float64 `[m, categories]`; NaN for a row of zeros."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def _different_pairs(counts: np.ndarray) -> np.ndarray:
    """The share of pairs that are of different categories, float64 `[m]`; NaN without a pair.

    Args:
        counts: int64 `[m, categories]`.
    """
    n = counts.sum(axis=1)
    same = (counts * (counts - 1)).sum(axis=1)
    pairs = n * (n - 1)
    return np.divide(pairs - same, pairs, out=np.full(len(n), np.nan), where=pairs > 0)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL divergence of the smoothed q from p, float64 `[m]`; NaN where one of them is not known."""
    smoothed = (1 - _SMOOTHING) * q + _SMOOTHING * p
    ratios = np.divide(p, smoothed, out=np.ones_like(p), where=p > 0)
    return np.where(np.isnan(q[:, 0]), np.nan, (p * np.log(ratios)).sum(axis=1))


def _gini(counts: np.ndarray) -> float:
    """The Gini index of counts, int `[n]`, not all of them 0."""
    n = len(counts)
    return float(np.sort(counts) @ (2 * np.arange(1, n + 1) - n - 1) / (n * counts.sum()))
