"""The form of an array that a model reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """The dtype and axes of an array.

    Attributes:
        dtype: its dtype.
        axes: its axes, each a length, or a name for any length.
    """

    dtype: str
    axes: tuple[str | int, ...]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The lengths of the axes, with None for any length."""
        return tuple(axis if isinstance(axis, int) else None for axis in self.axes)
