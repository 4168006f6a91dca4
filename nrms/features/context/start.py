"""The state that a split, a night or an upload starts from."""

from __future__ import annotations

from nrms.features.context.state import State
from nrms.features.context.table import DAY, HOUR, MINUTE

STALE = 2 * MINUTE  # so much older than an impression the state of a service may be


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
            f"{_duration(state.latest - first)}, so it is not used: all counts start from nothing"
        ]
    age = first - state.latest
    if age > DAY:
        return state, [
            f"context: the state is {_duration(age)} older than the first impression, and most of "
            "it has decayed: scores are worse until the impressions themselves have been counted"
        ]
    return state, []


def live_doubts(state: State, first: int, last: int) -> list[str]:
    """What may make scores wrong that are made with the state of a running service; a line for
    each warning.

    Args:
        state: what has happened.
        first: the time of the first impression, microseconds since 1970.
        last: that of the last one.
    """
    doubts = []
    if is_stale(state, last):
        doubts.append(
            f"context: stale: the newest event is {_duration(last - state.latest)} older than the "
            "newest impression, so what happens now is not known. Are events sent?"
        )
    if first < state.time - STALE:
        doubts.append(
            f"context: the first impression is {_duration(state.time - first)} older than what the "
            "service has counted, which may hold what happened after it. Score it with past=rows"
        )
    return doubts


def is_stale(state: State, time: int) -> bool:
    """Whether a state is too old for an impression at a time."""
    return time - state.latest > STALE


def _duration(microseconds: int) -> str:
    for unit, size in (("days", DAY), ("hours", HOUR)):
        if microseconds >= 2 * size:
            return f"{microseconds / size:,.1f} {unit}"
    return f"{microseconds / MINUTE:,.1f} minutes"
