"""The flags of what happened before, and of the ranker that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import restricted_number_type

from nrms.config import Count, PositiveInt, Share, Text, option
from nrms.errors import ConfigError
from nrms.features.context.features import GROUPS
from nrms.features.context.input import Context

if TYPE_CHECKING:
    Seconds = float
else:
    Seconds = restricted_number_type(
        "Seconds", float, [(">=", 0), ("<", 1e6)], docstring="seconds, a number >= 0"
    )


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """Context, what happened before an impression: --model context, or --context true"""

    context: bool = option(False, "rank by what happened before as well, on the scores of --model")
    context_training: Literal["joint", "stages"] = option(
        "joint",
        "with --context true: the text model and the ranker at once; or the text model first, then "
        "the ranker on later clicks",
    )
    text_share: Share = option(
        0.6, "share of the training split's time that the text model trains on, in stages"
    )
    context_config: Path | None = option(
        None, "with --context true: TOML file with flags of the ranker, those of --model context"
    )
    event_delay: Seconds = option(
        60.0, "seconds until what happened counts for articles and pairs of them"
    )
    reader_delay: Seconds = option(0.0, "seconds until it counts for its own reader")
    reader_state: bool = option(True, "whether anything is kept of single readers")
    context_clicks: bool = option(
        True, "whether clicks count, or only what was shown, for splits without labels"
    )
    context_days: Count = option(
        0, "days at the start of the training split that count but are not trained on"
    )
    context_without: Text | None = option(
        None, "groups of features that are left out, with commas: pairs, counters, together, ..."
    )
    max_list: PositiveInt = option(
        256, "longest list whose candidates are all compared with each other"
    )

    @property
    def joint(self) -> bool:
        """Whether a text model and the ranker above it are trained at once."""
        return self.context and self.context_training == "joint"

    @property
    def staged(self) -> bool:
        """Whether the ranker is trained after the text model below it."""
        return self.context and self.context_training == "stages"


def context_input(config: Any) -> Context:
    """What the ranker reads, not fitted, of a configuration with the flags above. Raises
    ConfigError: --context-without names a group that is not there.
    """
    without = [name for name in (config.context_without or "").replace(" ", "").split(",") if name]
    unknown = [name for name in without if name not in GROUPS]
    if unknown:
        raise ConfigError(
            f"--context-without must name groups of {', '.join(GROUPS)}. Received: {unknown[0]}."
        )
    return Context(
        config.event_delay,
        config.reader_delay,
        config.reader_state,
        config.context_clicks,
        config.max_list,
        without=without,
    )
