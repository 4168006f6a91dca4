"""What an array looks like that a model reads or gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """What an array looks like.

    Attributes:
        dtype: its dtype.
        axes: each a length, or a name where any length will do.
    """

    dtype: str
    axes: tuple[str | int, ...]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The axes, None for those of any length."""
        return tuple(axis if isinstance(axis, int) else None for axis in self.axes)
