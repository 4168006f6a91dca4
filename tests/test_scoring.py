from types import SimpleNamespace

import numpy as np

from nrms.config import ModelConfig
from nrms.models.keras_encoders import KerasEncoders
from nrms.models.registry import build_model
from nrms.scoring import Scorer

SMALL = ModelConfig(word_dim=5, heads=2, head_dim=3, attention_dim=4)


def world(rng, articles=50, users=20, impressions=60, history=6):
    """Titles, histories and impressions of random lengths, empty ones among them; row 0 is unknown."""

    def padded(count, width, high):
        lengths = rng.integers(0, width + 1, count)
        rows = rng.integers(1, high, (count, width))
        return np.where(np.arange(width) < lengths[:, None], rows, 0).astype(np.int32)

    titles = np.concatenate([np.zeros((1, 8), np.int32), padded(articles, 8, 30)])
    histories = np.concatenate([np.zeros((1, history), np.int32), padded(users, history, articles + 1)])
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, impressions))])
    return (
        titles,
        histories,
        SimpleNamespace(
            user=rng.integers(0, users + 1, impressions).astype(np.int32),
            offsets=offsets,
            candidates=rng.integers(0, articles + 1, offsets[-1]).astype(np.int32),
        ),
    )


def test_scores_equal_the_model_called_on_one_impression_at_a_time():
    titles, histories, impressions = world(np.random.default_rng(5))
    model = build_model(SMALL, 30)
    scores = Scorer(KerasEncoders(model), titles).score(impressions, histories)
    for i in range(len(impressions.user)):
        part = slice(impressions.offsets[i], impressions.offsets[i + 1])
        candidates = impressions.candidates[part]
        if len(candidates):
            logits = np.array(model(titles, histories[impressions.user[i]][None], candidates[None]))[0]
            np.testing.assert_allclose(scores[part], np.where(candidates, logits, 0), atol=1e-6)


def test_batching_does_not_change_a_score(monkeypatch):
    titles, histories, impressions = world(np.random.default_rng(6))
    encoders = KerasEncoders(build_model(SMALL, 30))
    whole = Scorer(encoders, titles).score(impressions, histories)
    for name, size in (("_TITLES", 7), ("_USERS", 3), ("_CANDIDATES", 11)):
        monkeypatch.setattr(f"nrms.scoring.{name}", size)
    np.testing.assert_allclose(Scorer(encoders, titles).score(impressions, histories), whole, atol=1e-6)


def test_the_catalogue_is_encoded_once_and_only_users_that_occur():
    titles, histories, impressions = world(np.random.default_rng(7))
    encoders = KerasEncoders(build_model(SMALL, 30))
    seen = {"titles": 0, "users": 0}

    class Counting:
        def encode_news(self, batch):
            seen["titles"] += len(batch)
            return encoders.encode_news(batch)

        def encode_users(self, vectors, history):
            seen["users"] += len(history)
            return encoders.encode_users(vectors, history)

    impressions.user[:] = impressions.user % 4
    scorer = Scorer(Counting(), titles)
    scorer.score(impressions, histories)
    scorer.score(impressions, histories)
    assert seen == {"titles": len(titles), "users": 2 * len(np.unique(impressions.user))}


def test_an_empty_shard_has_no_scores():
    titles, histories, impressions = world(np.random.default_rng(8), impressions=0)
    scores = Scorer(KerasEncoders(build_model(SMALL, 30)), titles).score(impressions, histories)
    assert scores.shape == (0,)
    assert scores.dtype == np.float32
