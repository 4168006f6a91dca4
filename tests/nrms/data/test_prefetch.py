import threading

import pytest

from nrms.data.prefetch import prefetch


def test_items_come_in_order():
    assert list(prefetch(range(100), depth=3)) == list(range(100))


def test_an_error_is_raised_in_its_place():
    def items():
        yield 1
        raise OSError("disk")

    reader = prefetch(items())
    assert next(reader) == 1
    with pytest.raises(OSError, match="disk"):
        next(reader)


def test_reads_at_most_depth_items_ahead_and_stops_when_closed():
    produced = []
    blocked = threading.Event()

    def items():
        for i in range(1000):
            produced.append(i)
            if i == 4:
                blocked.set()
            yield i

    reader = prefetch(items(), depth=2)
    assert next(reader) == 0
    assert next(reader) == 1
    blocked.wait()
    reader.close()
    # Two handed over, two in the queue, one in the thread's hand, which the close may let it
    # exchange for another.
    assert len(produced) <= 6
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
