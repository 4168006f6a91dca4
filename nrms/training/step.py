"""One step of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from nrms.features.inputs import Inputs
from nrms.training.loss import softmax_cross_entropy

TrainStep = Callable[[Mapping[str, np.ndarray]], tf.Tensor]


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    inputs: Inputs,
    articles: Mapping[str, np.ndarray],
    strategy: tf.distribute.Strategy,
    label_smoothing: float = 0.0,
) -> TrainStep:
    """Compiles one step of training, which lowers the softmax cross-entropy of the clicks among the
    candidates of their lists.

    Each replica of `strategy` gets the whole batch, which is small, and works on its share of the
    samples.

    Args:
        model: the model, created in the strategy's scope.
        optimizer: the optimizer, created and built in the strategy's scope.
        inputs: what the model reads.
        articles: what the model reads of articles, `(articles + 1, ...)` by name; row 0 is zeros.
        strategy: the devices.
        label_smoothing: see `nrms.training.loss.softmax_cross_entropy`.

    Returns:
        A function of a batch's arrays (see `nrms.training.batches.Batch`) that updates the weights
        and returns the batch's mean loss, a float32 scalar tensor.
    """
    with strategy.scope():
        catalogue = {name: tf.constant(array) for name, array in articles.items()}

    def replica_step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        first, step = replica.replica_id_in_sync_group, replica.num_replicas_in_sync
        samples = tf.cast(tf.shape(batch["history"])[0], tf.float32)
        own = {name: array[first::step] for name, array in batch.items()}
        with tf.GradientTape() as tape:
            logits = model(catalogue, own, training=True)
            # Divided by the samples of the whole batch, because replicas are summed up.
            losses = softmax_cross_entropy(logits, own["labels"], own["mask"], label_smoothing)
            loss = tf.reduce_sum(losses) / samples
            scaled = optimizer.scale_loss(loss)
        # Gradients are made dense, because Adam squares them, and before that the slices that two
        # replicas have for one word must be summed up.
        gradients = [
            tf.convert_to_tensor(g) for g in tape.gradient(scaled, model.trainable_variables)
        ]
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    # There is no Python control flow here for Autograph to convert, and it would rewrite code of
    # Keras, too.
    @tf.function(input_signature=[_signature(inputs)], autograph=False)
    def train_step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        losses = strategy.run(replica_step, args=(batch,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    return train_step


def _signature(inputs: Inputs) -> dict[str, tf.TensorSpec]:
    """The signature of a batch's arrays, by name."""
    lists = {"history": "int32", "candidates": "int32", "labels": "float32", "mask": "bool"}
    signature = {name: tf.TensorSpec((None, None), dtype) for name, dtype in lists.items()}
    for name, spec in inputs.moment_specs.items():
        signature[name] = tf.TensorSpec(spec.shape, spec.dtype)
    return signature
