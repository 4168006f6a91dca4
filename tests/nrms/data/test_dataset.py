"""A data set from its files to row numbers: layout, histories without leaks, time order, folders
and buckets.
"""

import dataclasses
import logging
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import storage
from nrms.data import parquet
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.split import check_time_order
from nrms.errors import ObjectNotFound, SchemaError, StorageError
from nrms.evaluation.baselines import INPUTS
from tests.small_data import (
    BEHAVIORS,
    CANDIDATES,
    CLICKED,
    COUNTS,
    HISTORIES,
    HISTORY,
    USER,
    Folder,
    at,
)


@pytest.fixture(params=["integers", "strings"])
def folder(request, tmp_path) -> Folder:
    return Folder(tmp_path / "data", request.param == "strings")


@pytest.fixture
def integers(tmp_path) -> Folder:
    return Folder(tmp_path / "data", strings=False)


def test_a_data_set_is_read_as_row_numbers(folder):
    folder.write_all()
    dataset = folder.open()
    split = dataset.split("train", history_size=3)
    impressions = split.read(0)
    assert dataset.articles.ids.to_pylist() == folder.ids([10, 20, 30, 40])
    assert dataset.articles.titles.to_pylist() == ["a", "b", "c", "d"]
    assert len(dataset.articles) == 4
    assert (len(split), split.rows, len(impressions)) == (1, 2, 2)
    assert impressions.impression_id.to_pylist() == folder.ids([1, 2])
    assert impressions.user_id.to_pylist() == folder.ids([7, 8])
    assert impressions.candidate_ids.to_pylist() == folder.ids([10, 20, 30, 20, 40])
    assert impressions.time.tolist() == at(0, 5)
    assert impressions.offsets.tolist() == [0, 3, 5]
    assert impressions.candidates.tolist() == CANDIDATES
    assert impressions.clicked.tolist() == CLICKED
    assert impressions.user.tolist() == USER
    assert impressions.device is impressions.page_id is None
    assert impressions.per_impression == impressions.per_candidate == {}
    assert split.histories.rows.tolist() == HISTORIES
    assert split.histories.lengths.tolist() == [0, 2, 1, 0]
    assert split.time_range == tuple(np.array(at(0, 5), "datetime64[us]"))
    assert split.report.as_dict() == COUNTS
    kinds = {
        name: getattr(impressions, name).dtype.str
        for name in ("user", "offsets", "candidates", "clicked")
    }
    assert kinds == {"user": "<i4", "offsets": "<i8", "candidates": "<i4", "clicked": "|b1"}
    assert split.histories.rows.dtype == np.int32


@pytest.mark.parametrize("part", ["behaviors", "history"])
def test_a_linked_folder_is_read(folder, part):
    folder.write_all()
    (folder.path / "elsewhere").mkdir()
    (folder.path / f"train/{part}.parquet").rename(folder.path / "elsewhere" / "part-0.parquet")
    (folder.path / "train" / part).symlink_to("../elsewhere")
    split = folder.split()
    assert split.histories.rows.tolist() == HISTORIES
    assert split.read(0).candidates.tolist() == CANDIDATES
    assert f"{part}/part-0.parquet" in split.files


@pytest.mark.parametrize("name", ["train/", "./train", "train//."])
def test_a_split_is_the_same_however_it_is_written(folder, name):
    folder.write_all()
    dataset = folder.open()
    split, written = dataset.split("train", 3), dataset.split(name, 3)
    assert (written.name, written.uri, written.files) == (split.name, split.uri, split.files)
    assert dataset.fingerprint([written]) == dataset.fingerprint([split])


def test_a_user_in_two_history_files_is_refused(folder):
    folder.write_all()
    folder.write("train/history-2.parquet", HISTORY | {"user_id": [1, 9, 2]})
    with pytest.raises(
        SchemaError, match=r"1 of 6 rows repeat a `user_id`, first \S+, in \S+/history\.parquet\. "
    ):
        folder.split()


def test_a_split_that_prepare_did_not_finish_is_refused(integers):
    integers.write_all()
    (integers.path / "train/manifest.json").write_text("{}")
    with pytest.raises(SchemaError, match=r"must have the file _SUCCESS.*/train\. Run the same"):
        integers.split()
    (integers.path / "train/_SUCCESS").touch()
    assert integers.split().rows == 2


def test_ids_of_two_kinds_are_refused_at_the_door(integers):
    integers.write_all(behaviors={"article_ids_inview": pa.array([["10", "20"], ["20"]])})
    with pytest.raises(
        SchemaError,
        match=r"`article_ids_inview` must hold article ids .*\(int64\).*behaviors.parquet",
    ):
        integers.split()


def test_a_bad_file_is_refused_when_its_split_is_opened(integers):
    integers.write_all()
    last = integers.write("train/behaviors-9.parquet", BEHAVIORS)
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.raises(SchemaError, match=r"whole Parquet.*behaviors-9\.parquet"):
        integers.split()
    integers.write("train/behaviors-9.parquet", BEHAVIORS | {"user_id": [7, None]})
    with pytest.raises(SchemaError, match=r"`user_id` must not be null.*behaviors-9\.parquet"):
        integers.split()


@pytest.mark.parametrize(
    ("missing", "rule"),
    [
        (
            "articles.parquet",
            r"must have the file articles.parquet. Received: a folder of train/behaviors.parquet, "
            r"train/hist",
        ),
        (
            "train/behaviors.parquet",
            r"must have behaviors.parquet, .*Received: history.parquet, in \S+/train\. ",
        ),
        (
            "train/history.parquet",
            r"must have history.parquet, .*Received: behaviors.parquet, in \S+/train\. ",
        ),
    ],
)
def test_a_missing_file_is_named(integers, missing, rule):
    integers.write_all()
    (integers.path / missing).unlink()
    with pytest.raises(SchemaError, match=rule):
        integers.split()


def test_a_missing_data_set_or_split_is_named(integers):
    with pytest.raises(
        SchemaError, match=r"must have the file articles\.parquet\. Received: no such folder, in"
    ):
        integers.open()
    integers.write_all()
    with pytest.raises(
        SchemaError, match=r"Received: no such folder; splits beside it: train, in \S+/test\. "
    ):
        integers.split(name="test")


@pytest.mark.parametrize(
    "names",
    [
        ["behaviors.parquet"],
        ["behaviors-00000.parquet", "behaviors-00001.parquet"],
        ["behaviors/a.parquet", "behaviors/b.parquet"],
    ],
)
def test_a_split_is_a_file_or_shards_or_a_folder_of_shards(integers, names):
    integers.write_all()
    (integers.path / "train/behaviors.parquet").unlink()
    for number, name in enumerate(names):
        integers.write(f"train/{name}", BEHAVIORS | {"impression_id": [number, number]})
    for other in ("notes.txt", "behaviors-1.csv", "old/behaviors.parquet.md5"):
        (integers.path / "train" / other).parent.mkdir(exist_ok=True, parents=True)
        (integers.path / "train" / other).write_bytes(b"not for us")
    split = integers.split()
    assert [info.uri for info in split.shards] == [
        str(integers.path / "train" / name) for name in names
    ]
    assert [split.read(i).impression_id[0].as_py() for i in range(len(split))] == list(
        range(len(names))
    )
    assert split.rows == 2 * len(names)


def test_histories_come_from_all_history_files(folder):
    folder.write_all()
    (folder.path / "train/history.parquet").unlink()
    for number, user in enumerate([9, 8, 7]):
        row = [values[2 - number : 3 - number] for values in HISTORY.values()]
        assert row[0] == [user]
        folder.write(f"train/history/{number}.parquet", dict(zip(HISTORY, row, strict=True)))
    split = folder.split()
    assert split.histories.users.to_pylist() == folder.ids([9, 8, 7])
    assert split.histories.rows.tolist() == [[0, 0, 0], [0, 0, 0], [4, 0, 0], [1, 3, 0]]
    assert split.read(0).user.tolist() == [3, 2]


def test_the_last_clicks_are_kept_oldest_first(folder):
    folder.write_all(
        history={
            "article_id_fixed": [[10, 30, 99, 20, 10], [40], []],
            "impression_time_fixed": None,
        },
    )
    for history_size, rows in [
        (2, [[2, 1], [4, 0], [0, 0]]),
        (6, [[1, 3, 2, 1, 0, 0], [4] + 5 * [0], 6 * [0]]),
    ]:
        histories = folder.split(history_size).histories
        assert histories.rows[1:].tolist() == rows
        assert histories.lengths.tolist() == [0, min(4, history_size), 1, 0]


def test_a_click_of_the_split_cannot_come_in_from_a_later_history(folder):
    folder.write_all(
        behaviors={
            "user_id": [7, 7],
            "impression_time": at(10, 5),
            "article_ids_inview": [[10, 20], [30, 40]],
            "article_ids_clicked": [[20], [40]],
        },
        history={
            "article_id_fixed": [[10, 30, 40, 20, 10], [20, 40], []],
            # User 8 has no impression here, so that nothing of theirs is late.
            "impression_time_fixed": [at(3, 4, 5, 10, 11), at(90, 91), []],
        },
    )
    split = folder.split(history_size=2)
    assert split.histories.rows.tolist() == [[0, 0], [1, 3], [2, 4], [0, 0]]
    split.read(0)
    assert split.report["late_history"] == 3
    assert split.report["late_history_clicked"] == 2
    assert split.report["untimed_history"] == 0


def test_late_clicks_are_counted_as_the_shards_are_read(folder):
    """Each once, however often its shard is read."""
    folder.write_all(
        history={
            "article_id_fixed": [[10, 20, 20, 40], [40], [30]],
            "impression_time_fixed": [at(-9, 1, 2, 3), at(6), at(7)],
        }
    )
    folder.write("train/behaviors-2.parquet", BEHAVIORS | {"article_ids_clicked": None})
    folder.write(
        "train/behaviors-1.parquet",
        BEHAVIORS | {"user_id": [7, 9], "article_ids_clicked": [[40, 20, 99], [None, 10]]},
    )
    split = folder.split()
    assert split.report["late_history"] == 5
    counts = []
    for i in (1, 2, 0, 0, 2):
        split.read(i)
        counts.append(split.report["late_history_clicked"])
    # 20 twice of user 7 and 40 of user 8, then 40 of user 7; 30 of user 9 was not clicked
    assert counts == [0, 3, 4, 4, 4]


def test_the_first_impression_may_be_in_any_shard(integers):
    integers.write_all(history={"impression_time_fixed": [at(-9, 1), at(-7), []]})
    integers.write("train/behaviors-2.parquet", BEHAVIORS | {"impression_time": at(1, 2)})
    integers.write("train/behaviors-1.parquet", BEHAVIORS | {"impression_time": at(2, 2)})
    integers.write_all(
        behaviors={"impression_time": at(3, 3)},
        history={"impression_time_fixed": [at(-9, 1), at(-7), []]},
    )
    split = integers.split()
    assert split.histories.rows.tolist() == [[0, 0, 0], [1, 0, 0], [4, 0, 0], [0, 0, 0]]
    assert split.report.as_dict() == {"users": 3, "history_entries": 3, "late_history": 1}
    assert split.time_range == tuple(np.array(at(1, 3), "datetime64[us]"))


def test_the_report_counts_each_shard_once(integers):
    integers.write_all(behaviors={"user_id": [7, 5]})
    split = integers.split()
    assert split.report.as_dict() == {"users": 3, "history_entries": 3}
    first, second = split.read(0), split.read(0)
    assert first.report.as_dict() == second.report.as_dict()
    assert split.report.as_dict() == COUNTS | {"user_without_history": 1}


@pytest.mark.parametrize(
    ("validation_starts", "expected"),
    [
        (at(6), True),
        (at(5), True),
        (at(4), "validation from 2023-05-18T07:04:00.000000, train until"),
        (None, False),
    ],
)
def test_validation_must_not_start_before_training_ends(
    integers, caplog, validation_starts, expected
):
    integers.write_all()
    start = validation_starts and validation_starts * 2
    integers.write("validation/behaviors.parquet", BEHAVIORS | {"impression_time": start})
    integers.write("validation/history.parquet", HISTORY)
    train, validation = integers.split(), integers.split(name="validation")
    if isinstance(expected, str):
        with pytest.raises(SchemaError, match=expected):
            check_time_order(train, validation)
        return
    with caplog.at_level(logging.WARNING, "nrms"):
        assert check_time_order(train, validation) is expected
    assert ("no times" in caplog.text) is not expected


def test_the_columns_of_ebnerd_come_through(tmp_path):
    folder = Folder(tmp_path, strings=False)
    folder.write(
        "articles.parquet",
        {
            "article_id": pa.array([3001353, 3003065], pa.int32()),
            "title": ["Natascha var ikke den første", "Kun Star Wars tjente mere"],
            "subtitle": ["", None],
            "last_modified_time": pa.array(at(0, 1), pa.timestamp("us")),
            "premium": [False, True],
            "image_ids": pa.array([[3150850], None], pa.list_(pa.int64())),
            "sentiment_score": pa.array([0.9955, 0.846], pa.float32()),
        },
    )
    folder.write(
        "train/behaviors.parquet",
        {
            "impression_id": pa.array([149474, 150528], pa.uint32()),
            "article_id": pa.array([None, 3003065], pa.int32()),
            "impression_time": pa.array(at(0, 1), pa.timestamp("us")),
            "read_time": pa.array([13.0, 17.0], pa.float32()),
            "scroll_percentage": pa.array([None, 18.0], pa.float32()),
            "device_type": pa.array([2, None], pa.int8()),
            "article_ids_inview": pa.array([[3003065, 3001353], [3001353]], pa.list_(pa.int32())),
            "article_ids_clicked": pa.array([[3001353], [3001353]], pa.list_(pa.int32())),
            "user_id": pa.array([139836, 143471], pa.uint32()),
            "is_sso_user": [False, False],
            "gender": pa.array([None, None], pa.int8()),
            "session_id": pa.array([759, 1240], pa.uint32()),
        },
    )
    folder.write(
        "train/history.parquet",
        {
            "user_id": pa.array([143471], pa.uint32()),
            "impression_time_fixed": pa.array([at(-9, -8)], pa.list_(pa.timestamp("us"))),
            "scroll_percentage_fixed": pa.array([[100.0, 35.0]], pa.list_(pa.float32())),
            "article_id_fixed": pa.array([[3003065, 3001353]], pa.list_(pa.int32())),
            "read_time_fixed": pa.array([[17.0, 12.0]], pa.list_(pa.float32())),
        },
    )
    split = folder.split()
    impressions = split.read(0)
    assert impressions.candidates.tolist() == [2, 1, 1]
    assert impressions.clicked.tolist() == [False, True, True]
    assert impressions.user.tolist() == [0, 1]
    assert impressions.device.tolist() == [2, 0]
    assert impressions.page_id.equals(pa.array([None, 3003065], pa.int32()))
    assert impressions.take(np.array([1, 1])).page_id.to_pylist() == [3003065, 3003065]
    assert impressions.impression_id.type == impressions.user_id.type == pa.uint32()
    assert impressions.candidate_ids.type == pa.int32()
    assert split.histories.rows.tolist() == [[0, 0, 0], [2, 1, 0]]


def random_tables(rng: np.random.Generator) -> tuple[dict, dict]:
    """Every oddity that is counted, many times over."""

    def lists(rows: int, nulls: bool = True) -> list:
        sizes = rng.integers(0, 7, rows)
        return [
            None if nulls and rng.random() < 0.1 else rng.integers(0, 60, size).tolist()
            for size in sizes
        ]

    behaviors = {
        "impression_id": rng.permutation(300).tolist(),
        "user_id": rng.integers(0, 50, 300).tolist(),
        "impression_time": [
            None if rng.random() < 0.1 else at(int(m))[0] for m in rng.integers(0, 99, 300)
        ],
        "article_ids_inview": lists(300),
        "article_ids_clicked": [c and c[:4] for c in lists(300)],
    }
    history = {"user_id": rng.permutation(50)[:40].tolist(), "article_id_fixed": lists(40)}
    history["impression_time_fixed"] = [
        None
        if entries is None or rng.random() < 0.1
        else at(*rng.integers(-99, 99, len(entries)).tolist())
        for entries in history["article_id_fixed"]
    ]
    return behaviors, history


@pytest.mark.parametrize("seed", range(3))
def test_conversion_equals_a_slow_obvious_one(folder, monkeypatch, seed):
    monkeypatch.setattr(parquet, "BATCH_ROWS", 7)
    rng = np.random.default_rng(seed)
    known = rng.permutation(60)[:45].tolist()
    behaviors, history = random_tables(rng)
    folder.write("articles.parquet", {"article_id": known, "title": [""] * 45})
    folder.write("train/behaviors.parquet", behaviors, row_group_size=70)
    folder.write("train/history.parquet", history, row_group_size=11)
    split = folder.split(history_size=3)
    impressions = split.read(0)

    row = {article: number for number, article in enumerate(known, 1)}
    user_row = {user: number for number, user in enumerate(history["user_id"], 1)}
    counts = Counter()
    first, clicks = {}, set()
    offsets, candidates, clicked = [0], [], []
    for user, time, inview, click in zip(*list(behaviors.values())[1:], strict=True):
        if time is not None:
            first[user] = min(time, first.get(user, time))
        clicks |= {(user, article) for article in click or []}
        inview_or_empty, click_or_empty = inview or [], click or []
        offsets.append(offsets[-1] + len(inview_or_empty))
        candidates += [row.get(article, 0) for article in inview_or_empty]
        clicked += [article in click_or_empty for article in inview_or_empty]
        counts["null_time"] += time is None
        counts["user_without_history"] += user not in user_row
        counts["empty_inview"] += not inview_or_empty
        counts["null_clicks"] += click is None
        counts["no_click"] += not set(inview_or_empty) & set(click_or_empty)
        counts["duplicate_candidate"] += len(inview_or_empty) - len(set(inview_or_empty))
        counts["clicks"] += len(click_or_empty)
        counts["unknown_click"] += sum(article not in row for article in click_or_empty)
        counts["click_not_in_view"] += sum(
            article not in inview_or_empty for article in click_or_empty
        )
    rows = [[0, 0, 0]]
    for user, entries, times in zip(*history.values(), strict=True):
        counts["null_history"] += entries is None
        kept = []
        for i, article in enumerate(entries or []):
            time = times and times[i]
            counts["history_entries"] += 1
            if user in first and time is not None and time >= first[user]:
                counts["late_history"] += 1
                counts["late_history_clicked"] += (user, article) in clicks and article in row
                continue
            counts["untimed_history"] += user in behaviors["user_id"] and (
                user not in first or time is None
            )
            counts["unknown_history_article"] += article not in row
            kept += [row[article]] if article in row else []
        rows.append([*kept[-3:], 0, 0, 0][:3])
    counts |= {
        "users": 40,
        "impressions": 300,
        "candidates": len(candidates),
        "unknown_candidate": candidates.count(0),
    }

    assert impressions.offsets.tolist() == offsets
    assert impressions.candidates.tolist() == candidates
    assert impressions.clicked.tolist() == clicked
    assert impressions.user.tolist() == [user_row.get(user, 0) for user in behaviors["user_id"]]
    assert impressions.time.tolist() == behaviors["impression_time"]
    assert split.histories.rows.tolist() == rows
    assert split.report.as_dict() == counts
    assert len(counts) == 19


# --- how often files are opened


def test_a_shard_is_opened_once_for_its_split_and_once_each_time_it_is_read(integers, monkeypatch):
    """Late history clicks, an input's column and bad shards among them make no difference."""
    opened = Counter()

    class Counted(pq.ParquetFile):
        def __init__(self, path, **options):
            opened[path.name] += 1
            super().__init__(path, **options)

    integers.write_all(history={"impression_time_fixed": [at(-9, 1), at(6), []]})
    for number in range(1, 4):
        integers.write(
            f"train/behaviors-{number}.parquet",
            BEHAVIORS | {"oracle_scores": [[0.5, 0.25, 0.0], [1.0, None]]},
        )
    integers.write("train/behaviors-4.parquet", BEHAVIORS | {"user_id": [7, None]})
    integers.write("train/behaviors-5.parquet", BEHAVIORS | {"user_id": [0.5, 1.5]})
    integers.write("train/history-2.parquet", {"user_id": [3], "article_id_fixed": [[10]]})
    shards = {
        f"{name}.parquet": 1 for name in ("behaviors", *(f"behaviors-{n}" for n in range(1, 6)))
    }
    histories = {"history.parquet": 2, "history-2.parquet": 2}
    monkeypatch.setattr(parquet.pq, "ParquetFile", Counted)
    dataset = integers.open()
    split = dataset.split("train", 3, INPUTS, set_aside_bad=True)
    assert opened == shards | histories | {"articles.parquet": 1}
    assert split.report["late_history"] == 2
    good = [i for i, info in enumerate(split.shards) if info in split.good]
    assert len(good) == 4
    for reads in (1, 2):
        opened.clear()
        for i in good:
            split.read(i)
        assert split.report["late_history_clicked"] == 1
        assert opened == {storage.name(info.uri): 1 for info in split.good}, reads


# --- local and in a bucket


def fields(impressions: Impressions) -> dict[str, list | None]:
    values = {
        field.name: getattr(impressions, field.name) for field in dataclasses.fields(Impressions)
    }
    for name in ("report", "uri", "per_impression", "per_candidate"):
        del values[name]
    return {name: value if value is None else value.tolist() for name, value in values.items()}


def upload(folder: Folder, uri: str) -> None:
    for path in folder.path.rglob("*.parquet"):
        storage.upload(path, storage.join(uri, path.relative_to(folder.path).as_posix()))


def test_a_bucket_reads_as_the_folder_does(folder, bucket, tmp_path):
    folder.write_all()
    upload(folder, f"{bucket}/data")
    local, remote = folder.open(), Dataset.open(f"{bucket}/data/", tmp_path / "cache")
    splits = [dataset.split("train", 3) for dataset in (local, remote)]
    assert splits[1].shards[0].uri == f"{bucket}/data/train/behaviors.parquet"
    assert fields(splits[0].read(0)) == fields(splits[1].read(0))
    assert splits[0].histories.rows.tolist() == splits[1].histories.rows.tolist()
    assert local.fingerprint(splits[:1]) == remote.fingerprint(splits[1:])


@pytest.mark.parametrize(
    "name", ["articles.parquet", "train/behaviors.parquet", "train/history.parquet"]
)
def test_the_fingerprint_is_of_the_content(integers, name):
    def fingerprint() -> str:
        dataset = integers.open()
        return dataset.fingerprint([dataset.split("train", 3)])

    integers.write_all()
    before = fingerprint()
    integers.write_all()
    assert fingerprint() == before
    path = integers.path / name
    path.write_bytes(path.read_bytes().replace(b"parquet-cpp", b"parquet-CPP"))
    assert fingerprint() != before


def test_a_missing_bucket_is_an_error_of_the_storage(bucket, tmp_path):
    with pytest.raises(ObjectNotFound, match="no such bucket"):
        Dataset.open(f"{bucket}-not/data", tmp_path)
    with pytest.raises(SchemaError, match=r"must have the file articles\.parquet"):
        Dataset.open(f"{bucket}/data", tmp_path)


def test_a_shard_that_is_replaced_during_the_run_is_an_error(integers):
    integers.write_all()
    split = integers.split()
    integers.write("train/behaviors.parquet", BEHAVIORS | {"user_id": [8, 7]})
    with pytest.raises(StorageError, match="replaced"):
        split.read(0)
