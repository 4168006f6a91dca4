"""Answers: bounded in bytes, documented in every failure, and saying what was taken for what."""

import json
import resource
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from api.answers.bounded_file import AnswerFile
from api.answers.rows import write_json
from api.answers.summary import histogram
from api.app import create_app
from api.errors import ErrorBody, Refusal
from api.schemas import PredictIn, PredictOut
from api.served_model import Scored
from api.settings import Settings
from nrms.data.impressions import Impressions
from nrms.data.joins import Joins
from nrms.data.quality import DataReport
from tests.clients import until
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
        oracle=None,
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


# --- failures


def test_without_memory_a_body_is_answered_503_and_the_next_as_ever(world, tmp_path):
    rows = {
        "impressions": [{"impression_id": 1, "article_ids_inview": world.article_ids[:1] * 10_000}]
        * 40
    }
    body = json.dumps(rows)
    with RunningService(tmp_path / "log", MODEL_URI=world.models) as service:
        pid = service.process.pid

        def post(free: int) -> int:
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (size + free, resource.RLIM_INFINITY))
            answer = service.client.post(
                "/predict/json", content=body, headers={"Content-Type": "application/json"}
            )
            if answer.status_code != 200:
                assert answer.status_code == 503, answer.text
                error = ErrorBody.model_validate_json(answer.content).error
                assert error.rule == "The service must have room and processes for an upload."
                assert int(answer.headers["Retry-After"]) >= 1
            return answer.status_code

        statuses = [post(free) for free in (2**23, 2**24, 2**25)]
        assert 503 in statuses
        assert post(2**40) == 200
        assert service.process.poll() is None


def test_a_fault_of_the_service_is_answered_as_documented(world, tmp_path):
    app = create_app(Settings(model_uri=world.models))

    @app.get("/fault")
    @app.post("/fault")
    def fault() -> None:
        raise ZeroDivisionError("with a secret in it")

    @app.post("/memory")
    def memory() -> None:
        raise MemoryError

    with TestClient(app, raise_server_exceptions=False) as client:
        until(lambda: client.get("/readyz").status_code == 200, "a model")
        for answer, status in (
            (client.get("/fault"), 500),
            (client.post("/fault"), 500),
            (client.post("/memory"), 503),
        ):
            assert answer.status_code == status
            assert "secret" not in ErrorBody.model_validate_json(answer.content).model_dump_json()
        sample = client.app.state.service.metrics.registry.get_sample_value
        assert sample("nrms_rejections_total", {"reason": "fault"}) == 2


# --- what else a request can ask for


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/readyz", "/info", "/metrics", "/docs", "/openapi.json", "/example"]
)
def test_head_is_answered_as_get_without_the_body(service, path):
    get, head = service.client.get(path), service.client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert (
        service.client.head("/predict").status_code
        == service.client.get("/predict").status_code
        == 405
    )
    assert service.client.head("/nothing").status_code == 404


def test_a_few_scores_come_without_a_histogram_unless_it_is_asked_for(service, world):
    known, *others = world.article_ids[:6]
    rows = {
        "impressions": [
            {"impression_id": 1, "article_ids_inview": others, "article_id_fixed": [known]}
        ]
    }
    short, long = (
        service.client.post("/predict/json", json=rows, params=query)
        for query in ({}, {"summary": True})
    )
    assert "score_histogram" not in short.json()
    assert len(short.content) < 800 < len(long.content)
    assert PredictOut.model_validate(long.json()).score_histogram.edges
    files = parquet(world.behaviors(5)), parquet(world.history())
    assert "score_histogram" in service.predict(*files).json()
    assert "score_histogram" not in service.predict(*files, summary=False).json()


def scored(scores: np.ndarray, clicked: np.ndarray | None = None) -> SimpleNamespace:
    return SimpleNamespace(scores=scores, impressions=SimpleNamespace(clicked=clicked))


@pytest.mark.parametrize("count", [10, 300, 20_000])
def test_an_outlier_does_not_squeeze_the_histogram(count):
    scores = np.random.default_rng(1).normal(size=count).astype(np.float32)
    scores[[3, 5]] = 1e6, -1e5
    clicked = np.arange(count) % 2 == 0
    found = histogram(scored(scores, clicked))
    assert -10 < found["edges"][0] < found["edges"][-1] < 10
    below, above = found["outside"]
    assert 1 <= below <= max(1, count // 1000)
    assert 1 <= above <= max(1, count // 1000)
    assert sum(found["all"]) == count == sum(found["clicked"]) + sum(found["not_clicked"])
    assert sum(bins > 0 for bins in found["all"]) > 4


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0], [1.0, 2.0, 3.0], list(range(5_000))])
def test_a_histogram_without_outliers_covers_all_scores(scores):
    found = histogram(scored(np.array(scores, np.float32)))
    assert "outside" not in found
    assert sum(found["all"]) == len(scores)
    if scores:
        assert (found["edges"][0], max(scores)) == (
            min(scores),
            min(found["edges"][-1], max(scores)),
        )


# --- which file is what


def test_files_in_each_others_place_are_taken_by_their_columns_and_the_answer_says_so(
    service, world
):
    behaviors, history = parquet(world.behaviors(20)), parquet(world.history())
    articles = parquet({"article_id": [NEW], "title": ["a"]})
    expected = service.predict(behaviors, history)
    assert "taken" not in expected.json()
    assert "X-Taken" not in expected.headers
    for parts in (
        {"file": history, "history": behaviors},
        {"file": articles, "history": behaviors, "articles": history},
        {"file": history, "articles": behaviors},
    ):
        kinds = {behaviors: "file", history: "history", articles: "articles"}
        taken = {name: kinds[data] for name, data in parts.items() if kinds[data] != name}
        answer = service.predict(**parts)
        assert answer.json()["taken"] == taken
        assert answer.json()["rows"] == expected.json()["rows"]
        whole = service.predict(**parts, format="parquet")
        assert whole.headers["X-Taken"] == ", ".join(
            f"{name}={kind}" for name, kind in taken.items()
        )


@pytest.mark.parametrize(
    ("parts", "where", "rule", "received", "todo"),
    [
        (
            {"file": "history"},
            "file",
            "a behaviours file",
            "a history file",
            "Send it as `history`, and a behaviours",
        ),
        (
            {"file": "articles"},
            "file",
            "a behaviours file",
            "an articles file",
            "Send it as `articles`",
        ),
        (
            {"file": "history", "history": "history"},
            "file",
            "a behaviours file",
            "a history file",
            "behaviours file",
        ),
        (
            {"file": "file", "history": "file"},
            "history",
            "a history file",
            "a behaviours file",
            "Send a history file",
        ),
        (
            {"file": "file", "articles": "file"},
            "articles",
            "an articles file",
            "a behaviours file",
            "leave it out",
        ),
    ],
)
def test_a_file_that_can_be_nothing_else_is_called_what_it_is(
    service, world, parts, where, rule, received, todo
):
    files = {
        "file": parquet(world.behaviors(20)),
        "history": parquet(world.history()),
        "articles": parquet({"article_id": [NEW], "title": ["a"]}),
    }
    answer = service.predict(
        **{"file": None, **{name: files[kind] for name, kind in parts.items()}}
    )
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["where"] == where
    for text, part in ((rule, "rule"), (received, "received"), (todo, "todo")):
        assert text in error[part]


@pytest.mark.parametrize(
    ("data", "received", "todo"),
    [
        (
            b"1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0\n" * 9,
            "look like TSV",
            "jobs.prepare --source mind",
        ),
        (("brugerå,artikelø\n" * 9).encode(), "look like CSV", "jobs.prepare --source mind"),
        (b"PK\3\4" + bytes(90), "look like a zip or Excel file", "Unpack it"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_seems_to_be(service, data, received, todo):
    error = service.predict(data).json()["error"]
    assert error["rule"] == "A file must be whole Parquet with readable values."
    assert received in error["received"]
    assert todo in error["todo"]


# --- the example


def score(service: RunningService, body: bytes, **query: object):
    return service.client.post(
        "/predict/json", content=body, headers={"Content-Type": "application/json"}, params=query
    )


def test_the_example_can_be_scored_with_any_catalogue(service, world, tmp_path):
    answer = service.client.get("/example")
    example = PredictIn.model_validate(answer.json())
    assert [len(set(row.article_ids_inview)) for row in example.impressions] == [6] * 3
    assert all(
        set(row.article_id_fixed).isdisjoint(row.article_ids_inview) for row in example.impressions
    )
    scored = score(service, answer.content, titles=True).json()
    counts = scored["counts"]
    assert (counts["candidates"], counts["unknown_articles"], counts["empty_histories"]) == (
        18,
        0,
        0,
    )
    titles = {article.article_id: article.title for article in example.articles}
    for row in scored["rows"]:
        assert row["titles"] == [titles[article] for article in row["article_ids_inview"]]
    for ids, name in (
        ([7], "one"),
        (["N1", "N2", "N3"], "three"),
        ([2**62, 2**62 + 1, 3, 4, 5], "five"),
    ):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(
            parquet({"article_id": ids, "title": ["a", None, "c", "d", "e"][: len(ids)]})
        )
        with RunningService(tmp_path / name, MODEL_URI=world.models, ARTICLES_URI=path) as other:
            answer = other.client.get("/example")
            assert score(other, answer.content).status_code == 200
