"""A night's parts on damage: whatever happens to one, its shard is scored again; nothing wrong is
taken over.
"""

import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from nrms import storage
from nrms.nights.output import NightOutput
from nrms.storage import parquet
from tests import scale
from tests.damage import flip, flipped
from tests.shards import random_shard

SHARD = random_shard(np.random.default_rng(0), 60)
SCORES = np.random.default_rng(1).normal(size=len(SHARD.candidates)).astype(np.float32)
PART = "part-00000.parquet"


def scored(uri, plan="a plan", scores=SCORES):
    """The scores of the shard, and whether they were made now."""
    output, made = NightOutput(uri, {"of": plan}), []
    output.claim(overwrite=True)

    def score():
        made.append(True)
        return scores

    return output.scores(0, SHARD, score), bool(made)


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.system)])
def uri(request, tmp_path):
    return (
        str(tmp_path / "out")
        if request.param == "local"
        else request.getfixturevalue("bucket") + "/out"
    )


def test_a_whole_part_is_taken_over_bit_by_bit(uri):
    scored(uri)
    found, made = scored(uri, scores=SCORES + 1)
    assert not made
    np.testing.assert_array_equal(found, SCORES)


def test_no_flipped_bit_is_taken_over(tmp_path):
    uri = str(tmp_path)
    scored(uri)
    content = (tmp_path / PART).read_bytes()
    for bit in random.Random(0).sample(range(8 * len(content)), scale.scaled(800)):
        flip(tmp_path / PART, content, bit)
        found, made = scored(uri)
        assert made, f"bit {bit} of {8 * len(content)}"
        np.testing.assert_array_equal(found, SCORES)
        assert (tmp_path / PART).read_bytes() == content


def test_a_flipped_bit_in_a_bucket_is_not_taken_over(bucket):
    uri = f"{bucket}/out"
    scored(uri)
    content = storage.read_bytes(f"{uri}/{PART}")
    for bit in random.Random(0).sample(range(8 * len(content)), scale.scaled(100)):
        storage.write_bytes(flipped(content, bit), f"{uri}/{PART}")
        assert scored(uri)[1]


def test_a_part_cut_anywhere_is_not_taken_over(tmp_path):
    uri = str(tmp_path)
    scored(uri)
    content = (tmp_path / PART).read_bytes()
    for length in random.Random(0).sample(range(len(content)), 10):
        (tmp_path / PART).write_bytes(content[:length])
        assert scored(uri)[1]


def test_a_part_of_another_plan_or_of_the_first_release_counts_as_missing(uri, tmp_path):
    scored(uri)
    assert scored(uri, plan="another")[1]
    table = parquet.read(storage.fetch(storage.stat(storage.join(uri, PART)), tmp_path))
    said = {b"nrms.plan": table.schema.metadata[b"nrms.plan"]}
    pq.write_table(table.replace_schema_metadata(said), tmp_path / "old")
    storage.upload(tmp_path / "old", storage.join(uri, PART))
    assert scored(uri, plan="another")[1]


def test_pages_can_be_verified_by_any_reader(tmp_path):
    scored(str(tmp_path))
    assert pq.read_table(tmp_path / PART, page_checksum_verification=True).num_rows == len(SHARD)
