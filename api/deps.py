"""What routes depend on: the running service, its model, and the key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from api.errors import ErrorDetail, Refusal
from api.served_model import ServedModel
from api.service import Service

# The key is checked at the door, before a body is read; this shows it in the OpenAPI document.
ApiKey = Security(
    APIKeyHeader(
        name="X-API-Key",
        auto_error=False,
        description="asked for where the service was given API_KEY",
    )
)


async def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return request.app.state.service


CurrentService = Annotated[Service, Depends(service_of)]


def model_of(service: Service) -> ServedModel:
    """What a request that begins now is scored with.

    Raises:
        Refusal: there is no model yet.
    """
    if service.served is None:
        raise not_ready(service)
    return service.served


def not_ready(service: Service, tell: bool = True) -> Refusal:
    """The refusal while there is no model to serve; with the reason, if that may be told."""
    detail = ErrorDetail(
        rule="A model must be loaded.",
        received=(tell and service.error) or "none yet",
        where="service",
        todo="Try again; if it stays so, correct MODEL_URI or what it points at.",
    )
    return Refusal(503, "not_ready", detail, retry_after=1)
