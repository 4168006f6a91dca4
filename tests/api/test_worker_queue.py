"""What a request hears for which no work could be begun."""

import anyio
import pytest

from api.worker_queue import run_in_turn


class Request:
    """One whose client waits."""

    async def receive(self):
        await anyio.sleep_forever()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_without_memory_for_a_thread_it_is_a_lack_of_memory(monkeypatch, error):
    async def refused(*_, **__):
        raise error

    monkeypatch.setattr(anyio.to_thread, "run_sync", refused)
    with pytest.raises(MemoryError):
        anyio.run(run_in_turn, Request(), anyio.CapacityLimiter(1), lambda: None)
