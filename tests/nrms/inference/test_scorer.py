from itertools import pairwise
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from nrms.architectures.nrms import NrmsConfig
from nrms.bundles.export import export_model
from nrms.errors import ArtifactError
from nrms.inference.onnx_runtime import OnnxRuntime
from tests.encoders import SPECS, Encoders, small_model

SMALL = NrmsConfig(word_dim=5, heads=2, head_dim=3, attention_dim=4)


def world(rng, articles=50, users=20, impressions=60, history=6):
    """Titles, histories and impressions of random lengths, empty ones among them;
    row 0 is unknown.
    """

    def padded(count, width, high):
        lengths = rng.integers(0, width + 1, count)
        rows = rng.integers(1, high, (count, width))
        return np.where(np.arange(width) < lengths[:, None], rows, 0).astype(np.int32)

    titles = np.concatenate([np.zeros((1, 8), np.int32), padded(articles, 8, 30)])
    histories = np.concatenate(
        [np.zeros((1, history), np.int32), padded(users, history, articles + 1)]
    )
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


def scorer(encoders, titles, histories, prior=None):
    return encoders.scorer(titles[1:], histories, prior)


def test_scores_equal_the_model_called_on_one_impression_at_a_time():
    titles, histories, impressions = world(np.random.default_rng(5))
    model = small_model(SMALL, 30)
    scores = scorer(Encoders.of(model), titles, histories).score(impressions)
    for i in range(len(impressions.user)):
        part = slice(impressions.offsets[i], impressions.offsets[i + 1])
        candidates = impressions.candidates[part]
        if len(candidates):
            logits = np.array(
                model(
                    {"title": titles},
                    {"history": histories[[impressions.user[i]]], "candidates": candidates[None]},
                )
            )[0]
            mean = logits[candidates > 0].mean() if candidates.any() else 0
            np.testing.assert_allclose(scores[part], np.where(candidates, logits, mean), atol=1e-6)


def test_an_unknown_candidate_stands_at_the_mean_of_its_impression_and_moves_no_other():
    titles, histories, impressions = world(np.random.default_rng(11))
    impressions.candidates[:] = np.maximum(impressions.candidates, 1)
    scoring = scorer(Encoders.of(small_model(SMALL, 30)), titles, histories)
    whole, known = (
        scoring.score(impressions),
        np.random.default_rng(1).random(len(impressions.candidates)) < 0.6,
    )
    # nobody of these two impressions is known
    known[impressions.offsets[2] : impressions.offsets[4]] = False
    impressions.candidates[~known] = 0
    scores = scoring.score(impressions)
    assert scores.dtype == np.float32
    assert scores[known].tolist() == whole[known].tolist()
    for start, end in pairwise(impressions.offsets):
        here = known[start:end]
        mean = np.float32(np.mean(whole[start:end][here], dtype=np.float64)) if here.any() else 0
        np.testing.assert_allclose(scores[start:end][~here], mean, rtol=1e-6)
        assert len(np.unique(scores[start:end][~here])) <= 1
    assert 0 < known.sum() < len(known)


def test_an_unknown_candidate_beside_equal_scores_is_their_equal():
    titles, histories, impressions = world(np.random.default_rng(12))
    histories[:] = histories[1]
    impressions.candidates[:] = np.where(np.arange(len(impressions.candidates)) % 3, 7, 0)
    scores = scorer(Encoders.of(small_model(SMALL, 30)), titles, histories).score(impressions)
    for start, end in pairwise(impressions.offsets):
        assert len(np.unique(scores[start:end])) <= 1


def test_readers_without_a_history_are_scored_by_the_prior_and_no_other_is():
    titles, histories, impressions = world(np.random.default_rng(13))
    impressions.user[:5] = 0  # without a history row at all
    encoders = Encoders.of(small_model(SMALL, 30))
    news_vectors = encoders.catalogue(titles[1:])["news_vectors"]
    before = scorer(encoders, titles, histories)
    prior = before.prior_vector(impressions.user)
    scores, old = (
        made.score(impressions) for made in (scorer(encoders, titles, histories, prior), before)
    )
    rows = np.repeat(np.arange(len(impressions.user)), np.diff(impressions.offsets))
    empty = ~histories[impressions.user[rows]].any(axis=1)
    assert scores[~empty].tolist() == old[~empty].tolist()
    assert not old[empty].any()
    told = empty & (impressions.candidates > 0)
    np.testing.assert_allclose(
        scores[told], news_vectors[impressions.candidates[told]] @ prior, atol=1e-6
    )
    assert len(np.unique(scores[told])) > 3


@pytest.mark.parametrize("most", [4096, 4])
def test_the_prior_counts_each_reader_with_a_history_once(monkeypatch, most):
    monkeypatch.setattr("nrms.inference.vectors._PRIOR_USERS", most)
    titles, histories, _ = world(np.random.default_rng(14))
    encoders = Encoders.of(small_model(SMALL, 30))
    news_vectors = encoders.catalogue(titles[1:])["news_vectors"]
    occurring = np.array([9, 3, 3, 0, 12, 9, 5, 6, 7, 9])
    read = [user for user in (3, 5, 6, 7, 9, 12) if histories[user].any()]
    if most < len(read):
        read = [read[i] for i in np.linspace(0, len(read) - 1, most).astype(int)]
    vectors = encoders.encode_users(news_vectors, histories[read])
    prior = scorer(encoders, titles, histories).prior_vector(occurring)
    assert prior.dtype == np.float32
    np.testing.assert_allclose(prior, vectors.mean(axis=0), atol=1e-6)
    assert not scorer(encoders, titles, histories).prior_vector(np.array([0])).any()


def test_batching_does_not_change_a_score(monkeypatch):
    titles, histories, impressions = world(np.random.default_rng(6))
    encoders = Encoders.of(small_model(SMALL, 30))
    whole = scorer(encoders, titles, histories).score(impressions)
    monkeypatch.setattr("nrms.inference.vectors._CANDIDATES", 11)
    for encoders.runtime.positions in (1, 20):
        np.testing.assert_allclose(
            scorer(encoders, titles, histories).score(impressions), whole, atol=1e-6
        )


def test_padding_may_stand_anywhere():
    titles, histories, impressions = world(np.random.default_rng(15))
    encoders = Encoders.of(small_model(SMALL, 30))
    expected = scorer(encoders, titles, histories).score(impressions)
    front = [
        np.stack([np.append(row[row == 0], row[row != 0]) for row in rows])
        for rows in (titles, histories)
    ]
    np.testing.assert_allclose(scorer(encoders, *front).score(impressions), expected, atol=1e-6)


def test_both_runtimes_give_the_same_scores(tmp_path):
    titles, histories, impressions = world(np.random.default_rng(9))
    # some weights of this small model give scores too small to tell anything
    keras.utils.set_random_seed(3)
    model = small_model(SMALL, 30)
    export_model(model, tmp_path, SPECS)
    onnx = Encoders.exported(tmp_path)
    expected, scores = (
        scorer(runtime, titles, histories).score(impressions)
        for runtime in (Encoders.of(model), onnx)
    )
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


def test_what_is_no_onnx_model_is_refused_by_name(tmp_path):
    for content in (b"", b"not a model", b"\x08" * 1000):
        (tmp_path / "news_encoder.onnx").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"news_encoder\.onnx: must be a model") as caught:
            OnnxRuntime({"news_encoder": tmp_path / "news_encoder.onnx"})
        assert len(str(caught.value).splitlines()) == 1


def test_users_encoded_before_score_as_those_encoded_with_their_shard():
    titles, histories, impressions = world(np.random.default_rng(10))
    encoders = Encoders.of(small_model(SMALL, 30))
    ahead, one_by_one = (scorer(encoders, titles, histories) for _ in range(2))
    ahead.prepare(np.arange(len(histories)))
    for user in range(len(histories)):
        one_by_one.prepare(np.array([user]))
    np.testing.assert_allclose(ahead.score(impressions), one_by_one.score(impressions), atol=1e-6)


def test_the_catalogue_is_encoded_once_and_only_users_that_occur():
    titles, histories, impressions = world(np.random.default_rng(7))
    encoders = Encoders.of(small_model(SMALL, 30))
    seen = {"title": 0, "history": 0}

    class Counting:
        positions = encoders.runtime.positions

        def run(self, graph, arrays):
            name = {"news_encoder": "title", "user_encoder": "history"}[graph]
            seen[name] += len(arrays[name])
            return encoders.runtime.run(graph, arrays)

    impressions.user[:] = impressions.user % 4
    counted = scorer(Encoders(Counting()), titles, histories)
    counted.score(impressions)
    counted.score(impressions)
    assert seen == {"title": len(titles) - 1, "history": len(np.unique(impressions.user))}


def test_an_empty_shard_has_no_scores():
    titles, histories, impressions = world(np.random.default_rng(8), impressions=0)
    scores = scorer(Encoders.of(small_model(SMALL, 30)), titles, histories).score(impressions)
    assert scores.shape == (0,)
    assert scores.dtype == np.float32
