"""Fastformer (Wu et al., arXiv:2108.09084) in both encoders, as its authors recommend news with it
(section 4.1), with one layer of attention in each.
"""

from __future__ import annotations

from nrms.architectures.fastformer import FastformerConfig
from nrms.features.inputs import Inputs
from nrms.models import nrms
from nrms.models.two_tower import TwoTower


def build(config: FastformerConfig, inputs: Inputs, dtype: str) -> TwoTower:
    """See `nrms.models.build.build_model`."""
    return nrms.build(config, inputs, dtype, between="fast")
