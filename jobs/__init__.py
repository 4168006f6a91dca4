"""The commands, a module each: `.venv/bin/python -m jobs.train`."""

import importlib.util
import sys

# Before any of them is imported: a traceback about the first package that is missing says nothing to whoever forgot the
# environment.
_missing = [name for name in ("jsonargparse", "pyarrow", "filelock") if importlib.util.find_spec(name) is None]
if _missing:
    print(
        "error: a job must run in the environment that holds its packages. Received: "
        + sys.executable
        + ", without "
        + ", ".join(_missing)
        + ". Run .venv/bin/python -m jobs... instead; `make demo` makes .venv.",
        file=sys.stderr,
    )
    sys.exit(2)
