"""Options for the warnings about data sets whose files do not match."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse.typing import ClosedUnitInterval

from nrms.config import option


@dataclass(frozen=True, kw_only=True)
class WarningsConfig:
    """Warnings"""

    max_unknown: ClosedUnitInterval = option(
        0.1,
        "share of candidates, clicks, readers or words that may be unknown beyond that of the "
        "training split",
    )
