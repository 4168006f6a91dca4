"""The nights up to yesterday: finds out which are complete, scores those that are due, and reports
them to Prometheus.

A night is due when its data is in storage and its predictions have no `_SUCCESS`; nothing else is
remembered. So the next run does whatever was missed, failed or killed, and a run that finds nothing
to do costs a few reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from nrms import storage
from nrms.data.joins import NAMES
from nrms.errors import NrmsError, StorageError
from nrms.evaluation.ranking import METRICS
from nrms.nights.config import NightlyConfig, ScoreConfig
from nrms.storage.commit import MANIFEST, SUCCESS, look, read_json

logger = logging.getLogger(__name__)

# Each of these names in metrics.json becomes a gauge `nrms_night_<name>`.
_COUNTS = (
    "impressions",
    "candidates",
    "unlabelled",
    "skipped_one_class",
    "unknown_articles",
    "empty_histories",
)


@dataclass(frozen=True)
class Night:
    """The outcome of one night.

    Attributes:
        date: YYYY-MM-DD.
        metrics: those in `metrics.json`; None where the predictions are not complete.
        error: why scoring failed; None where it did not fail, or where the data is not there yet.
    """

    date: str
    metrics: dict[str, Any] | None = None
    error: str | None = None


def look_after(config: NightlyConfig, score: Callable[[ScoreConfig], object]) -> list[Night]:
    """Scores the nights that are due, the newest first. The others are scored even if one fails.

    Args:
        config: see `nrms.nights.config.NightlyConfig`.
        score: `nrms.nights.scoring.score`, or a function that calls it.
    """
    return [_look_after(_of_night(config, day), score) for day in _days(config)]


def push(nights: list[Night], gateway: str) -> None:
    """Pushes these nights to the Pushgateway, where they replace those that were pushed before.
    Raises NrmsError if that fails.
    """
    try:
        push_to_gateway(gateway, job="nightly", registry=registry(nights))
    except (OSError, ValueError) as error:
        raise NrmsError(
            f"--pushgateway must name a Pushgateway that answers. Received: {gateway}: {error}."
        ) from error


def registry(nights: list[Night]) -> CollectorRegistry:
    """The nights as gauges, each with the label `date`. A figure that is not known of a night is
    absent, not zero.
    """
    registry = CollectorRegistry()

    def gauge(name: str, help: str) -> Gauge:
        return Gauge(f"nrms_night_{name}", help, ["date"], registry=registry)

    failed = gauge(
        "failed", "1 where scoring the night failed just now, 0 where its predictions are complete."
    )
    start = gauge(
        "date_timestamp_seconds",
        "Midnight, UTC, at which the night's date began; complete nights only.",
    )
    values = {
        name: gauge(name.replace("@", "_"), f"Mean {name} over impressions.") for name in METRICS
    }
    values |= {name: gauge(name, f"Count of {name.replace('_', ' ')}.") for name in _COUNTS}
    joins = {
        name: gauge(f"{name}_ratio", f"Share, 0 to 1: {name.replace('_', ' ')}.") for name in NAMES
    }
    warnings = gauge(
        "warnings", "Warnings in metrics.json: what says that the night's answer may be wrong."
    )
    ends = [
        gauge(f"auc_{end}", f"The {end} end of the 95% interval of auc.") for end in ("low", "high")
    ]
    for night in nights:
        if night.error is not None or night.metrics is not None:
            failed.labels(night.date).set(night.error is not None)
        if night.metrics is not None:
            start.labels(night.date).set(
                datetime.fromisoformat(night.date).replace(tzinfo=UTC).timestamp()
            )
            for name, value in values.items():
                if name in night.metrics:
                    value.labels(night.date).set(night.metrics[name])
            found = night.metrics.get("joins", {})
            for name in found.keys() & joins.keys():
                joins[name].labels(night.date).set(found[name])
            if "warnings" in night.metrics:
                warnings.labels(night.date).set(len(night.metrics["warnings"]))
            for end, value in zip(ends, night.metrics.get("auc_interval", ()), strict=False):
                end.labels(night.date).set(value)
    return registry


def _days(config: NightlyConfig) -> Iterator[str]:
    last = (
        date.fromisoformat(config.date)
        if config.date
        else datetime.now(UTC).date() - timedelta(days=1)
    )
    for days in range(config.days):
        yield (last - timedelta(days=days)).isoformat()


def _of_night(config: NightlyConfig, day: str) -> ScoreConfig:
    shared = {f.name for f in fields(NightlyConfig)} & {f.name for f in fields(ScoreConfig)} - {
        "date"
    }
    values: dict[str, Any] = {
        name: value for name, value in asdict(config).items() if name in shared
    }
    # Without `_SUCCESS` nothing in the folder is valid. So a half-done scoring by an earlier model,
    # or of data that has been repaired since, is replaced.
    return ScoreConfig(**values, date=day, overwrite=True)


def _look_after(config: ScoreConfig, score: Callable[[ScoreConfig], object]) -> Night:
    day = config.date or ""  # the configuration of a night always has a date
    try:
        metrics = _metrics_of(config, score)
    except NrmsError as error:
        logger.error("%s failed: %s", day, error)
        return Night(day, error=str(error))
    except Exception as error:
        # A bug that shows in one night must not keep the earlier nights from being scored.
        logger.exception("%s failed", day)
        return Night(day, error=repr(error))
    if metrics is None:
        logger.info("%s: no data yet in %s", day, storage.join(config.data, config.split))
    else:
        logger.info("%s: complete, %s", day, config.output)
    return Night(day, metrics=metrics)


def _metrics_of(
    config: ScoreConfig, score: Callable[[ScoreConfig], object]
) -> dict[str, Any] | None:
    """The metrics of a night that is complete, or that is scored now; None where there is nothing
    to score yet.
    """
    found = look(config.output)
    if not found.is_complete(config.verify):
        # A night that was complete and is damaged does not wait for data: it is scored again, and
        # fails where its data has gone.
        if found.success is None and not _has_data(config):
            return None
        score(config)
    return _read_metrics(config)


def _read_metrics(config: ScoreConfig) -> dict[str, Any]:
    """What `metrics.json` says. Raises StorageError where it does not hold metrics."""
    uri = storage.join(config.output, "metrics.json")
    metrics = read_json(storage.read_bytes(uri)) or {}
    if wrong := _wrong(metrics):
        raise StorageError(
            f"{uri}: must hold a night's metrics. Received: "
            f"{wrong}. Delete _SUCCESS beside it and run again."
        )
    return metrics


def _wrong(metrics: dict[str, Any]) -> str | None:
    if "impressions" not in metrics:
        return "no JSON object with impressions"
    for name in (*METRICS, *_COUNTS):
        if not _is_number(value := metrics.get(name, 0)):
            return f"{name} {_shown(value)}"
    shares, ends = metrics.get("joins", {}), metrics.get("auc_interval", [])
    if not isinstance(shares, dict) or not all(map(_is_number, shares.values())):
        return f"joins {_shown(shares)}"
    if not isinstance(ends, list) or not all(map(_is_number, ends)):
        return f"auc_interval {_shown(ends)}"
    texts = metrics.get("warnings", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return f"warnings {str(texts)[:40]!r}"
    return None


def _is_number(value: Any) -> bool:
    """Whether a gauge can show the value."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) < value < 2**63
    )


def _shown(value: Any) -> str:
    try:
        return repr(str(value)[:40])
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        return "a number of thousands of digits"


def _has_data(config: ScoreConfig) -> bool:
    """Whether each part of the split is there and `jobs.prepare` is not still writing it."""
    paths = storage.list_paths(storage.join(config.data, config.split))
    parts_there = all(
        any(path.startswith(part) and path.endswith(".parquet") for path in paths)
        for part in ("behaviors", "history")
    )
    return parts_there and (SUCCESS in paths or MANIFEST not in paths)
