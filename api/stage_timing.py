"""How long the stages of a request take."""

from __future__ import annotations

import time


class StageTiming:
    """Seconds of the stages of one request, from one mark to the next.

    Args:
        started: when the first stage began, by `time.perf_counter`.

    Attributes:
        seconds: of each stage that has ended, in their order.
    """

    def __init__(self, started: float) -> None:
        self._last = started
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Ends a stage; the next one begins."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
