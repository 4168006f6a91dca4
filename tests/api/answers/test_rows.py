"""The rows of an answer."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from api.answers.bounded_file import AnswerFile
from api.answers.rows import write_json
from api.served_model import Scored
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.quality import DataReport


@pytest.mark.parametrize("titles", [False, True])
def test_rows_are_written_as_one_document_whatever_is_in_them(tmp_path, titles):
    """Row by row and title by title comes to what all at once comes to."""
    lengths = [0, 1, 3_000, 2, 1_000, 0]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(1)
    names = ['"', "\\", "\0\n", "å", "😀", "", "</script>"]
    candidates = rng.integers(0, len(names) + 1, offsets[-1]).astype(np.int32)
    impressions = Impressions(
        impression_id=pa.array(["a", "b", '"', "d", "e", "f"]),
        user_id=pa.array(range(6)),
        time=None,
        user=np.zeros(6, np.int32),
        offsets=offsets,
        candidates=candidates,
        clicked=None,
        candidate_ids=pa.array(candidates, pa.int64()),
        device=None,
        clicks=None,
        report=DataReport(),
    )
    articles = SimpleNamespace(titles=pa.array(names))
    scored = Scored(
        impressions,
        rng.random(offsets[-1], np.float32),
        0,
        articles,
        impressions.report,
        Joins({}, []),
        scorer=None,  # nothing is to be explained
    )
    with AnswerFile(tmp_path, 10**7) as file:
        write_json(file, {"part": 1}, scored, 100, titles)
        file.seek(0)
        found = json.loads(file.read())
    assert (found["part"], found["rows_total"], found["truncated"]) == (1, 6, False)
    assert [row["article_ids_inview"] for row in found["rows"]] == [
        candidates[start:end].tolist() for start, end in pairwise(offsets)
    ]
    if titles:
        shown = [None, *names]
        assert [row["titles"] for row in found["rows"]] == [
            [shown[article] for article in row["article_ids_inview"]] for row in found["rows"]
        ]
