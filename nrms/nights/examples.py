"""Impressions of a night for people to look at."""

from __future__ import annotations

import numpy as np

from nrms.data.articles import Articles
from nrms.data.histories import Histories
from nrms.data.impressions import Impressions
from nrms.evaluation.html_report import Example


def examples(
    impressions: Impressions,
    scores: np.ndarray,
    articles: Articles,
    histories: Histories,
    wanted: int,
) -> list[Example]:
    """The first impressions of a shard that show the model a choice and a history.

    Args:
        impressions: the shard, `c` candidates in all.
        scores: of its candidates, float32 `(c,)`.
        articles: the catalogue.
        histories: of the shard's split.
        wanted: how many, at most.
    """
    lengths = np.diff(impressions.offsets)
    telling = (lengths > 1) & (histories.lengths[impressions.user] > 0)
    chosen = np.flatnonzero(telling)[: max(0, wanted)]
    return [_example(impressions, scores, articles, histories, row) for row in chosen]


def _example(
    impressions: Impressions,
    scores: np.ndarray,
    articles: Articles,
    histories: Histories,
    row: int,
) -> Example:
    def title(article: int) -> str | None:
        return articles.titles[article - 1].as_py() if article else None

    start, end = impressions.offsets[row], impressions.offsets[row + 1]
    history = histories.rows[impressions.user[row]]
    clicked = impressions.clicked
    return Example(
        impression_id=impressions.impression_id[row].as_py(),
        user_id=impressions.user_id[row].as_py(),
        time=None if impressions.time is None else impressions.time[row],
        history=[title(int(article)) for article in history[history > 0]],
        candidates=[
            (
                title(int(impressions.candidates[i])),
                float(scores[i]),
                None if clicked is None else bool(clicked[i]),
            )
            for i in start + np.argsort(-scores[start:end], kind="stable")
        ],
    )
