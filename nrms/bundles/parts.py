"""The parts of a version, as its `meta.json` lists them.

`inputs` declares what the model reads (see `nrms.features.inputs`). `graphs` names what a runtime
executes: each graph is a file `<name>.onnx`, and `model.keras` holds all of them. `scoring` says
how scores are made from the graphs. No graph and no file of an input is required by its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from nrms.errors import ArtifactError
from nrms.features.inputs import checked_size

FORMAT = 2  # the releases that wrote format 1 give a graph's inputs other names
LOADED = (1, 2)
META = "meta.json"
KERAS = "model.keras"
PRIOR = "prior.npy"
_NAME = re.compile(r"\w[\w.-]*")  # a name and not a path
# The files of a version in the first releases, which had NRMS on titles alone and listed no parts.
_TOKENIZER = "tokenizer.json"
FIRST_RELEASE = (KERAS, "news_encoder.onnx", "user_encoder.onnx", _TOKENIZER)


@dataclass(frozen=True)
class Parts:
    """The parts of a version.

    Attributes:
        inputs: what the model reads, by name, as `Inputs.declared` gives it.
        graphs: the names of its graphs.
        scoring: how scores are made, see `nrms.inference.loaded_model`.
        prior: whether there is a vector for readers without a history.
        lacking: what an older version lacks and what is used instead, one text each.
    """

    inputs: dict[str, Any]
    graphs: tuple[str, ...]
    scoring: str
    prior: bool
    lacking: tuple[str, ...] = ()

    @classmethod
    def of(cls, meta: dict[str, Any], where: str) -> Parts:
        """The parts that a `meta.json` lists; `where` is the version, for messages.

        Raises:
            ArtifactError: it lists something else.
        """
        recorded = meta.get("files")
        prior = isinstance(recorded, dict) and PRIOR in recorded
        if "inputs" not in meta and "graphs" not in meta:
            return _first_release(meta, prior, where)
        inputs, graphs = meta.get("inputs"), meta.get("graphs")
        if not isinstance(inputs, dict) or not all(map(_is_input, inputs.values())):
            raise _wrong("inputs as an object of kind, settings and files each", inputs, where)
        if not isinstance(graphs, dict) or not graphs or not all(map(_NAME.fullmatch, graphs)):
            raise _wrong("graphs as an object, each by its name", graphs, where)
        return cls(inputs, tuple(graphs), str(meta.get("scoring")), prior)

    def files(self, runtimes: Collection[str]) -> list[str]:
        """The names of the files that these runtimes, `keras` or `onnx`, need."""
        return [
            *([KERAS] if "keras" in runtimes else []),
            *([f"{name}.onnx" for name in self.graphs] if "onnx" in runtimes else []),
            *(name for declared in self.inputs.values() for name in declared["files"]),
            *([PRIOR] if self.prior else []),
        ]


def _first_release(meta: dict[str, Any], prior: bool, where: str) -> Parts:
    config = meta.get("config", {})
    for name in ("history_size", "title_size"):
        try:
            checked_size(config.get(name, 1))
        except ValueError as error:
            raise _wrong(
                f"{name} of the training's configuration: {error}", config[name], where
            ) from error
    lacking = ["inputs and graphs, by those of NRMS on titles"]
    if not prior:
        lacking.append(f"{PRIOR}, so that readers without a history see no order")
    if "joins" not in meta:
        lacking.append("joins, by shares of 0, so that warnings about a split come sooner")
    title = {"size": config.get("title_size"), "min_count": config.get("min_word_count", 1)}
    return Parts(
        {
            "title": {"kind": "title", "settings": title, "files": [_TOKENIZER]},
            "history": {
                "kind": "history",
                "settings": {"size": config.get("history_size")},
                "files": [],
            },
        },
        ("news_encoder", "user_encoder"),
        "vectors",
        prior,
        tuple(lacking),
    )


def _is_input(declared: object) -> bool:
    if not isinstance(declared, dict) or not isinstance(declared.get("settings"), dict):
        return False
    files = declared.get("files")
    return isinstance(files, list) and all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in files
    )


def _wrong(rule: str, received: object, where: str) -> ArtifactError:
    return ArtifactError(
        f"{where}: meta.json must give {rule}. Received: {received!r:.80}. Train the model again."
    )
