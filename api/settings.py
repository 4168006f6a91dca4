"""The settings of the service: environment variables with the names of the fields in capitals."""

from __future__ import annotations

from dataclasses import dataclass

from nrms.config import PositiveFloat, PositiveInt, Text, option, required
from nrms.data.config import WarningsConfig
from nrms.events import address

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Model and articles"""

    model_uri: Text = required(
        "a version's folder, or a model root, whose latest version is followed"
    )
    articles_uri: Text | None = option(
        None, "articles.parquet; not set: the file that the model was trained with"
    )
    article_vectors: Text | None = option(
        None,
        "folder or gs:// URI that keeps article vectors; not set: article_vectors beside the "
        "model's version",
    )
    reload_seconds: PositiveFloat = option(
        30.0, "seconds between two looks at latest.json and articles.parquet"
    )


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits"""

    max_body_bytes: PositiveInt = option(64 * MIB, "bytes of a request's body")
    max_json_bytes: PositiveInt = option(
        4 * MIB, "bytes of a body of JSON, which takes many times as much when read"
    )
    max_impressions: PositiveInt = option(500_000, "impressions in one upload")
    max_candidates: PositiveInt = option(10_000, "candidates in one impression")
    max_entries: PositiveInt = option(
        10_000_000, "candidates, clicks and history entries in one upload"
    )
    max_articles: PositiveInt = option(100_000, "articles in one upload")
    max_events: PositiveInt = option(
        10_000, "events in one request, with a hundred times as many candidates and clicks"
    )
    decode_memory_bytes: PositiveInt = option(1024 * MIB, "memory for reading one upload's Parquet")
    decode_seconds: PositiveFloat = option(20.0, "time for reading one upload's Parquet")
    max_answer_bytes: PositiveInt = option(128 * MIB, "bytes of an answer")
    upload_seconds: PositiveFloat = option(60.0, "time for a request's body to arrive")
    answer_seconds: PositiveFloat = option(
        60.0, "time for an answer to be taken by a client that does not keep up"
    )
    head_seconds: PositiveFloat = option(10.0, "time for a request's head to arrive")
    max_connections: PositiveInt = option(
        1_000, "connections at once; fewer where the limit of open files is lower"
    )
    workers: PositiveInt = option(2, "requests that are scored at once")
    queue_size: PositiveInt = option(
        8, "requests that arrive or wait beside these; more are answered 429"
    )
    events_queue: PositiveInt = option(
        32, "requests with events that arrive or wait at once; more are answered 429"
    )


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Address, access and log"""

    host: Text = option("127.0.0.1", "address that is listened at")
    port: PositiveInt = option(8000, "port that is listened at")
    stop_seconds: PositiveFloat = option(
        30.0, "time for requests in flight to be answered after SIGTERM"
    )
    api_key: Text | None = option(None, "key that X-API-Key must carry; not set: none is asked for")
    public_metrics: bool = option(
        False, "whether /info and /metrics ask for no key where the others do"
    )
    prediction_log: Text | None = option(
        None, "folder or gs:// URI for counts and timings of requests; not set: none"
    )
    prediction_log_seconds: PositiveFloat = option(
        60.0, "seconds between two files of the prediction log"
    )


@dataclass(frozen=True, kw_only=True)
class EventSettings:
    """Events"""

    events: bool = option(False, "whether POST /events takes what readers see and click")
    events_url: Text = option(
        address.DEFAULT,
        "where they are kept: sqlite:///PATH, a file that outlives the service, or redis://HOST, "
        "for several services",
    )
    events_keep_hours: PositiveFloat = option(
        48.0,
        "hours for which an event that is sent again is known, and an impression waits for late "
        "clicks; older events are refused",
    )
    events_ahead_seconds: PositiveFloat = option(
        300.0, "seconds that the time of an event may be in the future"
    )
    context_uri: Text | None = option(
        None,
        "folder or gs:// URI that keeps what the service has counted of the events; not set: "
        "beside the file of EVENTS_URL",
    )
    context_save_seconds: PositiveFloat = option(
        300.0, "seconds after which that is saved, and the log forgets what is older than it keeps"
    )
    context_max_keys: PositiveInt = option(
        2_000_000,
        "articles, readers and pairs of them that are counted at most, about 250 bytes each; the "
        "least recent ones are dropped",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings, LimitSettings, EventSettings, ServiceSettings, WarningsConfig):
    """Everything that the service depends on."""
