import numpy as np
import pytest
import tensorflow as tf

from nrms.training.loss import softmax_cross_entropy

RNG = np.random.default_rng(5)


def lists(rows=50, width=7):
    """Logits, labels and mask of random lists, the clicks of each among its candidates."""
    lengths = RNG.integers(1, width + 1, rows)
    mask = np.arange(width) < lengths[:, None]
    logits = np.where(mask, RNG.normal(0, 3, (rows, width)), -1e9).astype(np.float32)
    labels = mask & (RNG.random((rows, width)) < 0.4)
    labels[np.arange(rows), RNG.integers(0, lengths)] = True
    return logits, labels.astype(np.float32), mask


def slow(logits, labels, mask, smoothing):
    """List by list, click by click."""
    losses = []
    for row, clicked, there in zip(logits.astype(float), labels, mask, strict=True):
        row, clicked = row[there], clicked[there]
        negative_log = -np.log(np.exp(row) / np.exp(row).sum())
        clicks = [negative_log[i] for i in range(len(row)) if clicked[i]]
        losses.append((1 - smoothing) * np.mean(clicks) + smoothing * np.mean(negative_log))
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_it_is_the_mean_over_clicks_mixed_with_the_mean_over_candidates(smoothing):
    logits, labels, mask = lists()
    found = softmax_cross_entropy(logits, labels, mask, smoothing)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, slow(logits, labels, mask, smoothing), rtol=1e-4, atol=1e-5)


def test_one_click_is_worth_what_logsumexp_less_its_logit_is_to_the_last_bit():
    logits, _, mask = lists(2000, 5)
    labels = np.zeros_like(logits)
    labels[:, 0] = 1
    logits = tf.constant(logits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        found = softmax_cross_entropy(logits, labels, mask)
        plain = tf.reduce_logsumexp(logits, axis=1) - logits[:, 0]
    np.testing.assert_array_equal(found, plain)
    np.testing.assert_array_equal(tape.gradient(found, logits), tape.gradient(plain, logits))


def test_what_is_no_candidate_has_no_gradient():
    logits, labels, mask = lists()
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = softmax_cross_entropy(logits, labels, mask, 0.2)
    gradient = tape.gradient(losses, logits).numpy()
    np.testing.assert_array_equal(gradient[~mask], 0)
    assert (gradient[mask.sum(1) > 1] != 0).any(axis=1).all()
