"""What this machine can do, what a process uses of it, and how a figure is noted."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def matmul_peak(dtype: str = "float32", size: int = 2048, seconds: float = 2.0) -> float:
    """Multiply-adds of a large matrix product, in GFLOP/s (a multiply-add counts 2): the best of
    many tries.
    """
    a, b = (tf.cast(tf.random.normal((size, size)), dtype) for _ in range(2))
    product = tf.function(
        lambda a, b: tf.reduce_sum(tf.cast(tf.matmul(a, b)[:1], tf.float32)), autograph=False
    )
    product(a, b).numpy()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        product(a, b).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def peak_memory() -> float:
    """Peak resident memory of this process since its start, in GB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss starts at the parent's size
        return (
            next(
                int(line.split()[1])
                for line in status.read_text().splitlines()
                if line.startswith("VmHWM")
            )
            / 1e6
        )
    import resource  # not on Windows

    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def encoder_arithmetic(
    encoder: keras.Model, items: int, dim: int, lengths: np.ndarray
) -> tuple[float, float]:
    """Floating-point operations of encoding sequences without padding, a multiply-add as 2.

    Args:
        encoder: a news or user encoder of NRMS.
        items: distinct items in the sequences.
        dim: size of an item's vector.
        lengths: items of each sequence, int of shape `(sequences,)`.

    Returns:
        The operations of the projections, and those of everything else.
    """
    width = encoder.heads * encoder.head_dim
    attention = 4 * width * np.square(lengths, dtype=np.float64).sum()
    pooling = float(lengths.sum()) * (2 * width * encoder.attention_dim + 2 * width)
    return 2.0 * items * dim * 3 * width, attention + pooling


def figure(name: str, ours: float, naive: float, unit: str) -> dict[str, Any]:
    """A row of `--json`. `ratio` is how much better ours is: ours divided by naive for speeds,
    naive divided by ours for times and memory.
    """
    ratio = ours / naive if unit.endswith("/s") else naive / ours
    return {
        "name": name,
        "ours": round(ours, 2),
        "naive": round(naive, 2),
        "ratio": round(ratio, 2),
        "unit": unit,
    }
