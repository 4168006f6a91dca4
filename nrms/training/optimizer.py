"""The optimizer, Adam or AdamW, with a learning rate that may change from step to step."""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from keras import ops

from nrms.training.config import TrainConfig

_WEIGHT_DECAY = 0.01  # the default of AdamW


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly, and then is constant or falls along half a cosine.

    A step's rate depends on the number of the step only. The optimizer counts the steps, and the
    checkpoint keeps the count, so a resumed training has the same rates as an unbroken one.

    Args:
        lr: the highest rate.
        warmup: number of steps in which the rate rises to `lr`.
        steps: number of steps of the whole training, after which a falling rate would be 0.
        falls: whether the rate falls.
    """

    def __init__(self, lr: float, warmup: int, steps: int, falls: bool) -> None:
        super().__init__()
        self.lr, self.warmup, self.steps, self.falls = lr, warmup, steps, falls

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of a step, counted from 0: a float32 scalar."""
        step = ops.cast(step, "float32")
        rate = self.lr * ops.minimum(1.0, (step + 1) / max(1, self.warmup))
        if self.falls:
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            rate *= (1 + ops.cos(math.pi * ops.clip(done, 0.0, 1.0))) / 2
        return rate

    def get_config(self) -> dict:
        """See `keras.optimizers.schedules.LearningRateSchedule`."""
        return {"lr": self.lr, "warmup": self.warmup, "steps": self.steps, "falls": self.falls}


class _Clipped:
    """Clips by the norm of the whole batch's gradient. Keras would use the norm of each device's
    share of the gradient.
    """

    global_clipnorm: float

    def _clip_gradients(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        norm = tf.linalg.global_norm(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients))
        scale = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm)
        return [gradient * scale for gradient in gradients]


class ClippedAdam(_Clipped, keras.optimizers.Adam):
    """Adam with the clipping of `_Clipped`."""


class ClippedAdamW(_Clipped, keras.optimizers.AdamW):
    """AdamW with the clipping of `_Clipped`."""


def build_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer that the flags ask for, not yet built.

    Args:
        config: see `nrms.training.config.TrainingConfig`.
        steps: number of steps of the whole training, if it runs all epochs.
    """
    lr = config.lr
    if config.schedule != "constant" or config.warmup:
        lr = Schedule(config.lr, config.warmup, steps, config.schedule == "cosine")
    clipped = config.clip_norm is not None
    options = {"global_clipnorm": config.clip_norm} if clipped else {}
    if config.optimizer == "adamw":
        decay = _WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
        adamw = ClippedAdamW if clipped else keras.optimizers.AdamW
        optimizer = adamw(lr, weight_decay=decay, **options)
    else:
        optimizer = (ClippedAdam if clipped else keras.optimizers.Adam)(lr, **options)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
