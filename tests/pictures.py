"""Pictures that are drawn once. Drawing takes four fifths of a short night, and the nights of one
model and one data set have the same pictures.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from nrms.evaluation import plots

_figures: dict[bytes, Figure] = {}
_files: dict[tuple[Figure, str], bytes] = {}


def draw_once(patch: pytest.MonkeyPatch) -> None:
    """Until `patch` is undone, what was drawn before of the same values is taken from memory."""

    def remembering(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        def figure(*values: object, **named: object) -> Figure:
            key = pickle.dumps((draw.__name__, values, named))
            if key not in _figures:
                _figures[key] = draw(*values, **named)
            return _figures[key]

        return figure

    save = plots.save

    def saved(figure: Figure, file, **options: object):
        key = figure, repr(options)
        if key not in _files:
            _files[key] = save(figure, io.BytesIO(), **options).getvalue()
        file.write_bytes(_files[key]) if isinstance(file, Path) else file.write(_files[key])
        return file

    for name, draw in vars(plots).copy().items():
        if (
            not name.startswith("_")
            and getattr(draw, "__annotations__", {}).get("return") == "Figure"
        ):
            patch.setattr(plots, name, remembering(draw))
    patch.setattr(plots, "save", saved)
