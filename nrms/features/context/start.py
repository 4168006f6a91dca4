"""The state that a split, a night or an upload starts from."""

from __future__ import annotations

from nrms.features.context.state import State
from nrms.features.context.table import DAY, HOUR


def start_before(state: State, first: int | None) -> tuple[State, list[str]]:
    """A state as the start of impressions, and what may make their scores wrong.

    Args:
        state: what had happened.
        first: the time of the first impression, microseconds since 1970; None without times.

    Returns:
        The state, or an empty one where it holds what happened after the first impression; and a
        line for each warning.
    """
    if first is None or not len(state):
        return state, []
    if first < state.latest:
        return State(state.rules), [
            "context: the state holds what happened after the first impression, by "
            f"{_hours(state.latest - first)}, so it is not used: all counts start from nothing"
        ]
    age = first - state.latest
    if age > DAY:
        return state, [
            f"context: the state is {_hours(age)} older than the first impression, and most of it "
            "has decayed: scores are worse until the impressions themselves have been counted"
        ]
    return state, []


def _hours(microseconds: int) -> str:
    return f"{microseconds / HOUR:,.1f} hours"
