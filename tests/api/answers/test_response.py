"""What stands in an answer, as it was asked for."""

from api.schemas import PredictOut
from tests.service import parquet


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
