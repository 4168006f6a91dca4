"""What requests and answers look like, for the OpenAPI document and for whoever reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from api.uploads.contract import ID_LENGTH, TITLE_LENGTH

Id = (
    Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
    | Annotated[StrictStr, Field(max_length=ID_LENGTH)]
)
Title = Annotated[str, Field(max_length=TITLE_LENGTH)]


class Article(BaseModel):
    """An article that the catalogue lacks."""

    model_config = ConfigDict(extra="forbid")

    article_id: Id = Field(examples=[9999999])
    title: Title = Field(examples=["Local team wins the cup"])


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise PydanticCustomError("time", "Input must be a text, such as 2026-05-01T12:00:00Z")
    return value


class ImpressionIn(BaseModel):
    """One impression: what a reader was shown."""

    model_config = ConfigDict(extra="forbid")

    impression_id: Id = Field(examples=[1])
    user_id: Id = Field(default="", examples=["u1"])
    article_ids_inview: list[Id] = Field(max_length=10_000, examples=[[9500016, 9500050]])
    article_id_fixed: list[Id] = Field(
        default=[],
        max_length=10_000,
        description="the reader's clicks before, oldest first",
        examples=[[9500009]],
    )
    article_ids_clicked: list[Id] | None = Field(
        default=None, max_length=10_000, examples=[[9500050]]
    )
    impression_time: Annotated[datetime, BeforeValidator(_text)] | None = Field(
        default=None,
        description="when it was shown, UTC unless it says otherwise; left out: now. Only a model "
        "that reads what happened before asks for it, and for the next two",
        examples=[None],
    )
    article_id: Id | None = Field(
        default=None,
        description="the article on whose page the list stood; left out: the front page",
        examples=[None],
    )
    device_type: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = Field(
        default=None, examples=[2]
    )


class PredictIn(BaseModel):
    """A few impressions."""

    model_config = ConfigDict(extra="forbid")

    impressions: list[ImpressionIn] = Field(min_length=1, max_length=1_000)
    articles: list[Article] = Field(
        default=[], max_length=1_000, description="articles that the catalogue lacks"
    )


class EventIn(BaseModel):
    """One event: an impression, or clicks on an earlier impression, which have `impression_id`,
    `article_ids_clicked` and, where wanted, `event_id`.
    """

    model_config = ConfigDict(extra="forbid")

    event_id: Id | None = Field(
        default=None,
        description="stands for this event, however often it is sent; left out, one follows from "
        "the content",
        examples=["page-1-4711"],
    )
    impression_id: Id = Field(examples=[4711])
    user_id: Id | None = Field(default=None, description="the reader", examples=[1])
    impression_time: Annotated[datetime, Field(strict=True)] | None = Field(
        default=None, description="when it was shown; UTC unless it says otherwise"
    )
    article_ids_inview: list[Id] | None = Field(
        default=None, description="what was shown; without it, this is a late click"
    )
    article_ids_clicked: list[Id] | None = Field(
        default=None, description="what was clicked; null where that is not known"
    )
    article_id: Id | None = Field(
        default=None, description="the article on whose page the list stood; null: the front page"
    )
    device_type: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = Field(
        default=None, examples=[2]
    )


class EventsOut(BaseModel):
    """What became of a request's events, all of which are durable."""

    accepted: int = Field(description="events that are new")
    repeated: int = Field(description="events that were known already, and change nothing")
    position: int = Field(description="the end of the log after them")
    warnings: list[str] | None = Field(
        default=None, description="columns that were most likely meant; absent when there are none"
    )


class AnswerOptions(BaseModel):
    """What a client can ask for in the query."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "parquet"] = Field(
        default="json",
        description="json: counts, metrics and the first rows; parquet: all predictions",
    )
    max_rows: int = Field(
        default=100, ge=0, le=10_000, description="rows in a JSON answer, at most"
    )
    titles: bool = Field(
        default=False, description="whether the rows of a JSON answer carry the candidates' titles"
    )
    summary: bool = Field(
        default=True, description="whether a JSON answer carries the histogram of the scores"
    )
    past: Literal["rows", "live"] = Field(
        default="rows",
        description="what a model that reads the past knows of it: rows: what happened until it "
        "was trained, and the earlier rows; live: all events that the service has taken, and no "
        "row",
    )
    explain_row: int | None = Field(
        default=None,
        ge=0,
        description="the impression, from 0, of a candidate whose score is to be explained in a "
        "JSON answer; for a model that reads the past",
    )
    explain_candidate: int | None = Field(
        default=None, ge=0, description="the candidate, from 0, in the order of the impression"
    )


class ShortAnswerOptions(AnswerOptions):
    """The same for a few impressions."""

    max_rows: int = Field(
        default=1_000, ge=0, le=10_000, description="rows in a JSON answer, at most"
    )
    summary: bool = Field(
        default=False, description="whether a JSON answer carries the histogram of the scores"
    )


class ModelOut(BaseModel):
    """The version that scored."""

    version: str = Field(examples=["20260101T021500Z-5f0c9a1e"])
    sha256: str = Field(description="of its meta.json, and through it of everything in it")


class Counts(BaseModel):
    """What was in the upload."""

    impressions: int
    candidates: int
    unknown_articles: int = Field(
        description="candidates that neither catalogue nor upload has: they get their "
        "impression's mean score"
    )
    empty_histories: int = Field(description="impressions of readers of whom nothing is known")
    skipped_one_class: int | None = Field(
        default=None,
        description="labelled impressions with only clicks or only non-clicks: metrics leave "
        "them out",
    )
    handled: dict[str, int] = Field(
        description="what was read in another way than it came, as the nightly job counts it"
    )


class BaselineMetrics(BaseModel):
    """Means over the labelled impressions."""

    auc: float
    mrr: float
    ndcg_at_5: float = Field(alias="ndcg@5")
    ndcg_at_10: float = Field(alias="ndcg@10")


class RankingMetrics(BaselineMetrics):
    """Those of the model."""

    baselines: dict[str, BaselineMetrics] | None = Field(
        default=None,
        description="where impressions have times: `popularity`, the clicks of the 24 hours "
        "before in this upload",
    )


class Histogram(BaseModel):
    """How the scores are spread."""

    edges: list[float] = Field(description="of the bins, one more than there are bins")
    all: list[int]
    clicked: list[int] | None = None
    not_clicked: list[int] | None = None
    outside: list[int] | None = Field(
        default=None,
        description="scores below and above all edges, which count in the outermost bins; absent "
        "if none",
    )


class Row(BaseModel):
    """One scored impression; lists in the order of `article_ids_inview`."""

    impression_id: int | str
    user_id: int | str
    article_ids_inview: list[int | str]
    scores: list[float]
    ranks: list[int] = Field(description="1 = best")
    article_ids_clicked: list[int | str | None] | None = None
    titles: list[str | None] | None = Field(
        default=None, description="with `titles=true`; null for an unknown article"
    )


class Reason(BaseModel):
    """What one thing that the model knows does to a candidate's score."""

    feature: str = Field(examples=["clicked_4h"])
    words: str = Field(examples=["how often it was clicked, the last hours"])
    value: float
    mean: float = Field(description="over the candidates of the list")
    change: float = Field(
        description="the score less the one that the candidate would have with the mean"
    )


class Why(BaseModel):
    """Why a candidate has its score."""

    row: int = Field(description="as asked, `explain_row`")
    candidate: int = Field(description="as asked, `explain_candidate`")
    reasons: list[Reason] = Field(description="the three that move it most, the greatest first")


class PredictOut(BaseModel):
    """A scored upload."""

    model: ModelOut
    counts: Counts
    metrics: RankingMetrics | None = Field(
        default=None, description="absent when nothing is labelled"
    )
    joins: dict[str, float] = Field(
        description="shares of what joins nothing: unknown_candidates, unknown_history, "
        "unknown_clicks, readers_without_history, "
        "unknown_words; absent where there is nothing to join"
    )
    warnings: list[str] | None = Field(
        default=None, description="why the scores may be wrong; absent when nothing says so"
    )
    context: Literal["fresh", "stale"] | None = Field(
        default=None,
        description="with `past=live`, whether the newest event that is known is at most two "
        "minutes older than the newest impression; absent where the model reads no past",
    )
    score_histogram: Histogram | None = Field(
        default=None, description="absent with `summary=false`"
    )
    why: Why | None = Field(default=None, description="with `explain_row` and `explain_candidate`")
    taken: dict[str, str] | None = Field(
        default=None,
        description="which file was taken for what, where its columns say something else "
        "than the name it came under",
        examples=[{"file": "history", "history": "file"}],
    )
    rows: list[Row] = Field(
        description="the first `max_rows` impressions, in the order of the upload"
    )
    rows_total: int
    truncated: bool = Field(
        description="whether there are more rows than these; format=parquet gives all"
    )


class Info(BaseModel):
    """What is served."""

    asks_for_key: bool = Field(description="whether scoring needs X-API-Key")
    model: dict[str, Any] | None = Field(
        description="version, sha256, uri, trained_at, metrics, sizes, and whether it `reads_past`"
    )
    articles: dict[str, Any] | None = Field(description="uri, generation and number of articles")
    reload_error: str | None = Field(
        description="why no model, or not the newest model and articles, are served"
    )
    contract: dict[str, list[dict[str, Any]]] = Field(description="the columns of each file")
    limits: dict[str, int | float]
    started: datetime


class Status(BaseModel):
    """One word."""

    status: str = Field(examples=["ok"])
