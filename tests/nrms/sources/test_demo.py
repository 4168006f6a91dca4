"""The made-up news site: the same every time, ordered in time, and honest about what can be learnt
from it.
"""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from nrms.sources import demo
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset

SIZE = {"articles": 600, "users": 300, "impressions": 2500, "validation_impressions": 700}


@pytest.fixture(scope="module")
def site() -> DemoSite:
    return DemoSite(seed=3, **SIZE)


@pytest.fixture(scope="module")
def behaviors(site: DemoSite) -> dict[str, pl.DataFrame]:
    return {
        split: pl.DataFrame(pa.concat_tables(site.behaviors(split)))
        for split in ("train", "validation")
    }


@pytest.fixture(scope="module")
def history(site: DemoSite) -> pl.DataFrame:
    return pl.DataFrame(pa.concat_tables(site.histories("train")))


def write(output: Path, seed: int = 3, shard_rows: int = 1000) -> None:
    site = DemoSite(seed=seed, **SIZE)
    write_dataset(
        site, str(output), shard_rows=shard_rows, overwrite=False, progress=lambda split, rows: None
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def slow_auc(impressions: list[tuple[list[float], list[bool]]]) -> float:
    """Mean over impressions of the share of (clicked, not clicked) pairs in the right order, ties
    counted half.
    """
    means = []
    for scores, clicked in impressions:
        ahead = [
            (yes > no) + (yes == no) / 2
            for yes, c in zip(scores, clicked, strict=True)
            if c
            for no, d in zip(scores, clicked, strict=True)
            if not d
        ]
        means.append(sum(ahead) / len(ahead))
    return sum(means) / len(means)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two")
    write(tmp_path / "three", seed=4)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
    assert not [name for name in one if name.endswith(".parquet") and one[name] == three[name]]


def test_the_size_of_shards_changes_files_but_not_rows(tmp_path):
    frames = {}
    for shard_rows, lengths in ((1000, [1000, 1000, 500]), (700, [700, 700, 700, 400])):
        write(tmp_path / str(shard_rows), shard_rows=shard_rows)
        shards = sorted((tmp_path / str(shard_rows) / "train").glob("behaviors-*.parquet"))
        assert [len(pl.read_parquet(shard)) for shard in shards] == lengths
        frames[shard_rows] = pl.read_parquet(shards)
    assert frames[1000].equals(frames[700])


def test_memory_does_not_grow_with_the_number_of_impressions():
    site = DemoSite(seed=3, **{**SIZE, "impressions": 10**9})
    assert len(next(site.behaviors("train"))) == demo.CHUNK


def test_a_chunk_does_not_depend_on_those_before(monkeypatch):
    monkeypatch.setattr(demo, "CHUNK", 400)
    first, second = DemoSite(seed=3, **SIZE), DemoSite(seed=3, **SIZE)
    list(first.histories("train"))
    list(first.behaviors("validation"))
    assert list(first.behaviors("train"))[2:] == list(second.behaviors("train"))[2:]


def test_columns_are_those_of_ebnerd(site, behaviors, history):
    assert pl.DataFrame(site.articles()).schema == {
        "article_id": pl.Int32,
        "title": pl.String,
        "subtitle": pl.String,
        "category_str": pl.String,
        "published_time": pl.Datetime("us"),
    }
    assert behaviors["train"].schema == {
        "impression_id": pl.UInt32,
        "user_id": pl.UInt32,
        "impression_time": pl.Datetime("us"),
        "device_type": pl.Int8,
        "session_id": pl.UInt32,
        "article_ids_inview": pl.List(pl.Int32),
        "article_ids_clicked": pl.List(pl.Int32),
        "oracle_scores": pl.List(pl.Float32),
    }
    assert history.schema == {
        "user_id": pl.UInt32,
        "impression_time_fixed": pl.List(pl.Datetime("us")),
        "scroll_percentage_fixed": pl.List(pl.Float32),
        "article_id_fixed": pl.List(pl.Int32),
        "read_time_fixed": pl.List(pl.Float32),
    }


def test_impressions_keep_the_contract(site, behaviors):
    articles = set(site.articles()["article_id"].to_pylist())
    assert len(articles) == SIZE["articles"]
    for row in pl.concat(behaviors.values()).iter_rows(named=True):
        in_view, clicked = row["article_ids_inview"], row["article_ids_clicked"]
        assert 5 <= len(in_view) <= 20
        assert len(set(in_view)) == len(in_view) == len(row["oracle_scores"])
        assert 1 <= len(clicked) <= 2
        assert set(clicked) <= set(in_view) <= articles
    assert pl.concat(behaviors.values())["impression_id"].to_list() == list(range(1, 3201))
    assert [len(frame) for frame in behaviors.values()] == [2500, 700]


def test_everything_happens_in_order(site, behaviors, history):
    train, validation = (frame["impression_time"] for frame in behaviors.values())
    recorded = history["impression_time_fixed"]
    assert train.is_sorted()
    assert validation.is_sorted()
    assert recorded.explode().max() < train[0] < train[-1] < validation[0]
    assert all(list(times) == sorted(times) for times in recorded)

    published = dict(
        zip(*pl.DataFrame(site.articles())["article_id", "published_time"], strict=True)
    )
    pairs = [
        *pl.concat(behaviors.values()).select("impression_time", "article_ids_inview").iter_rows(),
        *((time, [id]) for row in history.iter_rows(named=True)
          for time, id in zip(row["impression_time_fixed"], row["article_id_fixed"], strict=True)),
    ]  # fmt: skip
    ages = [time - published[id] for time, ids in pairs for id in ids]
    assert min(ages) >= timedelta(0)
    assert max(ages) <= timedelta(hours=72)


def test_histories_are_short_and_long_and_missing(history):
    lengths = history["article_id_fixed"].list.len()
    assert history["user_id"].is_unique().all()
    assert 0.9 * SIZE["users"] < len(history) < SIZE["users"]
    assert lengths.min() == 0
    assert lengths.max() > 5 * lengths.median()
    assert all(len(set(ids)) == len(ids) for ids in history["article_id_fixed"])


def test_a_few_articles_fill_the_front_page(behaviors):
    shown = Counter(behaviors["train"]["article_ids_inview"].explode())
    tenth = [count for _, count in shown.most_common(len(shown) // 10)]
    assert sum(tenth) > 0.2 * shown.total()


def test_titles_look_like_news(site):
    titles = [title.lower().split() for title in site.articles()["title"].to_pylist()]
    lengths = [len(title) for title in titles]
    words = Counter(word for title in titles for word in title)
    assert (min(lengths), max(lengths)) >= (4, 10)
    assert max(lengths) <= 16
    assert 7.5 < np.mean(lengths) < 8.5
    # Real English titles without stop words: 2,600 distinct words in 600 titles, 1,760 of them
    # once.
    assert 2000 < len(words) < 3200
    assert 0.5 < sum(count == 1 for count in words.values()) / len(words) < 0.8
    assert set("æøå") < set("".join(words))


def test_topics_tell_clicks_and_popularity_hardly_does(site, behaviors, history):
    rows = list(behaviors["validation"].iter_rows(named=True))
    labels = [
        [id in row["article_ids_clicked"] for id in row["article_ids_inview"]] for row in rows
    ]

    def auc(scores: list[list[float]]) -> float:
        return slow_auc(list(zip(scores, labels, strict=True)))

    clicks: list[tuple[datetime, int]] = [
        (row["impression_time"], id)
        for row in pl.concat(behaviors.values()).iter_rows(named=True)
        for id in row["article_ids_clicked"]
    ]
    popularity = []
    for row in rows:
        now, start = row["impression_time"], row["impression_time"] - timedelta(hours=24)
        recent = Counter(id for time, id in clicks if start <= time < now)
        popularity.append([recent[id] for id in row["article_ids_inview"]])

    topic = dict(zip(*pl.DataFrame(site.articles())["article_id", "category_str"], strict=True))
    read = {
        user: Counter(topic[id] for id in ids)
        for user, ids in history["user_id", "article_id_fixed"].iter_rows()
    }
    same_topic = [
        [read.get(row["user_id"], Counter())[topic[id]] for id in row["article_ids_inview"]]
        for row in rows
    ]

    assert 0.83 < auc([row["oracle_scores"] for row in rows]) < 0.92
    assert auc(same_topic) > 0.75
    assert 0.45 < auc(popularity) < 0.60


def test_a_chunk_of_readers_without_histories_is_whole(monkeypatch):
    monkeypatch.setattr(demo, "CHUNK", 16)  # one reader in a chunk of histories
    tables = list(DemoSite(seed=3, **SIZE).histories("train"))
    assert len(tables) == SIZE["users"]
    assert {len(table) for table in tables} == {0, 1}
    assert len({str(table.schema) for table in tables}) == 1
