"""Codes of ids, however they were added."""

import numpy as np
import pyarrow as pa
import pytest

from nrms.features.context.vocabulary import EMPTY


@pytest.mark.parametrize("strings", [False, True], ids=["integers", "strings"])
@pytest.mark.parametrize("size", [1, 40, 700], ids=["one by one", "a few", "many"])
def test_a_code_is_the_place_in_which_an_id_came_first(strings, size):
    numbers = np.random.default_rng(2).integers(0, 1_000, 2_000)
    numbers = numbers[: 60 * size]
    expected: dict = {}
    vocabulary = EMPTY
    for start in range(0, len(numbers), size):
        ids = [f"N{one}" if strings else int(one) for one in numbers[start : start + size]]
        ids = list(dict.fromkeys(ids))
        vocabulary = vocabulary.extended(pa.array(ids))
        for one in ids:
            expected.setdefault(one, len(expected))
        assert vocabulary.codes(pa.array(ids)).tolist() == [expected[one] for one in ids]
        assert vocabulary.extended(pa.array(ids)) is vocabulary
    assert vocabulary.ids.to_pylist() == list(expected)
    assert len(vocabulary) == len(expected)
    every = pa.array(list(expected))
    assert vocabulary.codes(every).tolist() == list(range(len(every)))
    unknown = pa.array(["?"] * 600 if strings else [-1] * 600)
    assert set(vocabulary.codes(unknown).tolist()) == {-1}
    assert vocabulary.codes(unknown[:1]).tolist() == [-1]


def test_what_is_added_for_one_is_not_there_for_another():
    base = EMPTY.extended(pa.array([1, 2]))
    first, second = base.extended(pa.array([3])), base.extended(pa.array([4]))
    assert first.codes(pa.array([3, 4])).tolist() == [2, -1]
    assert second.codes(pa.array([3, 4])).tolist() == [-1, 2]
    assert base.codes(pa.array([3, 4])).tolist() == [-1, -1]
