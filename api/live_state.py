"""What has happened, as a running service knows it: a thread applies the events of the log to a
state as they arrive, and saves the state, so that a restart need not read the whole log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from api.event_intake import EventIntake
from api.metrics import LiveMetrics
from api.served_model import ServedModel
from api.settings import Settings
from nrms import storage
from nrms.errors import ArtifactError, NrmsError, ObjectNotFound, StorageError
from nrms.events.event import now
from nrms.events.log import EventLog
from nrms.features.context import snapshot
from nrms.features.context.live import Live, Rows
from nrms.features.context.state import Delays, State
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)

_SECONDS = 0.5  # between two looks, unless a request of this service brought events
_PAUSE = 0.02  # after each look, so that many small requests are applied together
_ROWS = 5_000  # are applied at a time
_SQLITE = "sqlite:///"


class LiveState:
    """The state of a service whose model reads what happened before. With another model it only
    keeps the log short.

    A restart goes on from what was saved. Where nothing was, or by other rules, it begins with the
    model's own state and all that the log has. So does a model whose own state is newer than
    everything that the log and the saved state know.

    Args:
        settings: see `api.settings`.
        metrics: those of the state.
        intake: has the log.
        served: gives the model that is served.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: LiveMetrics,
        intake: EventIntake,
        served: Callable[[], ServedModel | None],
    ) -> None:
        self._settings, self._metrics, self._intake = settings, metrics, intake
        self._served = served
        self._live: Live | None = None
        self._own: State | None = None  # that of the model for which `_live` began or went on
        self._saved = 0  # position of the state that was saved last
        self._save_at = time.monotonic() + settings.context_save_seconds
        self._error: str | None = None
        self._stop, self._awake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="apply-events", daemon=True)
        metrics.age.set_function(self._age)
        metrics.keys.set_function(lambda: 0 if self._live is None else len(self._live.state))
        metrics.position.set_function(lambda: self._position)
        metrics.lag.set_function(lambda: max(0, intake.end - self._position))

    def state(self, rules: Delays) -> State | None:
        """What has happened, counted by these rules; None as long as it is not known."""
        live = self._live
        return None if live is None or live.state.rules != rules else live.state

    def wake(self) -> None:
        """Says that there are new events."""
        self._awake.set()

    def start(self, scratch: Path) -> None:
        """Begins to apply events.

        Args:
            scratch: local folder for files on their way.
        """
        self._scratch = scratch
        self._thread.start()

    def stop(self) -> None:
        """Ends, and saves the state. Nothing may be submitted to the log any more."""
        self._stop.set()
        self._awake.set()
        self._thread.join()
        live, log = self._live, self._intake.log
        if live is not None and log is not None:
            self._try(partial(self._save, live, log))

    @property
    def _position(self) -> int:
        return 0 if self._live is None else self._live.state.position

    def _age(self) -> float:
        served, live = self._served(), self._live
        if served is None or served.model.inputs.past is None:
            return float("nan")
        if live is None:
            return float("inf")
        return max(0.0, (now() - live.state.latest) / 1e6)

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._try(self._look)
            self._stop.wait(_PAUSE)
            self._awake.wait(_SECONDS)
            self._awake.clear()

    def _try(self, work: Callable[[], None]) -> None:
        error = None
        try:
            work()
        except NrmsError as known:
            error = str(known)
            if error != self._error:
                logger.error("%s", error)
        except Exception as unforeseen:
            # The next look tries again, and the age of the state says that it does not help.
            error = f"{type(unforeseen).__name__}: {unforeseen}"
            if error != self._error:
                logger.exception("the events could not be applied")
        self._error = error

    def _look(self) -> None:
        served, log = self._served(), self._intake.log
        if served is None or log is None:
            return
        past = served.model.inputs.past
        if past is None:
            self._live = self._own = None
        elif self._own is not past.state:
            self._live, self._own = self._begun(past.state, log), past.state
        live = self._live
        if live is not None:
            self._apply(live, log)
        if time.monotonic() >= self._save_at:
            self._save_at = time.monotonic() + self._settings.context_save_seconds
            if live is None:
                log.compact(log.state().end)
            else:
                self._save(live, log)

    def _apply(self, live: Live, log: EventLog) -> None:
        while not self._stop.is_set():
            table = log.since(live.state.position, _ROWS)
            if not len(table):
                return
            live.apply(Rows.of(table), now())

    def _begun(self, own: State, log: EventLog) -> Live:
        """What to go on with, now that a model has this state."""
        keys, about = self._settings.context_max_keys, log.state()
        if self._live is not None and self._live.state.rules == own.rules:
            known: State | None = self._live.state
        else:
            known = self._load(own.rules)
        if known is not None and own.latest <= max(known.latest, about.newest or 0):
            if self._live is not None and known is self._live.state:
                return self._live
            if known.position > about.end:
                logger.warning(
                    "the saved state knows %s rows of a log that has %s: what it lacks is applied",
                    f"{known.position:,}",
                    f"{about.end:,}",
                )
                known = replace(known, position=0)
            elif known.position < about.start:
                logger.warning("the log has lost rows that the saved state does not know")
                known = replace(known, position=about.start)
            logger.info("the live state goes on from row %s of the log", f"{known.position:,}")
            return Live(known, about.start, keys)
        logger.info("the live state begins with the model's and the log from its first row")
        return Live(own, about.start, keys)

    def _load(self, rules: Delays) -> State | None:
        """The state that was saved; None where there is none that can be used."""
        uri = storage.join(self._folder, snapshot.FILE)
        try:
            with scratch_folder(self._scratch) as folder:
                state = snapshot.load(storage.fetch(storage.stat(uri), folder), uri)
        except ObjectNotFound:
            return None
        except ArtifactError as error:
            logger.error("%s", error)
            return None
        if state.rules != rules:
            logger.info("%s was counted by other rules than the model's", uri)
            return None
        return state

    def _save(self, live: Live, log: EventLog) -> None:
        """Saves the state, and lets the log forget what is in it."""
        position = live.state.position
        if position == self._saved:
            return
        live.compact()
        try:
            with scratch_folder(self._scratch) as folder:
                snapshot.save(live.state, folder / snapshot.FILE)
                storage.upload(folder / snapshot.FILE, storage.join(self._folder, snapshot.FILE))
        except StorageError:
            self._metrics.saves.labels("failed").inc()
            raise
        self._metrics.saves.labels("saved").inc()
        self._saved = position
        log.compact(position)

    @property
    def _folder(self) -> str:
        if self._settings.context_uri is not None:
            return self._settings.context_uri
        url = self._settings.events_url
        path = Path(url.removeprefix(_SQLITE) if url.startswith(_SQLITE) else "runs/events")
        return str(path.with_name(f"{path.stem}-state"))
