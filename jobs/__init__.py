"""The commands, a module each: `.venv/bin/python -m jobs.train`."""

from nrms import environment

environment.require(
    ("jsonargparse", "pyarrow", "filelock"),
    "a job",
    "Run .venv/bin/python -m jobs... instead; `make demo` makes .venv.",
)
