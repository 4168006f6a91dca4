"""Answers are bounded in bytes, and one that would be larger is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.answers.bounded_file import AnswerFile
from api.errors import ErrorBody, Refusal
from api.schemas import PredictOut
from tests.service import RunningService, parquet

LIMIT = 2**20
EMOJI = "😀" * 2_000
NEW = 10**9


@pytest.fixture(scope="module")
def bounded(world, tmp_path_factory):
    """A service whose answers may have a mebibyte."""
    log = tmp_path_factory.mktemp("bounded") / "log"
    with RunningService(log, MODEL_URI=world.models, MAX_ANSWER_BYTES=LIMIT) as service:
        yield service


def emoji(candidates: int) -> dict:
    """A small upload whose answer is large: one title of 8 kB, so many times."""
    row = {"impression_id": 1, "article_ids_inview": [NEW] * candidates}
    return {"impressions": [row], "articles": [{"article_id": NEW, "title": EMOJI}]}


def check_refused(answer) -> None:
    assert answer.status_code == 422, answer.text[:300]
    assert (
        ErrorBody.model_validate_json(answer.content).error.rule
        == f"An answer may have {LIMIT:,} bytes."
    )


def test_an_answer_beyond_its_bytes_is_refused_with_the_figure(bounded, world):
    fits = bounded.client.post("/predict/json", json=emoji(100), params={"titles": True})
    assert fits.status_code == 200
    assert 100 * len(EMOJI.encode()) < len(fits.content) <= LIMIT
    PredictOut.model_validate(fits.json())
    assert bounded.predict(parquet(world.behaviors(5)), parquet(world.history())).status_code == 200
    before = bounded.memory()  # with the processes that read uploads
    check_refused(bounded.client.post("/predict/json", json=emoji(10_000), params={"titles": True}))
    file = parquet({"impression_id": [1] * 20, "user_id": [1] * 20,
                    "article_ids_inview": [[NEW] * 2_000] * 20,
                    "article_id_fixed": pa.array([[]] * 20, pa.list_(pa.int64()))})  # fmt: skip
    articles = parquet({"article_id": [NEW], "title": [EMOJI]})
    check_refused(bounded.predict(file, articles=articles, titles=True, max_rows=10_000))
    # the whole answers would be of 80 and 320 megabytes
    assert bounded.memory() - before < 50 * 2**20
    assert bounded.predict(file, articles=articles, max_rows=1).status_code == 200


def test_a_parquet_answer_has_the_same_bound(bounded, world):
    rng = np.random.default_rng(1)
    rows = 80_000
    table = {
        "impression_id": rng.integers(0, 2**62, rows),
        "user_id": rng.integers(0, 2**62, rows),
        "article_ids_inview": pa.array(
            rng.choice(world.article_ids, (rows, 2)).tolist(), pa.list_(pa.int64())
        ),
        "article_id_fixed": pa.array([[]] * rows, pa.list_(pa.int64())),
    }
    check_refused(bounded.predict(parquet(table), format="parquet"))
    few = {name: values[:1_000] for name, values in table.items()}
    assert (
        pq.read_table(
            pa.BufferReader(bounded.predict(parquet(few), format="parquet").content)
        ).num_rows
        == 1_000
    )


def test_the_bound_holds_to_the_byte_and_nothing_stays_on_the_disk(tmp_path):
    with AnswerFile(tmp_path, 10**6) as file:
        for _ in range(10):
            file.write(bytes(10**5))
        with pytest.raises(Refusal):
            file.write(b"1")
    assert list(tmp_path.iterdir()) == []
