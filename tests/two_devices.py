"""Steps of a training on two devices, and the same on one: `python -m tests.two_devices`.

A process of its own, since TensorFlow is told of its devices once. It prints JSON: the loss of each
batch, and the weights that the optimizer ends at, first in float32 and then with scaled losses. Of
each it gives what one device computes, and what two do.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from nrms.architectures.nrms import NrmsConfig
from nrms.training.optimizer import build_optimizer
from nrms.training.step import make_train_step
from tests.encoders import inputs_of, small_model
from tests.nrms.training.test_optimizer import GRADIENTS, START, STEPS, config

DEVICES = ["CPU:0", "CPU:1"]
BATCHES = (8, 8, 7, 1, 8)


def losses(strategy: tf.distribute.Strategy) -> list[float]:
    """The loss of each batch, of so many samples."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    titles = rng.integers(1, 50, (31, 8)).astype(np.int32)
    titles[0] = 0
    with strategy.scope():
        sizes = {"word_dim": 8, "heads": 2, "head_dim": 4, "attention_dim": 8, "dropout": 0.0}
        model = small_model(NrmsConfig(**sizes), 50)
        model.news_encoder.title.buckets = model.user_encoder.history.buckets = 2
        optimizer = keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)
    step = make_train_step(model, optimizer, inputs_of(50), {"title": titles}, strategy)
    found = []
    for n in BATCHES:
        history = rng.integers(0, 31, (n, 5)).astype(np.int32)
        candidates = rng.integers(1, 31, (n, 4)).astype(np.int32)
        labels = np.eye(4, dtype=np.float32)[np.zeros(n, int)]
        batch = {"history": history, "candidates": candidates, "labels": labels}
        found.append(float(step(batch | {"mask": candidates != 0})))
    return found


def end(strategy: tf.distribute.Strategy, precision: str) -> list[float]:
    """The weights after a step for each of `GRADIENTS`."""
    with strategy.scope():
        weights = keras.Variable(START)
        flags = {"clip_norm": 1.5, "schedule": "cosine", "optimizer": "adamw"}
        optimizer = build_optimizer(config(precision=precision, **flags), STEPS)
        optimizer.build([weights])

    @tf.function
    def step(gradient):
        def share():
            count = tf.distribute.get_replica_context().num_replicas_in_sync
            optimizer.apply([optimizer.scale_loss(gradient) / count], [weights])

        strategy.run(share)

    for gradient in GRADIENTS:
        step(tf.constant(gradient))
    return weights.numpy().tolist()


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(DEVICES)
    ends = [[end(one, precision) for one in both] for precision in ("float32", "mixed_float16")]
    print(json.dumps({"losses": [losses(one) for one in both], "ends": ends}))  # noqa: T201
