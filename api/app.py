"""The application that `python -m api` serves. Assembly only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.admission import Admission
from api.errors import add_handlers
from api.routers import events, example, health, page, predict
from api.service import Service
from api.settings import Settings
from api.uploads.forms import allow_long_names

_DESCRIPTION = """
Scores impressions with the model that is served: upload a Parquet file of the nightly job's
contract, get scores, ranks and, where clicks are given, AUC, MRR and nDCG. `GET /` is the same as a
page. Takes what readers see and click.
"""


def create_app(settings: Settings) -> FastAPI:
    """Puts the service together.

    Args:
        settings: see `api.settings`.
    """
    service = Service(settings)
    allow_long_names()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPIOffline(
        title="News recommender",
        description=_DESCRIPTION,
        version="1",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    for router in (predict.router, events.router, example.router, health.router, page.router):
        app.include_router(router)
    add_handlers(app)
    plain = app.openapi
    app.openapi = lambda: events.described(plain())  # type: ignore[method-assign]

    app.add_middleware(Admission, settings=settings, service=service)
    return app
