"""Steps of the optimizer against the rules that they follow, in NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nrms.errors import ConfigError
from nrms.training.config import TrainConfig
from nrms.training.optimizer import build_optimizer

START = np.array([1.0, -2.0, 3.0], np.float32)
GRADIENTS = np.random.default_rng(2).normal(0, 2, (12, 3)).astype(np.float32)
LR, STEPS = 0.1, len(GRADIENTS)


def config(**flags):
    return TrainConfig(data="in", output="out", lr=LR, **flags)


def moved(optimizer, gradients=GRADIENTS):
    """The weights after each step."""
    weights = keras.Variable(START)
    optimizer.build([weights])
    states = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [weights])
        states.append(weights.numpy().copy())
    return np.array(states)


def slow(rate=lambda step: LR, decay=0.0, norm=math.inf):
    """Adam, step by step."""
    w, m, v = START.astype(float), np.zeros(3), np.zeros(3)
    states = []
    for step, gradient in enumerate(GRADIENTS.astype(float)):
        gradient = gradient * min(1, norm / np.sqrt((gradient**2).sum()))
        w = w - rate(step) * decay * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        scale = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        w = w - rate(step) * scale * m / (np.sqrt(v) + 1e-7)
        states.append(w)
    return states


def cosine(step):
    return LR * (1 + math.cos(math.pi * step / STEPS)) / 2


def warm_cosine(step):
    if step < 4:
        return LR * (step + 1) / 4
    return LR * (1 + math.cos(math.pi * (step - 4) / (STEPS - 4))) / 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, slow()),
        ({"warmup": 5}, slow(lambda step: LR * min(1, (step + 1) / 5))),
        ({"schedule": "cosine"}, slow(cosine)),
        ({"schedule": "cosine", "warmup": 4}, slow(warm_cosine)),
        ({"schedule": "cosine", "warmup": 20}, slow(lambda step: LR * (step + 1) / 20)),
        ({"clip_norm": 1.5}, slow(norm=1.5)),
        ({"optimizer": "adamw"}, slow(decay=0.01)),
        ({"optimizer": "adamw", "weight_decay": 0.3}, slow(decay=0.3)),
        (
            {"optimizer": "adamw", "schedule": "cosine", "warmup": 4, "clip_norm": 1.0},
            slow(warm_cosine, 0.01, 1.0),
        ),
    ],
)
def test_the_weights_go_where_the_rule_says(flags, expected):
    np.testing.assert_allclose(moved(build_optimizer(config(**flags), STEPS)), expected, atol=1e-4)


def test_by_default_it_is_plain_adam_to_the_last_bit():
    optimizer = build_optimizer(config(), STEPS)
    assert type(optimizer) is keras.optimizers.Adam
    np.testing.assert_array_equal(moved(optimizer), moved(keras.optimizers.Adam(LR)))


def test_loss_scaling_clips_the_gradient_as_it_is_and_not_as_it_is_scaled():
    optimizer = build_optimizer(config(clip_norm=1.5, precision="mixed_float16"), STEPS)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    scaled = GRADIENTS * np.float32(optimizer.initial_scale)
    np.testing.assert_allclose(moved(optimizer, scaled), slow(norm=1.5), atol=1e-4)


def test_another_process_goes_on_at_the_rate_of_the_step_where_it_was():
    flags = {"optimizer": "adamw", "schedule": "cosine", "warmup": 4}
    whole = moved(build_optimizer(config(**flags), STEPS))
    first, second = (build_optimizer(config(**flags), STEPS) for _ in range(2))
    at = moved(first, GRADIENTS[:7])[-1]
    weights = keras.Variable(at)
    second.build([weights])
    for variable, value in zip(second.variables, first.variables, strict=True):
        variable.assign(value.numpy())
    for gradient in GRADIENTS[7:]:
        second.apply([tf.constant(gradient)], [weights])
    np.testing.assert_array_equal(weights.numpy(), whole[-1])


def test_weight_decay_without_adamw_is_one_line():
    with pytest.raises(ConfigError) as caught:
        config(weight_decay=0.01)
    assert str(caught.value) == (
        "--weight-decay must be given with --optimizer adamw. Received: --optimizer adam. Leave it "
        "out, or give --optimizer adamw."
    )


@pytest.mark.system
def test_two_devices_clip_by_the_gradient_of_both(on_two_devices):
    for one, two in on_two_devices["ends"]:
        np.testing.assert_allclose(two, one, rtol=1e-5)
