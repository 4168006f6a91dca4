"""The flags of the ranker that reads what happened before, and its registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nrms.architectures.registry import ModelConfig, register
from nrms.config import Count, PositiveInt, Share, option
from nrms.features.context.config import context_input
from nrms.features.inputs import History, Inputs


@dataclass(frozen=True, kw_only=True)
class RankerConfig(ModelConfig):
    """Context ranker"""

    free: ClassVar[frozenset[str]] = frozenset({"ranker_dropout", "feature_dropout"})

    ranker_dim: PositiveInt = option(64, "size of a candidate's vector")
    ranker_blocks: Count = option(2, "blocks of self-attention over the list")
    ranker_heads: PositiveInt = option(4, "attention heads of a block")
    ranker_head_dim: PositiveInt = option(16, "size of a head")
    ranker_hidden: PositiveInt = option(128, "hidden size of a block's feed-forward part")
    ranker_dropout: Share = option(0.15, "share of values dropped in a block")
    feature_dropout: Share = option(0.05, "share of features dropped")
    ranker_gate: bool = option(
        False,
        "above a text model: mix its score in by a gate of the history's length and the article's "
        "age",
    )


def inputs(config: Any) -> Inputs:
    """What it reads: nothing of articles, the features of the moment, and which candidates are in
    the history.
    """
    return Inputs([], History(config.history_size), [context_input(config)])


# The training by which it was measured, see docs/how-to/context.md.
DEFAULTS = {
    "lr": 1.5e-3,
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup": 150,
    "weight_decay": 0.02,
    "clip_norm": 1.0,
    "batch_size": 128,
    "epochs": 5,
    "patience": 5,
}

register(
    "context",
    RankerConfig,
    "nrms.models.context:build",
    inputs=inputs,
    sampler="lists",
    defaults=DEFAULTS,
)
