"""The flags of NRMS (Wu et al., EMNLP-IJCNLP 2019), and its registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nrms.architectures.registry import register
from nrms.architectures.texts import TextsConfig
from nrms.config import PositiveInt, Share, option
from nrms.features.article_inputs import one_text
from nrms.features.inputs import History, Inputs


@dataclass(frozen=True, kw_only=True)
class NrmsConfig(TextsConfig):
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


def inputs(config: Any) -> Inputs:
    """What it reads: the words of the texts, and histories."""
    return Inputs([one_text(config)], History(config.history_size))


register("nrms", NrmsConfig, "nrms.models.nrms:build", inputs=inputs)
