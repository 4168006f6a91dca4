"""The flags of NAML (Wu et al., IJCAI 2019), and its registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nrms.architectures.registry import register
from nrms.architectures.texts import TextsConfig
from nrms.config import PositiveInt, Share, Text, option
from nrms.features.article_inputs import each_input
from nrms.features.inputs import History, Inputs


@dataclass(frozen=True, kw_only=True)
class NamlConfig(TextsConfig):
    """NAML"""

    free: ClassVar[frozenset[str]] = frozenset({"dropout", "train_word_vectors"})

    article_inputs: Text = option(
        "title,body,category,subcategory",
        "what it reads of an article, each a view, with commas: title, subtitle, body, category, "
        "subcategory, entities, vector",
    )
    word_dim: PositiveInt = option(300, "size of a word vector")
    filters: PositiveInt = option(400, "filters of the convolution: the size of a news vector")
    window: PositiveInt = option(3, "words that a filter sees, an odd number")
    category_dim: PositiveInt = option(100, "size of a category's vector")
    attention_dim: PositiveInt = option(200, "size of the additive attention's hidden layer")
    dropout: Share = option(0.2, "share of values dropped in training")
    train_word_vectors: bool = option(True, "whether training changes the word vectors")


def inputs(config: Any) -> Inputs:
    """What it reads: the views, and histories."""
    return Inputs(each_input(config), History(config.history_size))


register("naml", NamlConfig, "nrms.models.naml:build", inputs=inputs)
