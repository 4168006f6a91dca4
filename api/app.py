"""The service: `uvicorn --factory api.app:create_app`. Assembly only."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.admission import Admission
from api.errors import add_handlers
from api.routers import health, page, predict
from api.service import Service
from api.settings import Settings
from nrms.config import parse_environment
from nrms.errors import ConfigError

_DESCRIPTION = """
Scores impressions with the model that is served: upload a Parquet file of the nightly job's contract, get scores, ranks
and, where clicks are given, AUC, MRR and nDCG. `GET /` is the same as a page.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Puts the service together.

    Args:
        settings: see `api.settings`; None for the environment's, of which a wrong one ends the process with one line.
    """
    if settings is None:
        try:
            settings = parse_environment(Settings, os.environ)
        except ConfigError as error:
            print("error:", error, file=sys.stderr)  # noqa: T201  as every job does
            sys.exit(2)
    logging.getLogger("nrms").setLevel(logging.INFO)
    logging.getLogger("api").setLevel(logging.INFO)
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPIOffline(
        title="News recommender", description=_DESCRIPTION, version="1", redoc_url=None, lifespan=lifespan
    )
    app.state.service = service
    for router in (predict.router, health.router, page.router):
        app.include_router(router)
    add_handlers(app)

    app.add_middleware(Admission, settings=settings, service=service)
    return app
