"""The flags of models that read more of an article than its title."""

from __future__ import annotations

from dataclasses import dataclass

from nrms.architectures.registry import ModelConfig
from nrms.config import PositiveInt, Text, option


@dataclass(frozen=True, kw_only=True)
class TextsConfig(ModelConfig):
    """Texts"""

    article_inputs: Text = option(
        "title", "what it reads of an article, with commas: title, subtitle, body"
    )
    subtitle_size: PositiveInt = option(40, "words of a subtitle that it sees, the first ones")
    body_size: PositiveInt = option(50, "words of a body that it sees, the first ones")
