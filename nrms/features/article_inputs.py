"""What `--article-inputs` names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nrms.data.schema import VECTORS
from nrms.errors import ConfigError
from nrms.features.category import COLUMNS as CATEGORIES
from nrms.features.category import Category
from nrms.features.inputs import ArticleInput
from nrms.features.text import Text
from nrms.features.title import Title
from nrms.features.vector import Vector

TEXTS = ("title", "subtitle", "body")


def named(text: str, known: Iterable[str]) -> list[str]:
    """The names of a flag's value, without repetition. Raises ConfigError: one is not known to the
    model, or there is none.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    strange = [name for name in names if name not in (known := tuple(known))]
    if strange or not names:
        raise ConfigError(
            f"--article-inputs must be of {', '.join(known)}, with commas. Received: "
            f"{', '.join(strange) or 'none'}."
        )
    return names


def one_text(config: Any) -> Text:
    """The words of all texts that the configuration names, one text after the other."""
    names = named(config.article_inputs, TEXTS)
    if names == ["title"]:
        return Title(config.title_size, config.min_word_count)
    return Text("text", {name: _size(config, name) for name in names}, config.min_word_count)


def each_input(config: Any) -> Sequence[ArticleInput]:
    """An input for each name; the texts share one vocabulary."""
    made: list[ArticleInput] = []
    for name in named(config.article_inputs, (*TEXTS, *CATEGORIES, *VECTORS)):
        if name in TEXTS:
            made.append(Text(name, {name: _size(config, name)}, config.min_word_count))
        else:
            made.append(Category(name) if name in CATEGORIES else Vector(name))
    texts = [one for one in made if isinstance(one, Text)]
    if texts:
        texts[0].share(texts[1:])
    return made


def _size(config: Any, name: str) -> int:
    return getattr(config, f"{name}_size")
