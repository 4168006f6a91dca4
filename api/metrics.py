"""What `/metrics` shows, in Prometheus' format."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nrms.data.joins import Joins
from nrms.events.log import Appended

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one service. Rates of unknown articles and empty histories are ratios of these
    counters.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "nrms_requests_total", "Requests answered.", ["route", "status"], **options
        )
        self.rejections = Counter(
            "nrms_rejections_total", "Requests refused.", ["reason"], **options
        )
        self.cut = Counter(
            "nrms_connections_cut_total", "Connections that met a limit.", ["reason"], **options
        )
        self.seconds = Histogram(
            "nrms_stage_seconds",
            "Seconds that a scored request spent: upload, queue, decode, score, respond.",
            ["stage"],
            buckets=_SECONDS,
            **options,
        )
        self.in_flight = Gauge(
            "nrms_requests_in_flight", "Uploads that arrive, wait or are scored.", **options
        )
        self.events_in_flight = Gauge(
            "nrms_events_requests_in_flight", "Requests with events that arrive or wait.", **options
        )
        self.waiting = Gauge("nrms_requests_waiting", "Uploads that wait for a worker.", **options)
        self.impressions = Counter("nrms_impressions_total", "Impressions scored.", **options)
        self.candidates = Counter("nrms_candidates_total", "Candidates scored.", **options)
        self.unknown_articles = Counter(
            "nrms_unknown_articles_total",
            "Candidates that the catalogue lacks: they get their impression's mean score.",
            **options,
        )
        self.empty_histories = Counter(
            "nrms_empty_histories_total",
            "Impressions of users whose history is empty or unknown.",
            **options,
        )
        self.joins = Gauge(
            "nrms_upload_unknown_ratio",
            "Share of the last upload that joins nothing, 0 to 1.",
            ["join"],
            **options,
        )
        self.warned = Counter(
            "nrms_warned_uploads_total", "Uploads scored with a warning about joins.", **options
        )
        self.model = Gauge(
            "nrms_model_info", "1 for the version that is served.", ["version", "sha256"], **options
        )
        self.articles = Gauge("nrms_articles", "Articles in the catalogue.", **options)
        self.ready = Gauge("nrms_ready", "1 when a model is served.", **options)
        self.reloads = Counter(
            "nrms_reloads_total", "Tries to load a model or articles.", ["outcome"], **options
        )
        for outcome in ("loaded", "failed"):
            self.reloads.labels(outcome)
        self.reload_failing = Gauge(
            "nrms_reload_failing",
            "1 while a newer model or catalogue cannot be loaded; the old one serves.",
            **options,
        )
        self.log_files = Counter(
            "nrms_prediction_log_files_total",
            "Files of the prediction log.",
            ["outcome"],
            **options,
        )
        self.log_dropped = Counter(
            "nrms_prediction_log_dropped_total",
            "Requests not logged: no room, or a file failed.",
            **options,
        )

    def count_scored(self, counts: dict[str, Any], joins: Joins, seconds: dict[str, float]) -> None:
        """Counts a scored upload.

        Args:
            counts: what was in it.
            joins: its shares and warnings.
            seconds: of its stages.
        """
        for stage, spent in seconds.items():
            self.seconds.labels(stage).observe(spent)
        self.impressions.inc(counts["impressions"])
        self.candidates.inc(counts["candidates"])
        self.unknown_articles.inc(counts["unknown_articles"])
        self.empty_histories.inc(counts["empty_histories"])
        self.warned.inc(1 if joins.warnings else 0)
        for name, share in joins.shares.items():
            self.joins.labels(name).set(share)


class EventMetrics:
    """The metrics of a service that takes events.

    Args:
        registry: where they are added.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        options: dict[str, Any] = {"registry": registry}
        self.events = Counter(
            "nrms_events_total",
            "Events by outcome: accepted, repeated, refused (all of a request that is).",
            ["outcome"],
            **options,
        )
        for outcome in ("accepted", "repeated", "refused"):
            self.events.labels(outcome)
        self.seconds = Histogram(
            "nrms_events_seconds",
            "Seconds from a request's head until its events were durable.",
            buckets=_SECONDS,
            **options,
        )
        self.open = Gauge("nrms_events_log_open", "1 while the log can be read.", **options)
        self.rows = Gauge("nrms_events_log_rows", "Rows that the log holds.", **options)
        self.bytes = Gauge("nrms_events_log_bytes", "Bytes that the log takes.", **options)
        self.waiting = Gauge(
            "nrms_events_waiting", "Late clicks whose impression has not arrived.", **options
        )
        self.newest = Gauge(
            "nrms_events_newest_age_seconds",
            "Age of the newest impression in the log; NaN before the first.",
            **options,
        )

    def count(self, done: Appended, seconds: float) -> None:
        """Counts a request that was acknowledged after so many seconds."""
        self.events.labels("accepted").inc(done.accepted)
        self.events.labels("repeated").inc(done.repeated)
        self.seconds.observe(seconds)


class LiveMetrics:
    """The metrics of the state that events are applied to.

    Args:
        registry: where they are added.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        options: dict[str, Any] = {"registry": registry}
        self.age = Gauge(
            "nrms_context_age_seconds",
            "Age of the newest event that the live state knows; NaN where the model reads no past.",
            **options,
        )
        self.keys = Gauge(
            "nrms_context_keys", "Articles, readers and pairs in the live state.", **options
        )
        self.position = Gauge(
            "nrms_context_position", "Position in the log up to which events count.", **options
        )
        self.lag = Gauge(
            "nrms_context_lag_rows", "Rows of the log that are not applied yet.", **options
        )
        self.saves = Counter(
            "nrms_context_saves_total", "Tries to save the live state.", ["outcome"], **options
        )
        for outcome in ("saved", "failed"):
            self.saves.labels(outcome)
