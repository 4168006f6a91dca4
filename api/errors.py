"""How the service refuses: one body for every error, and the statuses that it has."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.schemas import AnswerOptions
from api.uploads.decoder_pool import DecoderUnavailable
from nrms.data.mistakes import near_name
from nrms.errors import SchemaError, StorageError


class ErrorDetail(BaseModel):
    """What is wrong, in four parts."""

    rule: str = Field(
        description="what must hold",
        examples=["Column `user_id` (an integer or a string) is required."],
    )
    received: str = Field(description="what arrived", examples=["10 rows of columns impression_id"])
    where: str = Field(
        description="the part of the request: file, history, articles, body, ...", examples=["file"]
    )
    todo: str = Field(description="what to do", examples=["Add or rename the column."])


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


class Refusal(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        reason: short name, for metrics.
        detail: what the body says.
        retry_after: seconds after which another try makes sense, if any.
    """

    def __init__(
        self, status: int, reason: str, detail: ErrorDetail, retry_after: int | None = None
    ) -> None:
        super().__init__(detail.rule)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "ApiKey"
        parts = {name: _line(text) for name, text in self.detail.model_dump().items()}
        return JSONResponse({"error": parts}, self.status, headers)


def _line(text: str) -> str:
    """One line that can be sent and read, whatever the request put into it."""
    text = "".join(character if character.isprintable() else " " for character in text[:1_000])
    return " ".join(text.split()) or "nothing"


def unavailable(error: BaseException) -> Refusal:
    """The refusal of an upload for which this machine has no room, no memory or no process."""
    no_memory = isinstance(error, MemoryError)
    detail = ErrorDetail(
        rule="The service must have room and processes for an upload.",
        received="no memory for it"
        if no_memory
        else str(getattr(error, "strerror", None) or error),
        where="service",
        todo="Try again; if it stays so, tell whoever runs the service.",
    )
    return Refusal(503, "unavailable", detail, retry_after=5)


def contract_refusal(error: SchemaError) -> Refusal:
    """The refusal of an upload that breaks the contract: 422 with the parts of the error, where
    files have the names of the request.
    """
    parts = error.parts or {"rule": str(error), "received": "", "where": "file", "todo": ""}
    folder, _, name = parts["where"].rpartition("/")
    # Histories that came in the rows are read back from a file that the request never had.
    where = {
        "behaviors.parquet": "file",
        "history.parquet": "history",
        "articles.parquet": "articles",
    }.get(name, name)
    clean = {
        key: value.replace(folder + "/", "") if folder else value for key, value in parts.items()
    }
    return Refusal(422, "contract", ErrorDetail(**{**clean, "where": where or "file"}))


@contextmanager
def upload_refusals() -> Iterator[None]:
    """Turns errors of an upload, and those of a machine without room for it, into a Refusal."""
    try:
        yield
    except SchemaError as error:
        cause = error.__cause__
        raise (
            unavailable(cause) if isinstance(cause, MemoryError) else contract_refusal(error)
        ) from error
    except (DecoderUnavailable, OSError, MemoryError) as error:
        raise unavailable(error) from error
    except StorageError as error:
        # Its cause says nothing of this machine's folders.
        raise unavailable(error.__cause__ or error) from error


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses for the OpenAPI document."""
    return {
        status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]} for status in statuses
    }


def _unknown_parameter(where: str) -> ErrorDetail:
    _, _, name = where.partition(".")
    near = near_name(name, AnswerOptions.model_fields)
    return ErrorDetail(
        rule=f"The query may have {', '.join(AnswerOptions.model_fields)}.",
        received=name[:200],
        where="query",
        todo=f"Write {near}." if near else "See /docs for what each of them does.",
    )


_DESCRIPTIONS = {
    400: "The multipart form, or the JSON, could not be read.",
    401: "The key in X-API-Key is missing or wrong.",
    404: "No such page, or one that is turned off.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the limit.",
    415: "The content type is none that is read here.",
    422: "The data break the contract or a limit, or a parameter has no legal value.",
    429: "Too many requests at once; Retry-After says when to come back.",
    500: "A fault of the service, which its log describes.",
    503: "No model is loaded yet, the log of events is not open, or this machine has no room, "
    "memory or process for the upload; try again.",
}


_RULES = {
    400: "The body must be a whole multipart form, or JSON in UTF-8 that is not nested deeply.",
    404: "The path must be one of this service.",
    405: "The path must be asked with a method that it has.",
}


def add_handlers(app: FastAPI) -> None:
    """Gives every error the same body."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        request.app.state.service.metrics.rejections.labels(error.reason).inc()
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        rule, received = first["msg"], first.get("input")
        if first["type"] == "json_invalid":
            where, received = f"body, character {where}", first["ctx"]["error"]
        elif first["type"] == "extra_forbidden" and first["loc"][0] == "query":
            return await refused(request, Refusal(422, "parameters", _unknown_parameter(where)))
        elif first["type"] == "value_error":
            rule, received = f"`{where}` must be a file", "a value"
        elif isinstance(received, bytes):
            rule = "The content type must be application/json"
            received = request.headers.get("content-type", "none")
        elif not isinstance(received, str):
            received = "nothing" if received is None else reprlib.repr(received)
        detail = ErrorDetail(
            rule=f"{rule}.".replace("..", "."),
            received=received[:200],
            where=where[:200] or "body",
            todo="See /docs for what this request takes.",
        )
        return await refused(request, Refusal(422, "parameters", detail))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, OSError | MemoryError):
            # FastAPI answers 400 to whatever goes wrong while it stores the body, even where the
            # disk is full.
            return await refused(request, unavailable(error.__cause__))
        # request.url is built from the Host header, and a hostile one makes it unreadable.
        received = f"{request.method} {request.scope['path']}"
        if error.status_code == 400:
            received = str(error.detail)
        rule = _RULES.get(error.status_code, str(error.detail))
        detail = ErrorDetail(
            rule=rule, received=received, where="request", todo="See /docs for what there is."
        )
        refusal = Refusal(error.status_code, f"http_{error.status_code}", detail)
        request.app.state.service.metrics.rejections.labels(refusal.reason).inc()
        response = refusal.response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(MemoryError)
    async def no_memory(request: Request, error: MemoryError) -> JSONResponse:
        return await refused(request, unavailable(error))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        detail = ErrorDetail(
            rule="The service must answer every request.",
            received=f"a fault of its own ({type(error).__name__})",
            where="service",
            todo="Try again; if it stays so, tell whoever runs the service: its log says more.",
        )
        return await refused(request, Refusal(500, "fault", detail))
