"""Ids of an upload that are in none of its other files: they are counted in the answer and in the
metrics, and an upload where no id is found is refused.
"""

import pyarrow as pa
import pytest

from api.schemas import PredictOut
from tests.clients import series
from tests.service import RunningService, parquet

NO_HISTORY = {
    "user_id": pa.array([], pa.int64()),
    "article_id_fixed": pa.array([], pa.list_(pa.int64())),
}


def shifted(table: pa.Table, name: str, by: int) -> pa.Table:
    """The table with other ids in a column."""
    moved = [
        row + by if isinstance(row, int) else [one + by for one in row]
        for row in table[name].to_pylist()
    ]
    return table.set_column(
        table.column_names.index(name), name, pa.array(moved, table.schema.field(name).type)
    )


def test_an_upload_that_joins_says_its_shares_and_warns_of_nothing(service, world):
    answer = service.predict(parquet(world.behaviors(50)), parquet(world.history())).json()
    assert PredictOut.model_validate(answer).joins["unknown_candidates"] == 0
    assert set(answer["joins"]) >= {"unknown_history", "unknown_clicks", "readers_without_history"}
    assert not [
        line for line in answer.get("warnings", []) if "candidates" in line or "readers" in line
    ]


def test_readers_that_have_no_history_are_a_warning_and_a_gauge(service, world):
    warned = service.metric("nrms_warned_uploads_total")
    answer = service.predict(
        parquet(world.behaviors(50)), parquet(shifted(world.history(), "user_id", 10**6))
    ).json()
    assert answer["joins"]["readers_without_history"] == 1
    assert any("reader has a history row" in line for line in answer["warnings"])
    assert series(service, "nrms_upload_unknown_ratio", join="readers_without_history") == 1
    assert service.metric("nrms_warned_uploads_total") == warned + 1


def test_an_upload_without_a_known_candidate_is_refused_with_the_first_ids_of_both_sides(
    service, world
):
    behaviors = shifted(world.behaviors(50), "article_ids_inview", 10**9)
    answer = service.predict(parquet(behaviors), parquet(world.history()))
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["rule"] == "Candidates must be in articles.parquet."
    for ids in (behaviors["article_ids_inview"][0].as_py(), world.article_ids):
        assert str(ids[0]) in error["received"]
    assert error["where"] in ("file", "articles")


def test_a_few_unknown_candidates_are_a_warning_alone(service):
    answer = service.client.post(
        "/predict/json", json={"impressions": [{"impression_id": 1, "article_ids_inview": [1]}]}
    )
    assert answer.status_code == 200
    assert any("no candidate is in articles.parquet" in line for line in answer.json()["warnings"])


def test_what_happens_is_asked_of_a_model_that_reads_no_past(service, world):
    row = {"impression_id": 1, "article_ids_inview": world.article_ids[:3]}
    body = {"impressions": [row]}
    answer = service.client.post("/predict/json", json=body, params={"past": "live"}).json()
    assert [line for line in answer["warnings"] if line.startswith("past=live: ")]


def test_the_setting_says_how_much_may_be_unknown(world, tmp_path):
    known = world.article_ids[:10]
    row = {"impression_id": 1, "article_ids_inview": [*known, 1, 2], "article_id_fixed": known}
    with RunningService(tmp_path / "log", MODEL_URI=world.models, MAX_UNKNOWN=0.5) as service:
        answer = service.client.post("/predict/json", json={"impressions": [row]}).json()
        assert answer["joins"]["unknown_candidates"] == pytest.approx(2 / 12)
        assert "warnings" not in answer


def renamed(table: pa.Table, name: str, written: str) -> pa.Table:
    return table.rename_columns(
        [written if column == name else column for column in table.column_names]
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [("article_ids_clicked", "article_ids_click"), ("impression_time", "impression_times")],
)
def test_a_column_that_is_most_likely_meant_is_a_warning(service, world, name, written):
    behaviors = renamed(world.behaviors(50), name, written)
    answer = service.predict(parquet(behaviors), parquet(world.history())).json()
    hint = (
        f"file: there is no column `{name}`, but `{written}`, which is not read. Rename it if that "
        "is it."
    )
    assert hint in answer["warnings"]


def test_columns_of_histories_are_not_missed_where_they_come_as_a_file(service, world):
    behaviors = world.behaviors(50).append_column(
        "article_ids_fixed", world.behaviors(50)["article_ids_inview"]
    )
    answer = service.predict(parquet(behaviors), parquet(world.history())).json()
    assert not [line for line in answer.get("warnings", []) if "_fixed" in line]
    answer = service.predict(parquet(behaviors))
    assert answer.status_code == 422
    assert answer.json()["error"]["todo"].startswith(
        "There is no column `article_id_fixed`, but `article_ids_fixed`, "
    )


def test_masks_in_the_place_of_clicks_are_refused(service, world):
    behaviors = world.behaviors(50)
    rows = zip(
        behaviors["article_ids_inview"].to_pylist(),
        behaviors["article_ids_clicked"].to_pylist(),
        strict=True,
    )
    masks = pa.array(
        [[int(article in clicked) for article in in_view] for in_view, clicked in rows]
    )
    behaviors = behaviors.drop_columns("article_ids_clicked")
    answer = service.predict(
        parquet(behaviors.append_column("article_ids_clicked", masks)), parquet(world.history())
    )
    assert answer.status_code == 422
    assert (
        answer.json()["error"]["rule"]
        == "Column `article_ids_clicked` must hold the ids of the clicked articles."
    )
    answer = service.predict(
        parquet(behaviors.append_column("labels", masks)), parquet(world.history())
    ).json()
    assert [
        line for line in answer["warnings"] if "`labels` holds 0/1 masks of the candidates" in line
    ]
