"""Puts scores into a table with the columns of predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from nrms.data.impressions import Impressions
from nrms.evaluation.ranking import ranks


def prediction_table(impressions: Impressions, scores: np.ndarray) -> pa.Table:
    """The predictions of a shard, with a row for each impression, in the same order.

    Args:
        impressions: the shard, with `c` candidates in total.
        scores: float32 of shape `(c,)`.

    Returns:
        `impression_id`, `user_id`, `article_ids_inview`, `scores` (list of float32), `ranks` (list
        of int32, 1 = best), and `article_ids_clicked` where clicks were given.
    """

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(impressions.offsets, pa.int32()), values)

    columns = {
        "impression_id": impressions.impression_id,
        "user_id": impressions.user_id,
        "article_ids_inview": lists(impressions.candidate_ids),
        "scores": lists(pa.array(scores, pa.float32())),
        "ranks": lists(pa.array(ranks(impressions.offsets, scores))),
    }
    if impressions.clicks is not None:
        columns["article_ids_clicked"] = impressions.clicks
    return pa.table(columns)
