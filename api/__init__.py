"""The service: `.venv/bin/python -m api`."""

import importlib.util
import sys

# As in `jobs`, with which it shares no code.
_missing = [name for name in ("fastapi", "pyarrow", "uvicorn") if importlib.util.find_spec(name) is None]
if _missing:
    print(  # noqa: T201  as every job does
        "error: the service must run in the environment that holds its packages. Received: "
        + sys.executable
        + ", without "
        + ", ".join(_missing)
        + ". Run .venv/bin/python -m api instead; `make api` makes .venv.",
        file=sys.stderr,
    )
    sys.exit(2)
