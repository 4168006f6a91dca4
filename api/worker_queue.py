"""The queue in front of the workers, which a request leaves when its client leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import Request

Result = TypeVar("Result")


class ClientLeft(Exception):
    """The client closed the connection before a worker was free for its request."""


async def run_in_turn(
    request: Request, workers: anyio.CapacityLimiter, work: Callable[[], Result]
) -> Result:
    """Waits for a worker, then does the work in a thread.

    A client that leaves while it waits gives its place back. Work that has begun is finished, as a
    thread cannot be stopped.

    Args:
        request: what the work is for; its body has been read.
        workers: lets so many requests be worked on at once, in the order of their arrival.
        work: what to do. What it raises is raised here.

    Raises:
        ClientLeft: the work was not begun, because nobody waits for it any more.
        MemoryError: the work was not begun, because there is no memory for a thread.
    """
    outcome: list[Result | Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)  # a task group would wrap what is raised in it

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            async with workers:
                await anyio.to_thread.run_sync(run, limiter=anyio.CapacityLimiter(1))
            group.cancel_scope.cancel()
    except ExceptionGroup as errors:
        # Python says that it has no memory for a thread in words alone.
        if str(errors.exceptions[0]) == "can't start new thread":
            raise MemoryError("no memory for a thread") from None
        raise errors.exceptions[0] from None
    if not outcome:
        raise ClientLeft
    result = outcome.pop()
    if isinstance(result, Exception):
        try:
            raise result
        finally:
            del result  # its traceback would keep this frame, and what the work held, in memory
    return result
