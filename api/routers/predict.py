"""`POST /predict` and `POST /predict/json`: an upload in, scores out."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, Request, UploadFile
from fastapi.responses import Response

from api.answers.bounded_file import AnswerFile
from api.answers.response import respond
from api.answers.summary import summarize
from api.answers.why import why
from api.deps import ApiKey, CurrentService, model_of
from api.errors import ErrorDetail, Refusal, responses, upload_refusals
from api.record import record
from api.schemas import AnswerOptions, PredictIn, PredictOut, ShortAnswerOptions
from api.served_model import ServedModel
from api.service import Service
from api.stage_timing import StageTiming
from api.uploads.body import JSON_PATH
from api.uploads.contract import ARTICLES_FILE, FILE, HISTORY_FILE
from api.uploads.forms import FormUpload
from api.uploads.json_rows import JsonUpload
from api.worker_queue import ClientLeft, run_in_turn
from nrms.features.context.state import State
from nrms.storage.scratch import scratch_folder

router = APIRouter(tags=["predict"], dependencies=[ApiKey])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": PredictOut,
        "description": "The scored upload. Headers: X-Model-Version, X-Request-Id, X-Taken and "
        "X-Context (as `taken` and `context`).",
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
    service: CurrentService,
    options: Annotated[AnswerOptions, Query()],
    file: Annotated[UploadFile, File(description="behaviours in the contract, Parquet")],
    history: Annotated[
        UploadFile | None,
        File(description="histories, Parquet; leave out where the rows have `article_id_fixed`"),
    ] = None,
    articles: Annotated[
        UploadFile | None,
        File(description="`article_id` and `title` of articles that the catalogue lacks, Parquet"),
    ] = None,
) -> Response:
    """Scores a Parquet file of impressions.

    The columns are those of the nightly job's behaviours files; `/info` lists them. The scores are
    the nightly job's.
    """
    model = model_of(service)
    files = {FILE: file, HISTORY_FILE: history, ARTICLES_FILE: articles}
    upload = FormUpload(files, service.decoders, model.string_ids)
    return await _in_turn(request, service, model, upload, options)


@router.post(JSON_PATH, responses=_ANSWERS)
async def predict_json(
    request: Request,
    service: CurrentService,
    options: Annotated[ShortAnswerOptions, Query()],
    body: PredictIn,
) -> Response:
    """Scores a few impressions that come as JSON, each with its reader's history."""
    return await _in_turn(request, service, model_of(service), JsonUpload(body), options)


async def _in_turn(
    request: Request,
    service: Service,
    model: ServedModel,
    upload: FormUpload | JsonUpload,
    options: AnswerOptions,
) -> Response:
    timing = StageTiming(request.state.started)
    timing.mark("upload")
    work = partial(_score, service, model, upload, options, timing)
    try:
        return await run_in_turn(request, service.limiter, work)
    except ClientLeft:
        return Response(status_code=499)  # nobody reads it


def _score(
    service: Service,
    model: ServedModel,
    upload: FormUpload | JsonUpload,
    options: AnswerOptions,
    timing: StageTiming,
) -> Response:
    """The steps from an upload to its answer, in a worker's thread."""
    timing.mark("queue")
    request_id = uuid.uuid4().hex
    with upload_refusals():
        with scratch_folder(service.scratch) as folder:
            body_sha256 = upload.save(folder)
            decoded = upload.decode(folder)
            timing.mark("decode")
            live = _live(service, model, options)
            warnings = decoded.warnings
            if options.past == "live" and model.model.inputs.past is None:
                warnings = [*warnings, "past=live: the model reads no past, so nothing changes"]
            scored = model.score(folder, decoded.row_histories, warnings, live)
            timing.mark("score")
            explained = why(model, scored, options)
        summary = summarize(scored)
        file = AnswerFile(service.scratch, service.settings.max_answer_bytes)
        answer = respond(
            file, request_id, model.bundle, decoded.taken, scored, summary, options, explained
        )
        timing.mark("respond")
        version, seconds = model.bundle.version, timing.seconds
        record(service, request_id, version, body_sha256, summary, scored.joins, seconds)
    return answer


def _live(service: Service, model: ServedModel, options: AnswerOptions) -> State | None:
    """What has happened, where the model reads it and the client asked for it.

    Raises:
        Refusal: it is not known.
    """
    past = model.model.inputs.past
    if past is None or options.past != "live":
        return None
    if service.live is None:
        detail = ErrorDetail(
            rule="The service must be started with EVENTS=true to score with past=live.",
            received="EVENTS is not set",
            where="query",
            todo="Leave out past=live, or ask whoever runs the service.",
        )
        raise Refusal(422, "events_off", detail)
    state = service.live.state(past.rules)
    if state is None:
        detail = ErrorDetail(
            rule="The service must know what has happened.",
            received="not yet",
            where="service",
            todo="Try again; if it stays so, tell whoever runs the service: its log says why.",
        )
        raise Refusal(503, "not_ready", detail, retry_after=1)
    return state
