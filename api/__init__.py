"""The service: `.venv/bin/python -m api`."""

from nrms import environment

environment.require(
    ("fastapi", "pyarrow", "uvicorn"),
    "the service",
    "Run `make api`, which installs them, or pip install '.[api]'.",
)
