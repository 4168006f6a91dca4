"""The category of an article."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.articles import Articles
from nrms.data.columns import is_list, row_numbers
from nrms.data.schema import Column
from nrms.features.inputs import ArticleInput, registered

logger = logging.getLogger(__name__)

# Where each is looked for: in MIND and in EB-NeRD, whose `subcategory` is a list.
COLUMNS = {
    "category": ("category_str", "category"),
    "subcategory": ("subcategory_str", "subcategory"),
}


@registered
class Category(ArticleInput):
    """Numbers of categories: int32 `(articles,)`; 0 for one that did not occur in training, and for
    none. Of a list the first one counts.

    Args:
        name: a name of `COLUMNS`, whose first column that has values is read.
        known: the categories of training, in the order of their numbers from 1 on, as strings.
    """

    kind = "category"

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        self.name = name
        self.columns = tuple(Column(column, "label", required=False) for column in COLUMNS[name])
        self.known = list(known)

    def __len__(self) -> int:
        """The number of rows that an embedding needs."""
        return 1 + len(self.known)

    @property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `ArticleInput`."""
        return {"name": self.name, "known": self.known}

    def fit(self, articles: Articles, rows: np.ndarray) -> None:
        """Takes the categories of these articles."""
        labels = labels_of(articles.take(rows), self.name)
        self.known = sorted(pc.drop_null(labels).unique().to_pylist())
        if labels.null_count:
            logger.warning(
                "%s: %s of %s articles of training have none",
                *(self.name, f"{labels.null_count:,}", f"{len(labels):,}"),
            )

    def encode(self, articles: Articles) -> np.ndarray:
        """See the class."""
        labels = labels_of(articles, self.name)
        return row_numbers(labels, pa.array(self.known, pa.string()))


def labels_of(articles: Articles, name: str) -> pa.Array:
    """The categories of articles, as strings; null where there is none.

    Args:
        articles: read with the columns of `Category(name)`.
        name: a name of `COLUMNS`.
    """
    labels = pa.nulls(len(articles), pa.string())
    for column in COLUMNS[name]:
        labels = pc.coalesce(labels, _first(articles.columns[column]))
    return pc.if_else(pc.equal(labels, ""), None, labels)


def _first(values: pa.Array) -> pa.Array:
    """The values as strings, null where there is none; of lists the first value."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if is_list(values.type):
        filled = pc.greater(pc.fill_null(pc.list_value_length(values), 0), 0)
        rows = np.flatnonzero(filled.to_numpy(zero_copy_only=False))
        places = np.full(len(values), -1)
        places[rows] = np.arange(len(rows))
        first = pc.list_element(values.take(pa.array(rows)), 0)
        values = first.take(pa.array(places, mask=places < 0))
    return values.cast(pa.string())
