"""The flags of NRMS on document vectors, and its registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nrms.architectures.registry import ModelConfig, register
from nrms.config import Count, PositiveInt, Share, option
from nrms.features.inputs import History, Inputs
from nrms.features.vector import Vector


@dataclass(frozen=True, kw_only=True)
class NrmsDocvecConfig(ModelConfig):
    """NRMS on document vectors"""

    free: ClassVar[frozenset[str]] = frozenset({"dropout"})

    hidden_layers: Count = option(3, "dense layers on a document vector")
    hidden_dim: PositiveInt = option(512, "size of each of these layers")
    heads: PositiveInt = option(16, "attention heads of the user encoder")
    head_dim: PositiveInt = option(
        16, "size of a head; heads x head_dim is the size of a news vector"
    )
    attention_dim: PositiveInt = option(200, "size of the additive attention's hidden layer")
    dropout: Share = option(0.2, "share of values dropped in training")


def inputs(config: Any) -> Inputs:
    """What it reads: document vectors, and histories."""
    return Inputs([Vector("vector")], History(config.history_size))


register("nrms_docvec", NrmsDocvecConfig, "nrms.models.nrms_docvec:build", inputs=inputs)
