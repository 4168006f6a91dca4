"""The service: `uvicorn --factory api.app:create_app`. Assembly only."""

from __future__ import annotations

import logging
import os
import signal
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
from nrms import logs
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
            print("error:", " ".join(str(error).split()), file=sys.stderr)  # noqa: T201  as every job does
            sys.exit(2)
        _log()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()
        # uvicorn then sends itself the signal that it has obeyed, and an orderly end would look like a violent one.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    app = FastAPIOffline(
        title="News recommender",
        description=_DESCRIPTION,
        version="1",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    for router in (predict.router, health.router, page.router):
        app.include_router(router)
    add_handlers(app)

    app.add_middleware(Admission, settings=settings, service=service)
    return app


def _log() -> None:
    """One log for all, uvicorn's lines too; not those of each request, which /metrics counts."""
    logs.to_stderr()
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name == "uvicorn"
