"""What this machine can do, and what this process uses of it."""

from __future__ import annotations

import sys
import time

import tensorflow as tf


def matmul_peak(dtype: str = "float32", size: int = 2048, seconds: float = 2.0) -> float:
    """Multiply-adds of a large matrix product, in GFLOP/s (a multiply-add counts 2): the best of many tries."""
    a, b = (tf.cast(tf.random.normal((size, size)), dtype) for _ in range(2))
    product = tf.function(lambda a, b: tf.reduce_sum(tf.cast(tf.matmul(a, b)[:1], tf.float32)), autograph=False)
    product(a, b).numpy()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        product(a, b).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def peak_memory() -> float:
    """Peak resident memory of this process since its start, in GB."""
    import resource  # not on Windows

    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
