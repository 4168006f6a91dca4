"""The service: `.venv/bin/python -m api`."""

from nrms import environment

environment.require(
    ("fastapi", "pyarrow", "uvicorn"),
    "the service",
    "Run .venv/bin/python -m api instead; `make api` makes .venv. Or install nrms[api].",
)
