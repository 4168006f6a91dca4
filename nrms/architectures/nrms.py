"""The flags of NRMS (Wu et al., EMNLP-IJCNLP 2019), and its registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nrms.architectures.registry import ModelConfig, register
from nrms.config import PositiveInt, Share, option


@dataclass(frozen=True, kw_only=True)
class NrmsConfig(ModelConfig):
    """NRMS"""

    free: ClassVar[frozenset[str]] = frozenset({"dropout", "train_word_vectors"})

    word_dim: PositiveInt = option(300, "size of a word vector")
    heads: PositiveInt = option(20, "attention heads of each encoder")
    head_dim: PositiveInt = option(
        20, "size of a head; heads x head_dim is the size of a news vector"
    )
    attention_dim: PositiveInt = option(200, "size of the additive attention's hidden layer")
    dropout: Share = option(0.2, "share of values dropped in training")
    train_word_vectors: bool = option(True, "whether training changes the word vectors")


register("nrms", NrmsConfig, "nrms.models.nrms:build")
