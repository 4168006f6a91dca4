"""`POST /events`: takes what readers saw and clicked, and answers once it is durable."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from api.deps import ApiKey, CurrentService
from api.errors import ErrorDetail, Refusal, responses, upload_refusals
from api.event_intake import EventIntake
from api.schemas import EventIn, EventsOut
from api.service import Service
from api.uploads.body import EVENTS_PATH, PARQUET_TYPE, media_type
from api.uploads.contract import FILE
from api.uploads.event_files import count_rows, read_file
from api.uploads.event_lines import read_lines, split_lines
from api.worker_queue import ClientLeft, run_in_turn
from nrms.data.schema import CLICKS, IN_VIEW, schema_error
from nrms.errors import StorageError
from nrms.events.event import Event, mixed
from nrms.events.log import EventLog
from nrms.events.records import Batch
from nrms.storage.scratch import scratch_folder

router = APIRouter(tags=["events"], dependencies=[ApiKey])

_LINES_TYPE = "application/x-ndjson"
_REFERENCE = "#/components/schemas/"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Every event is durable: neither a crash nor a loss of power takes it."},
    **responses(401, 404, 408, 413, 415, 422, 429, 500, 503),
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            _LINES_TYPE: {"schema": {"type": "string"}},
            PARQUET_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    EVENTS_PATH,
    response_model=EventsOut,
    response_model_exclude_none=True,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def events(request: Request, service: CurrentService) -> EventsOut | Response:
    """Takes impressions and late clicks, and answers once they are durable.

    Each line of JSON is an EventIn: an impression, as in the Parquet contract, or the clicks of an
    earlier one. A Parquet file has the same columns and a row for each, null where a late click has
    nothing. An event that was sent before changes nothing, so whatever got no answer can be sent
    again. One event that breaks a rule refuses the request as a whole, with the place of that
    event.
    """
    try:
        return await _answer(request, service)
    except (ClientDisconnect, ClientLeft):
        return Response(status_code=499)  # nobody reads it


async def _answer(request: Request, service: Service) -> EventsOut:
    try:
        intake, log = _log_of(service)
        kind = media_type(request.scope)
        if kind not in (_LINES_TYPE, PARQUET_TYPE):
            raise _unknown_type(kind)
    except Refusal:
        # A client reads its refusal only when it has sent everything.
        async for _ in request.stream():
            pass
        raise
    reading = _Reading(service, intake)
    try:
        with upload_refusals():
            read = reading.file if kind == PARQUET_TYPE else reading.lines
            batch = await read(request)
            try:
                done = await asyncio.wrap_future(log.submit(batch))
            except StorageError as error:
                raise intake.unavailable(error) from error
    except Refusal:
        intake.metrics.events.labels("refused").inc(reading.count)
        raise
    intake.metrics.count(done, time.perf_counter() - request.state.started)
    if service.live is not None:
        service.live.wake()
    return EventsOut(
        accepted=done.accepted,
        repeated=done.repeated,
        position=done.position,
        warnings=reading.warnings or None,
    )


class _Reading:
    """Reads the body of one request.

    Attributes:
        count: events in it, as far as is known.
        warnings: about its columns.
    """

    def __init__(self, service: Service, intake: EventIntake) -> None:
        self.count = 1
        self.warnings: list[str] = []
        self._service = service
        self._intake = intake

    async def lines(self, request: Request) -> Batch:
        """Of JSON lines. Raises SchemaError."""
        lines = split_lines(await request.body())
        self.count = max(1, len(lines))
        most = self._service.settings.max_events
        if not 0 < len(lines) <= most:
            raise schema_error(
                f"One request may hold 1 to {most:,} events.",
                f"{len(lines):,} lines",
                "body",
                "Send them in several requests." if lines else "Send a line of JSON for each.",
            )
        work = partial(read_lines, lines, self._intake.limits)
        return await anyio.to_thread.run_sync(self._batch, work, limiter=self._intake.limiter)

    async def file(self, request: Request) -> Batch:
        """Of a Parquet file. Raises SchemaError, and what `DecoderPool.decode` raises."""
        with scratch_folder(self._service.scratch) as folder:
            async with await anyio.open_file(folder / FILE, "wb") as target:
                async for piece in request.stream():
                    await target.write(piece)
            return await run_in_turn(request, self._service.limiter, partial(self._decode, folder))

    def _decode(self, folder: Path) -> Batch:
        kind = self._catalogue_type()
        strings = None if kind is None else kind == "string"
        decoded = self._service.decoders.decode(folder, strings, events=True)
        self.warnings, self.count = decoded.warnings, max(1, count_rows(folder))
        return self._batch(partial(read_file, folder, self._intake.limits))

    def _batch(self, read: Callable[[], list[Event]]) -> Batch:
        """The events that `read` gives; article ids of another type than the catalogue's would join
        nothing.
        """
        batch = Batch.of(read())
        kind, articles = self._catalogue_type(), batch.families.get("article")
        if kind is not None and articles is not None and articles[0] != kind:
            raise mixed("article", (kind, "the catalogue"), articles)
        return batch

    def _catalogue_type(self) -> str | None:
        """The type of the catalogue's article ids; None as long as there is no catalogue."""
        served = self._service.served
        return None if served is None else "string" if served.string_ids else "int64"


def described(document: dict[str, Any]) -> dict[str, Any]:
    """Adds to the OpenAPI document what a line of the body is, and an example that can be sent as
    it is: its times are of now.
    """
    schema = EventIn.model_json_schema(ref_template=_REFERENCE + "{model}")
    document["components"]["schemas"]["EventIn"] = schema
    now = datetime.now(UTC)
    impression = {
        "impression_id": int(now.timestamp()),
        "user_id": 1,
        "impression_time": now.isoformat(timespec="seconds"),
        IN_VIEW: [9500016, 9500050, 9500070],
        CLICKS: [9500050],
    }
    click = {"impression_id": impression["impression_id"], CLICKS: [9500070]}
    content = document["paths"][EVENTS_PATH]["post"]["requestBody"]["content"]
    content[_LINES_TYPE]["example"] = f"{json.dumps(impression)}\n{json.dumps(click)}\n"
    return document


def _log_of(service: Service) -> tuple[EventIntake, EventLog]:
    """Where events go.

    Raises:
        Refusal: events are off, or the log could not be opened yet.
    """
    intake = service.events
    if intake is None:
        detail = ErrorDetail(
            rule="The service must be started with EVENTS=true to take events.",
            received="EVENTS is not set",
            where="service",
            todo="Ask whoever runs the service; docs/how-to/events.md says what else it needs.",
        )
        raise Refusal(404, "events_off", detail)
    if intake.log is None:
        raise intake.closed()
    return intake, intake.log


def _unknown_type(kind: str) -> Refusal:
    detail = ErrorDetail(
        rule=f"The content type must be {_LINES_TYPE} or {PARQUET_TYPE}.",
        received=kind or "none",
        where="header Content-Type",
        todo="Say what the body is: curl -H 'Content-Type: ...' --data-binary @file.",
    )
    return Refusal(415, "content_type", detail)
