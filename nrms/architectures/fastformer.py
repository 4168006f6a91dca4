"""The flags of Fastformer (Wu et al., arXiv:2108.09084), and its registration."""

from __future__ import annotations

from dataclasses import dataclass

from nrms.architectures.nrms import NrmsConfig, inputs
from nrms.architectures.registry import register
from nrms.config import PositiveInt, option


@dataclass(frozen=True, kw_only=True)
class FastformerConfig(NrmsConfig):
    """Fastformer"""

    heads: PositiveInt = option(16, "attention heads of each encoder")
    head_dim: PositiveInt = option(
        16, "size of a head; heads x head_dim is the size of a news vector"
    )


register("fastformer", FastformerConfig, "nrms.models.fastformer:build", inputs=inputs)
