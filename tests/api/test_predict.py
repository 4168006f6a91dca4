"""The service as its users meet it: uploads, JSON, health, OpenAPI; every answer of
a real process.
"""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.schemas import PredictOut
from api.settings import Settings
from nrms import storage
from nrms.config import parse_environment
from nrms.errors import ConfigError
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from tests.service import parquet
from tests.small_training import METRICS, REPOSITORY


@pytest.fixture(scope="session")
def night(world, tmp_path_factory):
    """What the nightly job makes of the first behaviours file."""
    output = tmp_path_factory.mktemp("night")
    result = score(
        ScoreConfig(model=world.models, data=world.data, output=str(output), wandb_mode="disabled")
    )
    return pq.read_table(output / "part-00000.parquet"), result.metrics


@pytest.fixture
def upload(world, night):
    """The rows that the night scored."""
    return world.behaviors(len(night[0]))


def flat(table, column="scores"):
    return table[column].combine_chunks().flatten().to_numpy()


def predictions(answer):
    assert answer.status_code == 200, answer.text
    return pq.read_table(io.BytesIO(answer.content))


def with_histories(behaviors, history):
    """The rows with their users' histories in them."""
    lists = dict(
        zip(history["user_id"].to_pylist(), history["article_id_fixed"].to_pylist(), strict=True)
    )
    times = dict(
        zip(
            history["user_id"].to_pylist(),
            history["impression_time_fixed"].to_pylist(),
            strict=True,
        )
    )
    users = behaviors["user_id"].to_pylist()
    return behaviors.append_column(
        "article_id_fixed", pa.array([lists.get(user, []) for user in users], pa.list_(pa.int64()))
    ).append_column(
        "impression_time_fixed",
        pa.array([times.get(user, []) for user in users], pa.list_(pa.timestamp("us"))),
    )


# --- scores


def test_scores_equal_the_nightly_jobs(service, world, upload, night):
    table = predictions(
        service.predict(parquet(upload), parquet(world.history()), format="parquet")
    )
    expected, _ = night
    assert table.column_names == expected.column_names
    np.testing.assert_allclose(flat(table), flat(expected), atol=1e-6)
    for name in set(table.column_names) - {"scores", "ranks"}:
        assert table[name].combine_chunks() == expected[name].combine_chunks()


def test_histories_in_the_rows_give_the_same_scores_and_users_come_out_as_they_came(
    service, world, upload, night
):
    rows = with_histories(upload, world.history())
    table = predictions(service.predict(parquet(rows), format="parquet"))
    np.testing.assert_allclose(flat(table), flat(night[0]), atol=1e-6)
    assert table["user_id"].combine_chunks() == upload["user_id"].combine_chunks()


def test_a_few_rows_as_json_give_the_same_scores(service, world, upload, night):
    rows = with_histories(upload, world.history()).slice(0, 20).to_pylist()
    names = (
        "impression_id",
        "user_id",
        "article_ids_inview",
        "article_id_fixed",
        "article_ids_clicked",
    )
    body = {"impressions": [{name: row[name] for name in names} for row in rows]}
    answer = service.client.post("/predict/json", json=body)
    assert answer.status_code == 200, answer.text
    PredictOut.model_validate(answer.json())
    scores = [score for row in answer.json()["rows"] for score in row["scores"]]
    # Without times, clicks of the day itself stay in a history: not these readers'.
    np.testing.assert_allclose(scores, flat(night[0].slice(0, 20)), atol=1e-6)


def test_an_answer_says_model_counts_metrics_and_rows(service, world, upload, night):
    answer = service.predict(parquet(upload), parquet(world.history()), max_rows=7)
    found = answer.json()
    PredictOut.model_validate(found)
    assert (
        found["model"]["version"]
        == storage.name(world.version)
        == answer.headers["X-Model-Version"]
    )
    expected, _ = night
    assert found["counts"]["impressions"] == found["rows_total"] == len(expected)
    assert found["counts"]["candidates"] == len(flat(expected))
    assert (len(found["rows"]), found["truncated"]) == (7, True)
    assert [row["ranks"] for row in found["rows"]] == expected["ranks"].to_pylist()[:7]
    assert [row["article_ids_clicked"] for row in found["rows"]] == expected[
        "article_ids_clicked"
    ].to_pylist()[:7]
    spread = found["score_histogram"]
    assert (
        sum(spread["all"])
        == len(flat(expected))
        == sum(spread["clicked"]) + sum(spread["not_clicked"])
    )
    assert len(spread["edges"]) == len(spread["all"]) + 1


def test_metrics_are_those_of_the_night(service, world, night):
    whole = pa.concat_tables(
        pq.read_table(info.uri)
        for info in storage.list_files(f"{world.data}/validation/", ".parquet")
        if "beh" in info.uri
    )
    found = service.predict(parquet(whole), parquet(world.history()), max_rows=0).json()
    assert found["rows"] == []
    for name in METRICS:
        assert found["metrics"][name] == pytest.approx(night[1][name], abs=1e-6)
        popularity = found["metrics"]["baselines"]["popularity"][name]
        assert popularity == pytest.approx(night[1]["baselines"]["popularity"][name], abs=1e-9)


def test_an_unlabelled_upload_has_no_metrics(service, world, upload):
    found = service.predict(
        parquet(upload.drop_columns("article_ids_clicked")), parquet(world.history())
    ).json()
    assert "metrics" not in found
    assert found["score_histogram"].keys() == {"edges", "all"}
    assert "article_ids_clicked" not in found["rows"][0]


def test_articles_that_the_catalogue_lacks_come_with_the_upload(service, world, upload):
    (known, *_), ids = (
        upload["article_ids_inview"].to_pylist(),
        upload.schema.field("article_ids_inview").type,
    )
    titles = dict(
        zip(
            *pq.read_table(world.articles, columns=["article_id", "title"]).to_pydict().values(),
            strict=True,
        )
    )
    row = with_histories(upload.slice(0, 1), world.history())
    new = row.set_column(
        row.column_names.index("article_ids_inview"),
        "article_ids_inview",
        pa.array([[1, 2, *known]], ids),
    )
    # The first has the title of the first known one, and so its score; the second is in no
    # catalogue.
    articles = parquet({"article_id": [1, known[0]], "title": [titles[known[0]], "not this one"]})
    found = service.predict(parquet(new), articles=articles, titles=True).json()
    (row,) = found["rows"]
    assert row["scores"][0] == pytest.approx(row["scores"][2], abs=1e-6)
    assert row["scores"][0] != 0
    assert row["scores"][1] == pytest.approx(
        np.mean(row["scores"][:1] + row["scores"][2:]), abs=1e-6
    )
    assert found["counts"]["unknown_articles"] == 1
    assert row["titles"] == [titles[known[0]], None, *(titles[article] for article in known)]


def test_readers_without_a_history_are_scored_by_the_models_prior(service, world, upload, night):
    metrics = night[1]
    assert metrics["by_history_length"]["0"]["auc"] != 0.5
    unknown = upload.select(["impression_id", "user_id", "article_ids_inview"]).slice(0, 3)
    nothing = pa.array([[]] * 3, pa.list_(pa.int64()))
    rows = service.predict(parquet(unknown.append_column("article_id_fixed", nothing))).json()[
        "rows"
    ]
    assert all(len(set(row["scores"])) > 1 for row in rows)
    # The order is the same for all of them: an article's score does not depend on the reader.
    scores = {}
    for row in rows:
        for article, found in zip(row["article_ids_inview"], row["scores"], strict=True):
            assert found == pytest.approx(scores.setdefault(article, found), abs=1e-6)


def test_an_upload_without_a_row_or_a_candidate_is_answered(service, world, upload):
    empty = service.predict(parquet(upload.slice(0, 0)), parquet(world.history())).json()
    assert (empty["rows"], empty["counts"]["impressions"], empty["truncated"]) == ([], 0, False)
    row = {
        "impression_id": [1],
        "user_id": [1],
        "article_ids_inview": pa.array([[]], pa.list_(pa.int64())),
    }
    row["article_id_fixed"] = row["article_ids_inview"]
    found = service.predict(parquet(row)).json()
    assert found["rows"] == [
        {"impression_id": 1, "user_id": 1, "article_ids_inview": [], "scores": [], "ranks": []}
    ]
    assert found["counts"]["empty_histories"] == 1


def test_a_trailing_slash_makes_no_difference(service, world, upload):
    files = {"file": parquet(upload), "history": parquet(world.history())}
    answers = [service.client.post(path, files=files) for path in ("/predict", "/predict/")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["rows"] == answers[1].json()["rows"]


@pytest.mark.parametrize(
    "name", ["n" * 5_000, "ø" * 9_000 + ".parquet", "a/../" * 10_000, "n" * 60_000]
)
def test_the_name_of_a_file_may_be_long(service, world, upload, name):
    files = {"file": (name, parquet(upload)), "history": (name, parquet(world.history()))}
    answer = service.client.post("/predict", files=files)
    assert (answer.status_code, answer.json().get("rows_total")) == (200, len(upload))


@pytest.mark.parametrize(
    ("name", "todo"),
    [
        ("maxrows", "Write max_rows."),
        ("Titles", "Write titles."),
        ("limit", "See /docs for what each of them does."),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/json"])
def test_an_unknown_parameter_of_the_query_is_refused_with_the_nearest_name(
    service, upload, path, name, todo
):
    rows = {"impressions": [{"impression_id": 1, "article_ids_inview": [1]}]}
    body = {"json": rows} if path.endswith("json") else {"files": {"file": parquet(upload)}}
    answer = service.client.post(path, params={name: "3"}, **body)
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "rule": "The query may have format, max_rows, titles, summary, past, explain_row, "
        "explain_candidate.",
        "received": name,
        "where": "query",
        "todo": todo,
    }


# --- health, information, documentation


def test_livez_readyz_and_info(service, world):
    assert service.client.get("/livez").json() == {"status": "ok"}
    assert service.client.get("/readyz").json() == {"status": "ready"}
    info = service.client.get("/info").json()
    assert info["model"]["version"] == storage.name(world.version)
    assert info["model"]["metrics"] == {"auc": 0.6}
    assert info["articles"]["articles"] == 600
    assert info["reload_error"] is None
    columns = {column["name"]: column["required"] for column in info["contract"]["file"]}
    assert columns["user_id"]
    assert not columns["article_ids_clicked"]
    assert info["limits"]["max_body_bytes"] == 64 * 2**20


def test_metrics_count_what_was_scored(service, world, upload):
    names = (
        "nrms_impressions_total",
        "nrms_candidates_total",
        "nrms_requests_total",
        "nrms_stage_seconds_count",
    )
    before = [service.metric(name) for name in names]
    found = service.predict(parquet(upload), parquet(world.history())).json()
    now = [service.metric(name) for name in names]
    impressions, candidates, requests, stages = (b - a for a, b in zip(before, now, strict=True))
    assert (impressions, candidates) == (
        found["counts"]["impressions"],
        found["counts"]["candidates"],
    )
    assert stages == 5
    assert requests > 1
    assert service.metric("nrms_model_info") == service.metric("nrms_ready") == 1
    text = service.client.get("/metrics").text
    assert f'version="{storage.name(world.version)}"' in text


def test_every_answer_of_predict_is_in_the_openapi_document(service):
    document = service.client.get("/openapi.json").json()
    for path in ("/predict", "/predict/json"):
        answers = document["paths"][path]["post"]["responses"]
        assert answers.keys() == {"200", "400", "401", "408", "413", "422", "429", "500", "503"}
        for status, answer in answers.items():
            name = "PredictOut" if status == "200" else "ErrorBody"
            assert answer["content"]["application/json"]["schema"]["$ref"].endswith(name)
    assert document["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "X-API-Key"
    form = document["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["$ref"].endswith("Body_predict_predict_post")


def test_docs_load_nothing_from_elsewhere(service):
    page = service.client.get("/docs").text
    assert "swagger-ui" in page
    assert "https://" not in page.replace("https://fastapi.tiangolo.com", "")


@pytest.mark.system
def test_the_service_imports_no_tensorflow():
    heavy = {"tensorflow", "keras", "polars", "wandb", "matplotlib"}
    code = f"import sys, api.app; print({heavy} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# --- settings


def test_settings_come_from_the_environment_in_capitals():
    settings = parse_environment(
        Settings, {"MODEL_URI": "gs://b/m", "WORKERS": "3", "API_KEY": "", "OTHER": "x"}
    )
    assert (settings.model_uri, settings.workers, settings.api_key) == ("gs://b/m", 3, None)
    assert settings.max_body_bytes == 64 * 2**20


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "The environment must set MODEL_URI"),
        (
            {"MODEL_URI": "m", "WORKERS": "many"},
            "WORKERS must be a whole number >= 1. Received: 'many'",
        ),
        ({"MODEL_URI": "m", "DECODE_SECONDS": "-1"}, "DECODE_SECONDS must be a finite number > 0"),
    ],
)
def test_a_wrong_setting_is_named(environment, message):
    with pytest.raises(ConfigError, match=message):
        parse_environment(Settings, environment)


def test_the_histogram_json_is_plain(service, world, upload):
    text = service.predict(parquet(upload), parquet(world.history())).text
    assert "NaN" not in text
    assert json.loads(text)["rows"]
