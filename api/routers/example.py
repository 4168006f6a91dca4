"""`GET /example`: impressions to try the service with when no file is at hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from fastapi import APIRouter

from api.admission import EXAMPLE_PATH
from api.deps import ApiKey, CurrentService, model_of
from api.errors import responses
from api.schemas import PredictIn
from api.served_model import ServedModel
from api.uploads.contract import TITLE_LENGTH
from nrms.inference.vectors import NEWS_VECTORS

router = APIRouter(tags=["predict"], dependencies=[ApiKey])

_READERS, _HISTORY, _CANDIDATES = 3, 3, 6
_ARTICLES = 2_000  # the example is made of so many articles of the catalogue at most


@router.get(EXAMPLE_PATH, responses=responses(401, 500, 503))
def example(service: CurrentService) -> PredictIn:
    """A body for `POST /predict/json`, of articles that this service knows.

    Each reader has clicked articles that are alike for the model; one more of those is among the
    candidates.
    """
    return PredictIn.model_validate(impressions(model_of(service)))


def impressions(served: ServedModel) -> dict[str, list[dict[str, object]]]:
    """The example: impressions, and their articles with the titles. It is always the same for a
    model and a catalogue.
    """
    count = len(served.articles)
    rows = np.unique(np.linspace(1, count, min(count, _ARTICLES)).round().astype(int))
    # A model that compares lists has no news vectors, and then all articles count as equally alike.
    vectors = served.catalogue.arrays.get(NEWS_VECTORS, np.zeros((count + 1, 1)))[rows]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    ids = served.articles.ids.take(pa.array(rows - 1)).to_pylist()
    titles = served.articles.titles.take(pa.array(rows - 1)).to_pylist()
    shown: set[int] = set()
    found = []
    for number in range(_READERS):
        like = np.argsort(-(vectors @ vectors[number * len(rows) // _READERS]), kind="stable")
        read, near, others = like[:_HISTORY], like[_HISTORY : _HISTORY + 1], like[_HISTORY + 1 :]
        spread = (
            np.linspace(0, max(0, len(others) - 1), min(len(others), _CANDIDATES - 1))
            .round()
            .astype(int)
        )
        # The best candidate stands in the middle, so that the given order is not the best one. A
        # catalogue of one article has no other candidates.
        candidates = [
            *others[spread[: _CANDIDATES // 2]],
            *near,
            *others[spread[_CANDIDATES // 2 :]],
        ] or [*read]
        shown.update(read.tolist(), map(int, candidates))
        found.append(
            {
                "impression_id": number + 1,
                "user_id": number + 1,
                "article_ids_inview": [ids[place] for place in candidates],
                "article_id_fixed": [ids[place] for place in read],
            }
        )
    articles = [
        {"article_id": ids[place], "title": titles[place][:TITLE_LENGTH]} for place in sorted(shown)
    ]
    return {"impressions": found, "articles": articles}
