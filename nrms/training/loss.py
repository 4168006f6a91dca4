"""The loss of training."""

from __future__ import annotations

import tensorflow as tf


def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """The cross-entropy between the clicks of each list and the softmax over its candidates.

    Args:
        logits: float32 tensor of shape `(batch, candidates)`, -1e9 where there is no candidate.
        labels: float32 tensor of the same shape, 1 for a click and 0 otherwise. Each list has at
            least one click, and its clicks have equal weights.
        mask: bool tensor of the same shape, False where there is no candidate.
        smoothing: share of each list's target that is spread evenly over its candidates, at least 0
            and below 1.

    Returns:
        Float32 tensor of shape `(batch,)`.
    """
    target = labels / tf.reduce_sum(labels, axis=1, keepdims=True)
    if smoothing:
        candidates = tf.cast(mask, tf.float32)
        even = candidates / tf.reduce_sum(candidates, axis=1, keepdims=True)
        target = (1 - smoothing) * target + smoothing * even
    return tf.reduce_logsumexp(logits, axis=1) - tf.reduce_sum(target * logits, axis=1)
