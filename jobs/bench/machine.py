"""What this machine can do, and what this process uses of it."""

from __future__ import annotations

import time
from pathlib import Path

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


class PeakMemory:
    """The process's peak resident memory since `reset`, in GB; None where the system does not tell (not Linux)."""

    def __init__(self) -> None:
        self._status, self._clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def reset(self) -> None:
        """Starts anew."""
        if self._clear.exists():
            self._clear.write_text("5")

    def gigabytes(self) -> float | None:
        """The peak so far."""
        if not self._status.exists():
            return None
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e6
