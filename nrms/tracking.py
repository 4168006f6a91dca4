"""Records runs in Weights & Biases. Whatever goes wrong there, training goes on."""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import netrc
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from nrms.config import Text, option

if TYPE_CHECKING:
    from wandb import Run

logger = logging.getLogger(__name__)

_ARTIFACT_NAME = 128  # most characters of an artifact's name


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Weights & Biases"""

    wandb_mode: Literal["online", "offline", "disabled"] | None = option(
        None,
        "where the run is recorded; not set: as WANDB_MODE says, else online if there is an API "
        "key, else offline",
    )
    wandb_project: Text = option("nrms", "project that the run belongs to")
    run_name: Text | None = option(None, "name of the run; not set: Weights & Biases makes one up")
    run_group: Text | None = option(
        None,
        "group of the run; not set: the trials of a sweep have one, scoring is grouped by the "
        "model's version",
    )


class Tracker:
    """Records one run in Weights & Biases; a context manager.

    The first thing that goes wrong (no network, a bad key, a full disk, its service process gone)
    is logged as one warning, and no call takes longer than its bound. A run that cannot start
    online is recorded offline instead; after any other failure every call does nothing.

    Args:
        mode: `online`, `offline` or `disabled`. None means what `WANDB_MODE` says, else online if
            there is an API key (`WANDB_API_KEY`, `wandb login`), else offline.
        project: the project that the run belongs to.
        job_type: `train`, `score`, ...
        config: the run's configuration, JSON-ready.
        run_name: the run's name, or None for one that Weights & Biases makes up.
        folder: where `wandb/` with the run's files goes; None for `WANDB_DIR`, else `runs`.
        run_id: the id of an earlier run that this one continues or replaces; None for a new id. An
            id in `WANDB_RUN_ID`, which the agent of a sweep sets, has precedence.
        group: the group that the run is shown in, or None; `WANDB_RUN_GROUP` has precedence.
        summarized: metrics, such as `val_*`, whose result is what `summary` says and not the last
            value logged.
        init_seconds: most seconds for the start.
        call_seconds: most seconds for each call between.
        finish_seconds: most seconds for the last upload. What is not uploaded by then stays in the
            folder.

    Attributes:
        run_id: the run's id; None until there is a run.
        sync_command: the shell command that uploads the run from the folder; None until there is a
            run.
    """

    def __init__(
        self,
        mode: str | None,
        project: str,
        job_type: str,
        config: Mapping[str, Any],
        run_name: str | None = None,
        folder: str | Path | None = None,
        *,
        run_id: str | None = None,
        group: str | None = None,
        summarized: Sequence[str] = (),
        init_seconds: float = 60.0,
        call_seconds: float = 60.0,
        finish_seconds: float = 300.0,
    ) -> None:
        self._mode = mode or os.environ.get("WANDB_MODE")
        self._run_options: dict[str, Any] = {
            "project": project,
            "job_type": job_type,
            "config": dict(config),
            "name": run_name,
        }
        self._run_options["group"] = os.environ.get("WANDB_RUN_GROUP") or group
        if run_id is not None:
            self._run_options |= {"id": os.environ.get("WANDB_RUN_ID") or run_id, "resume": "allow"}
        self._summarized = summarized
        self._folder = Path(folder or os.environ.get("WANDB_DIR") or "runs").absolute()
        self._init_seconds = init_seconds
        self._call_seconds = call_seconds
        self._finish_seconds = finish_seconds
        self._run: Run | None = None
        self._ending: threading.Thread | None = None
        self._warned = False
        self.run_id: str | None = None
        self.sync_command: str | None = None

    def __enter__(self) -> Self:
        if self._mode != "disabled":
            # It tries online, then offline, and each try ends by itself after `init_seconds`.
            self._guard(self._start, 2 * self._init_seconds + 30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(0 if error is None else 1)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Records metrics at a step; steps must not go back."""
        self._call(lambda run: run.log(dict(metrics), step=step))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Records the run's results."""
        self._call(lambda run: run.summary.update(dict(metrics)))

    def image(self, name: str, path: Path) -> None:
        """Records a picture. The file may be deleted afterwards."""

        def record(run: Run) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self._call(record)

    def data(self, uri: str, fingerprint: str) -> None:
        """Records the data set that the run reads, by its place and fingerprint, without its
        files.
        """

        def record(run: Run) -> None:
            import wandb
            from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry
            from wandb.sdk.lib.paths import LogicalPath

            name = (
                re.sub(r"[^A-Za-z0-9_.-]+", "-", uri.removeprefix("gs://")).strip("-")[
                    -_ARTIFACT_NAME:
                ]
                or "data"
            )
            artifact = wandb.Artifact(
                name, "dataset", metadata={"uri": uri, "fingerprint": fingerprint}
            )
            # The entry is made by hand, because `add_reference` would list the whole folder, and
            # its version would be the same for other data in the same place.
            ref = uri if uri.startswith("gs://") else Path(uri).absolute().as_uri()
            artifact.manifest.add_entry(
                ArtifactManifestEntry(path=LogicalPath("data"), ref=ref, digest=fingerprint)
            )
            # `use_artifact` does the same with an artifact that is not logged yet, but not offline.
            run._log_artifact(artifact, is_user_created=True, use_after_commit=True)

        self._call(record)

    def artifact(self, name: str, type: str, uri: str, metadata: Mapping[str, Any]) -> None:
        """Records a folder with its files, or a `gs://` URI as references to the objects below it.
        The `commit` of the working directory, if there is one, is added to the metadata
        (JSON-ready).
        """

        def record(run: Run) -> None:
            import wandb

            artifact = wandb.Artifact(name, type, metadata={**metadata, **_commit()})
            if uri.startswith("gs://"):
                artifact.add_reference(uri)
            else:
                # With this policy files are uploaded from where they are, without a copy in the
                # home directory.
                artifact.add_dir(uri, policy="immutable", skip_cache=True)
            run.log_artifact(artifact)

        self._call(record)

    def finish(self, exit_code: int = 0) -> None:
        """Ends the run. An online run waits for what is still to be uploaded. A second call does
        nothing.
        """

        def end(run: Run) -> None:
            import wandb

            run.finish(exit_code)
            # The last records are surely on disk only when its service process has ended.
            wandb.teardown()

        run = self._run
        if run is not None and not run.offline:
            logger.info("Weights & Biases: uploading what is left")
        self._call(end, self._finish_seconds + 30)
        if self._ending is not None:
            self._ending.join(self._call_seconds)
        if run is None or self._run is None:
            return
        self._run = None
        if error := _first_error(Path(run.dir).parent / "logs" / "debug-internal.log"):
            self._warn(f"the record may have gaps: {error}")
        if run.offline:
            logger.info("Weights & Biases: recorded offline. To upload: %s", self.sync_command)

    def _start(self) -> None:
        # It reports its own errors to its makers, and without a network this delays the end of the
        # process by half a minute.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        # The logs of its service process go there. By default they go to the home directory, which
        # a container may lack.
        os.environ.setdefault("WANDB_CACHE_DIR", str(self._folder / "wandb" / "cache"))
        import wandb

        # Otherwise a full disk puts a traceback on stderr for each line of its debug.log, and a
        # service process that is gone puts a line there for each line of the console.
        logging.getLogger("wandb").setLevel(logging.CRITICAL)
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.setup(wandb.Settings(silent=True)).settings
        key = settings.api_key or settings.identity_token_file or _netrc_has(settings.base_url)
        mode = self._mode or ("online" if key else "offline")
        if mode == "online" and not key:  # on a terminal it would ask for a key
            self._warn("no API key, recording offline. Set WANDB_API_KEY or run `wandb login`")
            mode = "offline"
        try:
            self._run = self._init(mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._warn(f"{_line(error)}; recording offline")
            self._run = self._init("offline")
        for name in self._summarized:
            self._run.define_metric(name, summary="none")
        self.run_id = self._run.id
        folder = Path(self._run.dir).parent
        # A run that was resumed has a folder for each time.
        folders = (
            sorted(folder.parent.glob(f"offline-run-*-{glob.escape(self.run_id)}"))
            if self._run.offline
            else [folder]
        )
        self.sync_command = shlex.join(["wandb", "sync", *map(str, folders)])
        if not self._run.offline:
            logger.info("Weights & Biases: %s", self._run.url)

    def _init(self, mode: str) -> Run:
        import wandb

        settings = wandb.Settings(
            silent=True,
            # Lines for stdout and stderr are written there first, and nothing waits for the copy.
            console="wrap",
            init_timeout=self._init_seconds,
            finish_timeout=self._finish_seconds,
            finish_timeout_raises=True,
        )
        return wandb.init(**self._run_options | {"mode": mode}, dir=self._folder, settings=settings)

    def _call(self, action: Callable[[Run], object], seconds: float | None = None) -> None:
        run = self._run
        if run is not None:
            self._guard(lambda: action(run), seconds or self._call_seconds)

    def _guard(self, action: Callable[[], object], seconds: float) -> None:
        """Runs the action in a thread of its own, so that training goes on if the service process
        hangs.
        """
        outcome: list[BaseException | None] = []

        def work() -> None:
            try:
                action()
            except BaseException as error:
                outcome.append(error)
            else:
                outcome.append(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(seconds)
        error = outcome[0] if outcome else TimeoutError(f"no answer in {seconds:g} seconds")
        if error is not None:
            saved = f" To upload what it recorded: {self.sync_command}" if self.sync_command else ""
            self._warn(f"{_line(error)}; going on without it.{saved}")
            self._run = None
            self._ending = threading.Thread(target=_tear_down, daemon=True)
            self._ending.start()

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("Weights & Biases: %s", message)


def _tear_down() -> None:
    """Saves what can be saved, and removes its hook at exit, which would wait for a process that
    hangs and print a traceback about one that has died.
    """
    import wandb

    with contextlib.suppress(BaseException):
        wandb.teardown()


def _commit() -> dict[str, str]:
    git = ["git", "rev-parse", "HEAD"]
    try:
        return {
            "commit": subprocess.run(
                git, capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def _netrc_has(base_url: str) -> bool:
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(base_url).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _first_error(log: Path) -> str:
    """The first error in the log of its service process, or "". A full disk or a failed upload is
    reported nowhere else.
    """
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            line = next((line for line in lines if '"level":"ERROR"' in line), None)
        content = json.loads(line or "{}")
        return ": ".join(content[key] for key in ("msg", "error") if key in content)
    except (OSError, ValueError) as error:  # a full disk also cuts the log short
        return f"{log}: {_line(error)}"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
