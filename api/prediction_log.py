"""Writes counts, timings and score histograms of requests to a bucket as Parquet: in the
background, with bounded memory, and without a promise that all arrive.
"""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from api.metrics import Metrics
from nrms import storage
from nrms.errors import NrmsError
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)

_WAITING = 10_000  # requests that wait to be written; further ones are dropped
_BATCH = 2_000  # requests in a file, at most


@dataclass(frozen=True)
class Record:
    """One scored request, without anything that says who read what.

    Attributes:
        time: when it was answered, UTC.
        request_id: as X-Request-Id of the answer.
        model_version: what scored it.
        body_sha256: of the uploaded file.
        impressions: rows.
        candidates: scores.
        unknown_articles: candidates that the catalogue lacks.
        empty_histories: impressions of users without a history.
        seconds: of each stage.
        histogram_edges: of the bins of scores.
        histogram: scores in each bin.
    """

    time: datetime
    request_id: str
    model_version: str
    body_sha256: str
    impressions: int
    candidates: int
    unknown_articles: int
    empty_histories: int
    seconds: dict[str, float]
    histogram_edges: list[float]
    histogram: list[int]


_SCHEMA = pa.schema(
    {
        "time": pa.timestamp("us", "UTC"),
        "request_id": pa.string(),
        "model_version": pa.string(),
        "body_sha256": pa.string(),
        "impressions": pa.int64(),
        "candidates": pa.int64(),
        "unknown_articles": pa.int64(),
        "empty_histories": pa.int64(),
        "seconds": pa.map_(pa.string(), pa.float64()),
        "histogram_edges": pa.list_(pa.float64()),
        "histogram": pa.list_(pa.int64()),
    }
)


class PredictionLog:
    """Writes `<folder>/date=YYYY-MM-DD/<time>-<id>.parquet` at intervals. No request waits for it
    or fails because of it.

    Args:
        folder: local path or `gs://` URI; None for no log.
        seconds: between two files.
        metrics: counts files and what was dropped.
    """

    def __init__(self, folder: str | None, seconds: float, metrics: Metrics) -> None:
        self._folder = folder or ""  # without a folder nothing is written
        self._seconds = seconds
        self._metrics = metrics
        self._records: queue.Queue[Record] = queue.Queue(_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def add(self, record: Record) -> None:
        """Takes a record without waiting. Where there is no room, it is dropped and counted."""
        if not self._folder:
            return
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._metrics.log_dropped.inc()

    def start(self) -> None:
        """Begins to write."""
        if self._folder:
            self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Writes what is left, for `seconds` at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        while batch := [
            self._records.get_nowait() for _ in range(min(_BATCH, self._records.qsize()))
        ]:
            try:
                self._write(batch)
            except (NrmsError, OSError, pa.ArrowException) as error:
                self._metrics.log_files.labels("failed").inc()
                self._metrics.log_dropped.inc(len(batch))
                logger.warning("prediction log: %d requests not written: %s", len(batch), error)
            else:
                self._metrics.log_files.labels("written").inc()

    def _write(self, batch: list[Record]) -> None:
        now = datetime.now(UTC)
        name = f"{now:%H%M%S}-{uuid.uuid4().hex}.parquet"
        rows = [{**asdict(record), "seconds": list(record.seconds.items())} for record in batch]
        table = pa.Table.from_pylist(rows, _SCHEMA)
        with scratch_folder() as folder:
            path = folder / name
            pq.write_table(table, path, compression="zstd", write_page_checksum=True)
            storage.upload(
                path,
                storage.join(self._folder, f"date={now:%Y-%m-%d}", name),
                if_generation=storage.ABSENT,
            )
