"""The example can be scored."""

from api.schemas import PredictIn
from tests.service import RunningService, parquet


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
