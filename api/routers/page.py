"""`GET /`: the page for people."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_PAGE = (Path(__file__).parent.parent / "static" / "index.html").read_text("utf-8")
# The page contains everything it needs, so it may load nothing and be part of no other page.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/")
async def page() -> HTMLResponse:
    """Drop a file, see what the model makes of it."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
