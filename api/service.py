"""The state of the running process: the model that is served, the workers, and the thread that
loads newer models and articles.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio

from api.event_intake import EventIntake
from api.live_state import LiveState
from api.metrics import LiveMetrics, Metrics
from api.prediction_log import PredictionLog
from api.served_model import ServedModel
from api.settings import Settings
from api.uploads.decoder_pool import DecoderPool
from nrms.errors import NrmsError
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)


class Service:
    """The state of one process, which all its requests share.

    Args:
        settings: see `api.settings`.

    Attributes:
        settings: those given.
        metrics: see `api.metrics`.
        decoders: what reads uploads.
        log: the prediction log.
        events: what takes events; None where that is off.
        live: what has happened, by those events; None where that is off.
        scratch: local folder of this process, where uploads lie while they are scored.
        limiter: lets `workers` requests be scored at the same time.
        error: why the newest model or catalogue is not served; None when it is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.decoders = DecoderPool(settings)
        self.log = PredictionLog(
            settings.prediction_log, settings.prediction_log_seconds, self.metrics
        )
        self.events = EventIntake(settings, self.metrics) if settings.events else None
        self.live: LiveState | None = None
        if self.events is not None:
            metrics = LiveMetrics(self.metrics.registry)
            self.live = LiveState(settings, metrics, self.events, lambda: self._served)
        self.limiter = anyio.CapacityLimiter(settings.workers)
        self.metrics.waiting.set_function(lambda: self.limiter.statistics().tasks_waiting)
        self.error: str | None = "the model is being loaded"
        self.started = datetime.now(UTC)
        self._served: ServedModel | None = None
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="follow-model", daemon=True)

    @property
    def served(self) -> ServedModel | None:
        """What a request that begins now is scored with; None until there is a model."""
        return self._served

    def start(self) -> None:
        """Begins to load the model."""
        self.scratch = self._stack.enter_context(scratch_folder())
        self._cache = self.scratch / "cache"
        self._cache.mkdir()
        self._follower.start()
        self.log.start()
        if self.events is not None and self.live is not None:
            self.events.start()
            self.live.start(self.scratch)

    def stop(self) -> None:
        """Ends threads and processes, writes the rest of the prediction log."""
        self._stop.set()
        if self.events is not None and self.live is not None:
            self.live.stop()
            self.events.stop()
        self.log.stop()
        self.decoders.close()
        self._stack.close()

    def check(self) -> None:
        """Loads a newer model or newer articles, and then serves them. Why they cannot be loaded is
        noted in `error`.
        """
        now = self._served
        try:
            if now is not None and now.is_current(self.settings):
                self._note(None)
                return
            start = time.perf_counter()
            served = ServedModel.load(self.settings, self._cache, now)
        except NrmsError as error:
            self._note(str(error))
            return
        except Exception as error:
            # Whatever a broken version raises, the old one stays in service.
            logger.exception("model or articles could not be loaded")
            self._note(f"{type(error).__name__}: {error}")
            return
        if now is not None:
            self.metrics.model.remove(now.bundle.version, now.bundle.sha256)
        self.metrics.model.labels(served.bundle.version, served.bundle.sha256).set(1)
        self.metrics.articles.set(len(served.articles))
        self.metrics.ready.set(1)
        self.metrics.reloads.labels("loaded").inc()
        # One assignment, so a request has either the old or the new one.
        self._served = served
        if self.live is not None:
            self.live.wake()
        self._note(None)
        seconds = time.perf_counter() - start
        logger.info(
            "serving %s with %s articles, loaded in %.2f s",
            served.bundle.uri,
            f"{len(served.articles):,}",
            seconds,
        )
        _keep_only(self._cache, {path.name for path in served.bundle.files.values()})

    def _note(self, error: str | None) -> None:
        if error is not None:
            self.metrics.reloads.labels("failed").inc()
            if error != self.error:
                logger.error("%s", error)
        self.metrics.reload_failing.set(0 if error is None else 1)
        self.error = error

    def _follow(self) -> None:
        self.check()
        try:
            self.decoders.start()
        except OSError:
            logger.exception(
                "the processes that read uploads did not start; each upload tries again"
            )
        while not self._stop.wait(
            self.settings.reload_seconds if self._served else min(1.0, self.settings.reload_seconds)
        ):
            self.check()


def _keep_only(folder: Path, names: set[str]) -> None:
    """Takes away what earlier versions left in the cache."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink(missing_ok=True)
