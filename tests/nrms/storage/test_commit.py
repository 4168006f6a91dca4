"""The commit protocol with a tiny user of it: what is valid is whole, whatever is killed, damaged
or at once.
"""

import json
import os
import random
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from nrms import storage
from nrms.errors import ConfigError, StorageError
from nrms.storage import parquet
from nrms.storage.commit import Output, difference, look, read_json
from nrms.storage.scratch import scratch_folder
from tests import kills, scale

PARTS = ["part-0.parquet", "part-1.parquet", "part-2.parquet"]
PLAN = {"plan": {"of": "numbers"}}


def belongs(path):
    return path.endswith((".parquet", ".json"))


def output(uri, plan=PLAN):
    return Output(uri, plan, belongs, "numbers of the same kind")


def table(number):
    return pa.table({"number": [number] * 100})


def make(uri, plan=PLAN, made=None, step=lambda name: None, **claim):
    """The tiny user: three parts and a summary. Gives the names of the parts that it wrote, None
    for nothing to do.
    """
    out = output(uri, plan)
    if not out.claim(["summary.json"], **claim):
        return None
    numbers = []
    for number, name in enumerate(PARTS):
        step(name)

        def take(path):
            return parquet.read(path)["number"][0].as_py()

        def write(path, number=number):
            if made is not None:
                made.append(number)
            out.write_part(path, table(number))
            return number

        numbers.append(out.part(name, take, write))
    assert numbers == [0, 1, 2]
    step("summary.json")
    with scratch_folder() as folder:
        (folder / "summary.json").write_text(
            json.dumps({"sum": sum(numbers), "words": ["zero", "one", "two"] * 5})
        )
        out.add(folder / "summary.json")
    step("finish")
    out.finish({"about": "numbers"})
    return out.written


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.system)])
def uri(request, tmp_path):
    return (
        str(tmp_path / "out")
        if request.param == "local"
        else request.getfixturevalue("bucket") + "/out"
    )


def contents(uri):
    """Every file, hidden ones too, but for the times in their generations."""
    if storage.is_gcs(uri):
        return {
            info.uri[len(uri) + 1 :]: storage.read_bytes(info) for info in storage.list_files(uri)
        }
    return {
        str(path.relative_to(uri)): path.read_bytes()
        for path in Path(uri).rglob("*")
        if path.is_file()
    }


def generations(uri):
    return {storage.name(info.uri): info.generation for info in storage.list_files(uri)}


def test_what_is_made_is_complete_and_the_same_again_does_nothing(uri):
    assert make(uri) == PARTS
    assert contents(uri).keys() == {*PARTS, "summary.json", "manifest.json", "_SUCCESS"}
    found = look(uri)
    assert found.is_complete()
    assert found.is_complete(verify=True)
    assert found.manifest.items() >= {**PLAN, "about": "numbers"}.items()
    files = {file["name"]: file for file in found.manifest["files"]}
    for name, content in contents(uri).items():
        if name in files:
            assert files[name]["size"] == len(content)
            assert files[name].get("rows") == (100 if name in PARTS else None)
    before = generations(uri)
    assert make(uri) is None
    assert make(uri, verify=True) is None
    assert generations(uri) == before


def test_another_plan_is_refused_unless_overwrite_and_leaves_nothing_behind(uri, tmp_path):
    make(uri)
    storage.write_bytes(b"old", storage.join(uri, "part-9.parquet"))
    other = {"plan": {"of": "letters"}}
    before = generations(uri)
    with pytest.raises(
        ConfigError, match=r"whose of is numbers and not letters\. Choose another --output"
    ) as caught:
        make(uri, other)
    assert len(str(caught.value).splitlines()) == 1
    assert generations(uri) == before
    assert make(uri, other, overwrite=True) == PARTS
    make(str(tmp_path / "fresh"), other)
    assert contents(uri) == contents(str(tmp_path / "fresh"))


def test_files_that_nobody_planned_are_refused(uri):
    storage.write_bytes(b"mine", storage.join(uri, "part-0.parquet"))
    with pytest.raises(ConfigError, match="which holds other files"):
        make(uri)


# --- damage


def cut(content):
    return content[:10]


def flipped(content):
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


@pytest.mark.parametrize("damage", [None, cut, flipped], ids=["deleted", "cut", "flipped"])
@pytest.mark.parametrize("name", [PARTS[1], "summary.json"])
def test_what_is_missing_or_damaged_is_found_and_made_again(uri, name, damage, caplog):
    make(uri)
    whole = contents(uri)
    made = []
    where = storage.join(uri, name)
    if damage is None:
        storage.delete(where)
    else:
        storage.write_bytes(damage(whole[name]), where)
    assert not look(uri).is_complete()
    assert name in caplog.messages[-1]
    assert make(uri, made=made) == ([name] if name in PARTS else [])
    assert made == ([1] if name in PARTS else [])
    assert contents(uri) == whole
    assert make(uri) is None


def test_a_file_whose_time_was_set_back_is_found_and_one_that_lies_is_found_on_demand(tmp_path):
    uri = str(tmp_path)
    make(uri)
    path = tmp_path / PARTS[0]
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(flipped(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not look(uri).is_complete()
    # As damage on the disk itself would be: older than _SUCCESS.
    storage.write_bytes(b"", tmp_path / "_SUCCESS")
    while (tmp_path / "_SUCCESS").stat().st_ctime_ns <= path.stat().st_ctime_ns:
        storage.write_bytes(b"", tmp_path / "_SUCCESS")
    assert look(uri).is_complete()
    assert not look(uri).is_complete(verify=True)
    assert make(uri) is None
    assert make(uri, verify=True) == [PARTS[0]]
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "manifest", [b"", b"{", b"[]", b"[" * 100_000, b'{"plan": {"of": "numbers"}}']
)
def test_a_folder_whose_manifest_is_damaged_is_not_complete(uri, manifest):
    make(uri)
    whole = contents(uri)
    storage.write_bytes(manifest, storage.join(uri, "manifest.json"))
    assert not look(uri).is_complete()
    make(uri, overwrite=True)
    assert contents(uri) == whole


@pytest.mark.parametrize(
    "files", [None, 3, ["x"], [{}], [{"name": 3}], [{"name": ["x"]}], [{"name": "part-0.parquet"}]]
)
def test_a_manifest_that_makes_no_sense_is_not_complete(uri, files):
    make(uri)
    manifest = {**PLAN, "files": files}
    storage.write_bytes(json.dumps(manifest).encode(), storage.join(uri, "manifest.json"))
    assert not look(uri).is_complete()
    assert make(uri) == []


class Stop(Exception):
    pass


def stopped_at(stop):
    def step(name):
        if name == stop:
            raise Stop

    return step


@pytest.mark.parametrize("change", [flipped, cut, lambda content: b"", lambda content: b"PAR1" * 3])
def test_a_damaged_part_of_an_unfinished_output_is_made_again(uri, change):
    with pytest.raises(Stop):
        make(uri, step=stopped_at("summary.json"))
    where = storage.join(uri, PARTS[2])
    whole = storage.read_bytes(where)
    storage.write_bytes(change(whole), where)
    assert make(uri) == [PARTS[2]]
    assert storage.read_bytes(where) == whole


def test_a_part_of_another_plan_counts_as_missing(uri):
    with pytest.raises(Stop):
        make(uri, {"plan": {"of": "letters"}}, step=stopped_at(PARTS[2]))
    assert make(uri, overwrite=True) == PARTS


# --- several at once


def test_a_run_that_another_overtakes_takes_over_its_parts(uri):
    inner = []

    def step(name):
        if name == PARTS[1]:
            inner.append(make(uri))
            inner.append(generations(uri))

    assert make(uri, step=step) == [PARTS[0]]
    written, before = inner
    assert written == PARTS[1:]
    after = generations(uri)
    assert {name: after[name] for name in PARTS} == {name: before[name] for name in PARTS}
    assert make(uri) is None


@pytest.mark.parametrize("when", [*PARTS, "summary.json", "finish"])
def test_a_run_whose_folder_was_taken_stops_and_harms_nothing(uri, when):
    other = {"plan": {"of": "letters"}}

    def step(name):
        if name == when:
            make(uri, other, overwrite=True)
            before.update(generations(uri))

    before = {}
    with pytest.raises(
        StorageError, match=r"is now written by .*, whose of is letters and not numbers\. This run"
    ):
        make(uri, step=step)
    assert generations(uri) == before
    assert make(uri, other) is None


def test_many_at_once_leave_what_one_leaves(uri, tmp_path):
    failed = []

    def run():
        try:
            make(uri)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    make(str(tmp_path / "alone"))
    assert contents(uri) == contents(str(tmp_path / "alone"))


# --- what a person reads


@pytest.mark.parametrize(
    ("plan", "other", "words"),
    [
        ({"seed": 1}, {"seed": 2}, "seed is 2 and not 1"),
        ({"plan": {"runtime": "onnx"}}, {"plan": {}}, "runtime is nothing and not onnx"),
        ({"plan": {"runtime": "onnx"}}, {"plan": 3}, 'plan is 3 and not {"runtime": "onnx"}'),
        (
            {"parameters": {"seed": 1, "rows": {"train": 3}}},
            {"parameters": {"seed": 1, "rows": {"train": 4}, "old": True}},
            "rows.train is 4 and not 3, old is true and not nothing",
        ),
        (
            {"plan": {"model": {"version": "a", "sha256": "0"}}},
            {"plan": {"model": {"version": "b", "sha256": "1"}}},
            "model.version is b and not a",
        ),
        (
            {"plan": {"model": {"sha256": "0"}}},
            {"plan": {"model": {"sha256": "1"}}},
            "model.sha256 is 1 and not 0",
        ),
        (
            {"plan": {"inputs": [{"name": n, "crc32c": "x"} for n in "abcd"]}},
            {"plan": {"inputs": [{"name": "e", "crc32c": "x"}]}},
            "input differs in a, b, c and others",
        ),
        (
            {"parameters": {"input": {"news.tsv": {"size": 1, "crc32c": "x"}}, "shard_rows": 1}},
            {"parameters": {"input": {"news.tsv": {"size": 1, "crc32c": "y"}}, "shard_rows": 2}},
            "shard_rows is 2 and not 1, input differs in news.tsv",
        ),
    ],
)
def test_a_difference_of_plans_names_the_fields(plan, other, words):
    assert difference(plan, other) == words


def test_json_of_any_depth_or_kind_is_an_object_or_nothing():
    assert read_json(b'{"a": 1}') == {"a": 1}
    for data in (b"", b"{", b"[]", b"3", b"\xff", b"[" * 200_000, b'{"a":' * 200_000):
        assert read_json(data) is None


# --- killed


def check_and_go_on(uri, unbroken, temporary, **options):
    """What a killed process left is not valid, or is whole; the next one keeps its parts and ends
    as if unbroken.
    """
    found = look(uri)
    assert found.success is None or found.is_complete(verify=True)
    kept = {name: info.generation for name, info in found.files.items() if name in PARTS}
    assert kills.run(make, uri, temporary=temporary, **options) == 0
    assert {name: generations(uri)[name] for name in kept} == kept
    assert contents(uri) == unbroken
    assert list(temporary.iterdir()) == []


@pytest.mark.system
def test_killed_at_any_change_on_a_disk_it_ends_as_if_unbroken(tmp_path):
    make(str(tmp_path / "unbroken"))
    unbroken = contents(str(tmp_path / "unbroken"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    step = 1 if scale.whole else 10
    point, killed = random.randrange(step), True
    while killed:
        uri = str(tmp_path / str(point))
        killed = kills.run(make, uri, temporary=temporary, change=point) != 0
        check_and_go_on(uri, unbroken, temporary)
        point += step
    assert point > 60


@pytest.mark.system
def test_killed_at_any_request_to_a_bucket_it_ends_as_if_unbroken(proxy, bucket, tmp_path):
    make(f"{bucket}/unbroken")
    unbroken, requests = contents(f"{bucket}/unbroken"), len(proxy.seen)
    assert requests > 30
    step = 1 if scale.whole else 10
    for point in range(random.randrange(step), requests, step):
        for heard in (False, True):
            uri = f"{bucket}/{point}-{heard}"
            kills.run_to_request(proxy, point, heard, make, uri, temporary=tmp_path)
            check_and_go_on(uri, unbroken, tmp_path, emulator=proxy.url)
