"""`POST /predict` and `POST /predict/json`: an upload in, scores out."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import pyarrow as pa
from fastapi import APIRouter, File, Query, Request, Security, UploadFile
from fastapi.responses import Response
from fastapi.security import APIKeyHeader

from api import results
from api.admission import JSON_PATH
from api.answer import AnswerFile, FileAnswer
from api.errors import ErrorDetail, Refusal, contract_refusal, responses, unavailable
from api.metrics import Metrics
from api.prediction_log import Record
from api.schemas import PredictIn, PredictOut
from api.served_model import ServedModel
from api.service import Service
from api.uploads.decoder_pool import DecoderUnavailable
from api.uploads.decoder_process import ARTICLES_FILE, FILE, HISTORY_FILE, Task, write_rows
from nrms.data.joins import Joins
from nrms.errors import SchemaError, StorageError
from nrms.storage.scratch import scratch_folder

api_key = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="asked for where the service was given API_KEY"
)

# Puts an upload into a folder as api.uploads.decoder_process leaves it. Gives what its `decode`
# gives, and the SHA-256 of what came.
Read = Callable[[Path, ServedModel], tuple[dict[str, Any], str]]


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return request.app.state.service


# checked at the door, shown here
router = APIRouter(tags=["predict"], dependencies=[Security(api_key)])

Format = Annotated[
    Literal["json", "parquet"],
    Query(description="json: counts, metrics and the first rows; parquet: all predictions"),
]
MaxRows = Annotated[int, Query(ge=0, le=10_000, description="rows in a JSON answer, at most")]
Titles = Annotated[
    bool, Query(description="whether the rows of a JSON answer carry the candidates' titles")
]
Summary = Annotated[
    bool, Query(description="whether a JSON answer carries the histogram of the scores")
]
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": PredictOut,
        "description": "The scored upload. Headers: X-Model-Version, X-Request-Id, X-Taken (as "
        "`taken`).",
        "content": {
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}}
        },
    },
    **responses(400, 401, 408, 413, 422, 429, 500, 503),
}


@router.post("/predict", responses=_ANSWERS)
@router.post("/predict/", include_in_schema=False)
async def predict(
    request: Request,
    file: Annotated[UploadFile, File(description="behaviours in the contract, Parquet")],
    history: Annotated[
        UploadFile | None,
        File(description="histories, Parquet; leave out where the rows have `article_id_fixed`"),
    ] = None,
    articles: Annotated[
        UploadFile | None,
        File(description="`article_id` and `title` of articles that the catalogue lacks, Parquet"),
    ] = None,
    format: Format = "json",
    max_rows: MaxRows = 100,
    titles: Titles = False,
    summary: Summary = True,
) -> Response:
    """Scores a Parquet file of impressions.

    The columns are those of the nightly job's behaviours files; `/info` lists them. The scores are
    the nightly job's.
    """
    files = {FILE: file, HISTORY_FILE: history, ARTICLES_FILE: articles}

    def read(folder: Path, served: ServedModel) -> tuple[dict[str, Any], str]:
        body = hashlib.sha256()
        for name, upload in files.items():
            if upload is not None:
                with (folder / name).open("wb") as target:
                    while chunk := upload.file.read(1 << 20):
                        target.write(chunk)
                        body.update(chunk)
        settings = service_of(request).settings
        task = Task(
            folder=str(folder),
            strings=pa.types.is_string(served.articles.ids.type),
            max_impressions=settings.max_impressions,
            max_candidates=settings.max_candidates,
            max_entries=settings.max_entries,
            max_articles=settings.max_articles,
            memory_bytes=settings.decode_memory_bytes,
            seconds=settings.decode_seconds,
        )
        return service_of(request).decoders.decode(task), body.hexdigest()

    return await _answer(request, read, format, max_rows, titles, summary)


@router.post(JSON_PATH, responses=_ANSWERS)
async def predict_json(
    request: Request,
    body: PredictIn,
    format: Format = "json",
    max_rows: MaxRows = 1_000,
    titles: Titles = False,
    summary: Summary = False,
) -> Response:
    """Scores a few impressions that come as JSON, each with its reader's history."""

    def read(folder: Path, served: ServedModel) -> tuple[dict[str, Any], str]:
        write_rows(
            folder,
            [impression.model_dump() for impression in body.impressions],
            [article.model_dump() for article in body.articles],
        )
        decoded = {"row_histories": True, "taken": {}, "warnings": []}
        return decoded, hashlib.sha256(body.model_dump_json().encode()).hexdigest()

    return await _answer(request, read, format, max_rows, titles, summary)


async def _answer(
    request: Request,
    read: Read,
    format: str,
    max_rows: int,
    titles: bool,
    summary: bool,
) -> Response:
    """Waits for a worker, has the upload read and scored, and answers; a client that leaves gives
    its place back.
    """
    service = service_of(request)
    served = service.served
    if served is None:
        raise not_ready(service)
    timing = _Timing(request.state.started)
    timing.mark("upload")
    answer: list[Response | Refusal] = []

    def work() -> None:
        timing.mark("queue")
        try:
            answer.append(_score(service, served, read, timing, format, max_rows, titles, summary))
        except Refusal as refusal:
            answer.append(refusal)
        except SchemaError as error:
            cause = error.__cause__
            answer.append(
                unavailable(cause) if isinstance(cause, MemoryError) else contract_refusal(error)
            )
        except (DecoderUnavailable, OSError, MemoryError) as error:
            answer.append(unavailable(error))
        except StorageError as error:
            # which says nothing of this machine's folders
            answer.append(unavailable(error.__cause__ or error))

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        async with service.limiter:
            await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
        group.cancel_scope.cancel()
    if not answer:
        return Response(status_code=499)  # the client left while it waited; nobody reads this
    if isinstance(answer[0], Refusal):
        raise answer[0]
    return answer[0]


def _score(
    service: Service,
    served: ServedModel,
    read: Read,
    timing: _Timing,
    format: str,
    max_rows: int,
    titles: bool,
    summary: bool,
) -> Response:
    with scratch_folder(service.scratch) as folder:
        decoded, body_sha256 = read(folder, served)
        timing.mark("decode")
        scored = served.score(folder, decoded["row_histories"], decoded["warnings"])
        timing.mark("score")
    counts, metrics = results.counts_and_metrics(scored)
    histogram = results.histogram(scored)
    bundle = served.bundle
    request_id = uuid.uuid4().hex
    headers = {"X-Model-Version": bundle.version, "X-Request-Id": request_id}
    if taken := decoded["taken"]:
        headers["X-Taken"] = ", ".join(f"{name}={kind}" for name, kind in taken.items())
    file = AnswerFile(service.scratch, service.settings.max_answer_bytes)
    try:
        if format == "parquet":
            results.write_parquet(file, scored)
            headers["Content-Disposition"] = 'attachment; filename="predictions.parquet"'
            response = FileAnswer(file, "application/vnd.apache.parquet", headers)
        else:
            parts = {
                "model": {"version": bundle.version, "sha256": bundle.sha256},
                "counts": counts,
                **({} if metrics is None else {"metrics": metrics}),
                "joins": scored.joins.shares,
                **({"warnings": scored.joins.warnings} if scored.joins.warnings else {}),
                **({"score_histogram": histogram} if summary else {}),
                **({"taken": taken} if taken else {}),
            }
            results.write_json(file, parts, scored, max_rows, titles)
            response = FileAnswer(file, "application/json", headers)
    except BaseException:
        file.close()
        raise
    timing.mark("respond")
    _count(service.metrics, counts, scored.joins, timing)
    service.log.add(
        Record(
            time=datetime.now(UTC),
            request_id=request_id,
            model_version=bundle.version,
            body_sha256=body_sha256,
            impressions=counts["impressions"],
            candidates=counts["candidates"],
            unknown_articles=counts["unknown_articles"],
            empty_histories=counts["empty_histories"],
            seconds=timing.seconds,
            histogram_edges=histogram["edges"],
            histogram=histogram["all"],
        )
    )
    return response


class _Timing:
    """Seconds of the stages of one request, from one mark to the next."""

    def __init__(self, started: float) -> None:
        self._last = started
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Ends a stage."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def _count(metrics: Metrics, counts: dict[str, Any], joins: Joins, timing: _Timing) -> None:
    for stage, seconds in timing.seconds.items():
        metrics.seconds.labels(stage).observe(seconds)
    metrics.impressions.inc(counts["impressions"])
    metrics.candidates.inc(counts["candidates"])
    metrics.unknown_articles.inc(counts["unknown_articles"])
    metrics.empty_histories.inc(counts["empty_histories"])
    metrics.warned.inc(1 if joins.warnings else 0)
    for name, share in joins.shares.items():
        metrics.joins.labels(name).set(share)


def not_ready(service: Service, tell: bool = True) -> Refusal:
    """The refusal while there is no model to serve; with the reason, if that may be told."""
    detail = ErrorDetail(
        rule="A model must be loaded.",
        received=(tell and service.error) or "none yet",
        where="service",
        todo="Try again; if it stays so, correct MODEL_URI or what it points at.",
    )
    return Refusal(503, "not_ready", detail, retry_after=1)
