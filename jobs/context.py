"""Count what happened in a split, as the state that scoring starts from: `python -m jobs.context
--data DATA --output STATE`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NoReturn

from jobs.cli import log_config, run
from nrms.nights.config import StateConfig
from nrms.nights.start import make_state

logger = logging.getLogger("nrms.context")


def main(config: StateConfig) -> None:
    """Writes the state, and says what it knows of."""
    log_config(config)
    state = make_state(config)
    if state is None:
        print("complete already, nothing to do")
    else:
        articles, readers, pairs = (
            f"{len(state.tables[name]):,}" for name in ("articles", "readers", "pairs")
        )
        print(f"{articles} articles, {pairs} pairs of articles, {readers} readers")
    print(f"state: {config.output}")


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.context") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, StateConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
