"""For orchestrators and monitoring: `/livez`, `/readyz`, `/info`, `/metrics`."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.admission import knows_key
from api.deps import ApiKey, CurrentService, not_ready
from api.errors import responses
from api.schemas import Info, Status
from api.settings import LimitSettings
from api.uploads.contract import UPLOAD
from nrms.data.schema import ARTICLES, EXPECTED, HISTORY, Column
from nrms.events.event import EVENTS

router = APIRouter(tags=["service"])


@router.get("/livez")
async def livez() -> Status:
    """Whether the process answers."""
    return Status(status="ok")


@router.get("/readyz", responses=responses(503))
async def readyz(request: Request, service: CurrentService) -> Status:
    """Whether a model is loaded and has scored a first batch."""
    if service.served is None:
        settings = service.settings
        key = request.headers.get("X-API-Key", "").encode("latin-1")
        raise not_ready(service, tell=settings.public_metrics or knows_key(settings, key))
    return Status(status="ready")


@router.get("/info", responses=responses(401), dependencies=[ApiKey])
async def info(service: CurrentService) -> Info:
    """Which model and articles are served, what an upload must look like, and the limits."""
    served = service.served
    model = articles = None
    if served is not None:
        bundle = served.bundle
        config = bundle.meta.get("config", {})
        model = {
            "version": bundle.version,
            "sha256": bundle.sha256,
            "uri": bundle.uri,
            "trained_at": bundle.meta.get("trained_at"),
            "metrics": bundle.meta.get("metrics"),
            "reads_past": served.model.inputs.past is not None,
            **{name: config.get(name) for name in ("model", "history_size", "title_size")},
        }
        articles = {
            "uri": served.articles_file.uri,
            "generation": served.articles_file.generation,
            "articles": len(served.articles),
        }
    files = {"file": UPLOAD, "history": HISTORY, "articles": ARTICLES, "events": EVENTS}
    return Info(
        asks_for_key=service.settings.api_key is not None,
        model=model,
        articles=articles,
        reload_error=service.error,
        contract={
            name: [_described(column) for column in columns] for name, columns in files.items()
        },
        limits={
            field.name: getattr(service.settings, field.name) for field in fields(LimitSettings)
        },
        started=service.started,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **responses(401)},
    dependencies=[ApiKey],
)
async def metrics(service: CurrentService) -> Response:
    """Counters, gauges and histograms in Prometheus' format."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _described(column: Column) -> dict[str, Any]:
    described = asdict(column)
    return {"name": described["name"], "type": EXPECTED[column.kind], "required": column.required}
