"""One command with a verb: `nrms train` where the project is installed, `python -m jobs train` in
its folder. Each verb is the job of that name, and `serve` is `python -m api`.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from nrms import __version__


class Verb(NamedTuple):
    """What a verb starts: `command(argv, prog)` of a module."""

    module: str
    line: str


# In the order in which a user meets them. Modules are given by name, so that only the one asked for
# is imported, and jobs do not depend on the service.
VERBS = {
    "prepare": Verb("jobs.prepare", "bring data into the Parquet contract, or make some up"),
    "train": Verb("jobs.train", "train a recommender and publish it"),
    "score": Verb("jobs.score", "score the impressions of a split, or of one night"),
    "context": Verb("jobs.context", "count what happened, as the state that scoring starts from"),
    "nightly": Verb("jobs.nightly", "score the nights that are due"),
    "compare": Verb("jobs.compare", "say which of two predictions ranks better, and where"),
    "sweep": Verb("jobs.sweep", "search for hyperparameters"),
    "serve": Verb("api.__main__", "score uploads on demand: the service and its page"),
    "bench": Verb("jobs.bench.__main__", "measure speed and memory"),
}
# What other programs call these verbs, if the name is too different to be recognized.
_SYNONYMS = {
    "api": "serve",
    "convert": "prepare",
    "diff": "compare",
    "fit": "train",
    "import": "prepare",
    "predict": "score",
    "tune": "sweep",
}


def main(argv: Sequence[str] | None = None, prog: str = "nrms") -> NoReturn:
    """Hands over to the verb's command, which ends the process.

    Args:
        argv: the verb and its flags; None for the arguments of this process.
        prog: the command, for `--help` and errors.
    """
    verb, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(_help(prog))
        sys.exit(0)
    if verb == "--version":
        print(f"nrms {__version__}")
        sys.exit(0)
    if verb not in VERBS:
        near = [_SYNONYMS.get(verb), *difflib.get_close_matches(verb, VERBS, n=1)]
        meant = next((f"Did you mean {name}? " for name in near if name), "")
        print(
            f"error: {prog} must be followed by a verb. Received: {verb!a}. "
            f"{meant}See {prog} --help.",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        module = importlib.import_module(VERBS[verb].module)
    except ModuleNotFoundError as error:
        if error.name != "api":
            raise
        print(
            f"error: {prog} serve needs the folder api beside jobs. Received: a place without it, "
            "such as the image of the jobs. Run it in the service's image, or install nrms[api].",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(module.command(flags, f"{prog} {verb}"))


def _help(prog: str) -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            f"usage: {prog} VERB [--FLAG VALUE ...]",
            "",
            "Train a news recommender, score every night with it, and serve it.",
            "",
            *(f"  {name:<{width}}  {verb.line}" for name, verb in VERBS.items()),
            "",
            f"{prog} VERB --help lists the flags of a verb, {prog} --version the release.",
        ]
    )


if __name__ == "__main__":
    main(prog="python -m jobs")
