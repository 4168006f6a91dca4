"""The arrays that a split's inputs fill, one for each impression or candidate of a shard."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from nrms.data.columns import unnest
from nrms.data.schema import BEHAVIORS, Column
from nrms.errors import SchemaError
from tests.small_data import BEHAVIORS as BEHAVIOR_ROWS
from tests.small_data import Folder

MINUTES = Column("minutes", "integer", required=False)
PLACES = Column("places", "numbers", required=False)


class Minutes:
    """The minutes that the reader has, and whether they are even: `(n, 2)`."""

    name = "minutes"
    per = "impression"
    columns = (MINUTES,)

    def fill(self, columns, impressions, articles, histories):
        if "minutes" not in columns:
            return None
        minutes = columns["minutes"].to_numpy()
        return np.stack([minutes, minutes % 2 == 0], axis=1).astype(np.float32)


class Place:
    """Where each candidate stood, plus its article row: `(c,)`; reads what `Minutes` filled."""

    name = "place"
    per = "candidate"
    columns = (MINUTES, PLACES, BEHAVIORS[4])

    def fill(self, columns, impressions, articles, histories):
        assert columns["impression_time"].null_count == 0
        assert len(impressions.per_impression["minutes"]) == len(impressions)
        assert articles.ids.to_pylist() == [10, 20, 30, 40]
        return unnest(columns["places"])[1].to_numpy() + impressions.candidates


@dataclass
class Wrong:
    """As many rows as it is told, whatever the shard has."""

    rows: int
    per: str
    name = "wrong"
    columns = ()

    def fill(self, columns, impressions, articles, histories):
        return np.zeros((self.rows, 5))


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path, strings=False)


def test_inputs_fill_arrays_from_columns_of_their_own(folder):
    extra = {"minutes": [3, 4], "places": [[0.5, 1.5, 2.5], [0.5, 1.5]]}
    folder.write_all(behaviors=extra)
    impressions = folder.split(inputs=(Minutes(), Place())).read(0)
    assert impressions.per_impression.keys() == {"minutes"}
    assert impressions.per_candidate.keys() == {"place"}
    assert impressions.per_impression["minutes"].tolist() == [[3, 0], [4, 1]]
    assert impressions.per_candidate["place"].tolist() == [1.5, 3.5, 5.5, 2.5, 5.5]

    taken = impressions.take(np.array([1, 0, 1]))
    assert taken.per_impression["minutes"].tolist() == [[4, 1], [3, 0], [4, 1]]
    assert taken.per_candidate["place"].tolist() == [2.5, 5.5, 1.5, 3.5, 5.5, 2.5, 5.5]
    none = impressions.take(np.array([], int))
    assert none.per_impression["minutes"].shape == (0, 2)
    assert none.per_candidate["place"].shape == (0,)


def test_a_name_is_absent_where_a_file_lacks_what_its_input_reads(folder):
    folder.write_all()
    shard = {"impression_id": [5], "user_id": [7], "article_ids_inview": [[10, 20]]}
    folder.write("train/behaviors-0.parquet", {**shard, "minutes": [2]})
    split = folder.split(inputs=(Minutes(),))
    assert split.read(0).per_impression["minutes"].tolist() == [[2, 1]]
    assert split.read(1).per_impression == {}


def test_the_type_of_an_inputs_column_is_checked_when_the_split_is_opened(folder):
    folder.write_all(behaviors={"minutes": ["three", "four"]})
    folder.split()
    with pytest.raises(
        SchemaError, match=r"Column `minutes` must be an integer\. Received: string"
    ):
        folder.split(inputs=(Minutes(),))


@pytest.mark.parametrize(
    ("per", "rows", "right"), [("impression", 5, 2), ("candidate", 2, 5), ("candidate", 0, 5)]
)
def test_an_array_of_another_length_is_refused(folder, per, rows, right):
    folder.write_all()
    assert folder.split(inputs=(Wrong(right, per),)).read(0)
    with pytest.raises(
        AssertionError,
        match=rf"`wrong` must have a row for each {per}. Received: shape \({rows}, 5\) for {right}",
    ):
        folder.split(inputs=(Wrong(rows, per),)).read(0)


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        (Column("minutes", "numbers", required=False), "`minutes` must be one column"),
        (Column("device_type", "numbers", required=False), "`device_type` must be one column"),
        (Column("seconds", "integer"), "An input requires `seconds`"),
    ],
)
def test_inputs_must_agree_on_optional_columns(folder, column, rule):
    folder.write_all()
    other = Wrong(2, "impression")
    other.columns = (column,)
    with pytest.raises(AssertionError, match=rule):
        folder.split(inputs=(Minutes(), other))


def test_an_empty_shard_has_empty_arrays(folder):
    folder.write_all(
        behaviors={name: pa.nulls(0) for name in BEHAVIOR_ROWS}
        | {"minutes": pa.nulls(0, pa.int8())}
    )
    impressions = folder.split(inputs=(Minutes(),)).read(0)
    assert impressions.per_impression["minutes"].shape == (0, 2)


def test_two_inputs_of_one_name_are_refused(folder):
    folder.write_all()
    same = Wrong(2, "impression")
    with pytest.raises(AssertionError, match="Two inputs fill an array `wrong`"):
        folder.split(inputs=(same, same)).read(0)
