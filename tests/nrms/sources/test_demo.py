"""The made-up news site: the same every time, ordered in time, and honest about what can be learnt
from it.
"""

import math
from collections import Counter, defaultdict, deque
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from nrms.sources import demo, demo_showings
from nrms.sources.config import DemoConfig
from nrms.sources.demo import DemoSite
from nrms.sources.demo_calendar import Visits
from nrms.sources.demo_readers import Readers, draw_sessions
from nrms.sources.demo_showings import NewShowings, Showings
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


def test_memory_does_not_grow_with_the_number_of_impressions(monkeypatch):
    site = DemoSite(seed=3, **{**SIZE, "impressions": 10**9})
    assert 0 < len(next(site.behaviors("train"))) <= demo.CHUNK

    monkeypatch.setattr(demo_showings, "KEPT", 1000)
    monkeypatch.setattr(demo, "CHUNK", 400)
    kept = []
    keep = NewShowings.keep

    def counted(self: NewShowings, clicked: np.ndarray) -> None:
        keep(self, clicked)
        kept.append(len(self._past.pairs))

    monkeypatch.setattr(NewShowings, "keep", counted)
    list(DemoSite(seed=3, **SIZE).behaviors("train"))
    assert len(kept) == 7
    assert kept == [1000] * 7


def test_showings_are_counted_as_one_by_one():
    rng = np.random.default_rng(0)
    past = Showings(articles=20, readers=5)
    counts: Counter[tuple[int, int]] = Counter()
    clicks: set[tuple[int, int]] = set()
    for _ in range(3):
        reader, article = rng.integers(5, size=60), rng.integers(20, size=60)
        clicked = rng.random(60) < 0.2
        new = NewShowings(past, reader, article)
        before = new.clicked_before(clicked)
        for i, pair in enumerate(zip(reader.tolist(), article.tolist(), strict=True)):
            assert (new.shown[i], before[i]) == (counts[pair], pair in clicks)
            counts[pair] += 1
            if clicked[i]:
                clicks.add(pair)
        new.keep(clicked)


def test_of_the_showings_the_last_ones_are_kept(monkeypatch):
    monkeypatch.setattr(demo_showings, "KEPT", 3)
    past = Showings(articles=10, readers=1)
    for articles in ([1, 2, 3], [4, 2]):
        shown = np.array(articles)
        NewShowings(past, np.zeros_like(shown), shown).keep(np.zeros(len(shown), bool))
    again = NewShowings(past, np.zeros(5, np.int64), np.arange(5))
    assert again.shown.tolist() == [0, 0, 2, 1, 1]


def test_what_a_chunk_holds_does_not_depend_on_what_was_read_before(monkeypatch):
    monkeypatch.setattr(demo, "CHUNK", 400)
    first, second = DemoSite(seed=3, **SIZE), DemoSite(seed=3, **SIZE)
    list(first.histories("train"))
    list(first.behaviors("validation"))
    assert list(first.behaviors("train")) == list(second.behaviors("train"))
    assert list(first.behaviors("validation")) == list(second.behaviors("validation"))


def test_bodies_and_vectors_tell_of_topic_and_quality_and_some_are_missing(site):
    articles = pl.DataFrame(site.articles())
    drawn = site._articles
    assert 0.01 < articles["body"].null_count() / len(articles) < 0.1
    there = articles["document_vector"].is_not_null().to_numpy()
    assert 0.9 < there.mean() < 1
    vectors = np.stack(articles["document_vector"].drop_nulls().to_numpy())
    topic, quality = drawn.topic[there], drawn.quality[there]
    means = np.stack([vectors[topic == number].mean(0) for number in range(12)])
    nearest = ((vectors[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == topic).mean() > 0.6
    fitted = np.linalg.lstsq(vectors - means[topic], quality, rcond=None)[0]
    assert np.corrcoef((vectors - means[topic]) @ fitted, quality)[0, 1] > 0.6
    last = articles.with_columns(quality=drawn.quality).drop_nulls("body")
    words = last.select("quality", word=pl.col("body").str.split(" ").list.tail(8)).explode("word")
    usual = words.group_by("word").agg(pl.col("quality").mean().alias("usual"), pl.len())
    assert usual["usual"].max() - usual["usual"].min() > 2


def test_columns_are_those_of_ebnerd(site, behaviors, history):
    assert pl.DataFrame(site.articles()).schema == {
        "article_id": pl.Int32,
        "title": pl.String,
        "subtitle": pl.String,
        "body": pl.String,
        "document_vector": pl.List(pl.Float32),
        "category_str": pl.String,
        "published_time": pl.Datetime("us"),
    }
    assert behaviors["train"].schema == {
        "impression_id": pl.UInt32,
        "user_id": pl.UInt32,
        "impression_time": pl.Datetime("us"),
        "device_type": pl.Int8,
        "session_id": pl.UInt32,
        "article_id": pl.Int32,
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
        assert 5 <= len(in_view) <= 100
        assert len(set(in_view)) == len(in_view) == len(row["oracle_scores"])
        assert 1 <= len(clicked) <= 2
        assert set(clicked) <= set(in_view) <= articles
        assert row["article_id"] is None or row["article_id"] in articles
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
    assert max(ages) <= timedelta(days=15)


def test_histories_are_short_and_long_and_missing(history):
    lengths = history["article_id_fixed"].list.len()
    assert history["user_id"].is_unique().all()
    assert 0.9 * SIZE["users"] < len(history) < SIZE["users"]
    assert lengths.min() == 0
    assert lengths.max() > 4 * lengths.median()
    assert all(len(set(ids)) == len(ids) for ids in history["article_id_fixed"])


def test_a_session_goes_on_where_the_reader_clicked(behaviors):
    train = behaviors["train"]
    sessions = train.partition_by("session_id", maintain_order=True)
    assert all(frame["user_id"].n_unique() == 1 for frame in sessions)
    later = [
        (row["article_id"], before["article_ids_clicked"])
        for frame in sessions
        for before, row in pairwise(frame.iter_rows(named=True))
        if row["article_id"] is not None
    ]
    # A reader may have two sessions at once.
    assert np.mean([page in clicked for page, clicked in later]) > 0.95


def test_sessions_do_not_outlast_their_split():
    readers = Readers(np.random.default_rng(0), 5, np.ones(3))
    visits = Visits(23, 7)
    drawn = draw_sessions(np.random.default_rng(1), readers, visits, 990_000, 10**6, 10**6)
    assert visits.moment(np.array(0.99)) <= drawn.time[0]
    assert drawn.time[-1] < visits.end


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


def test_whoever_knows_more_ranks_better():
    size = DemoConfig()
    site = DemoSite(
        seed=3,
        articles=size.articles,
        users=size.users,
        impressions=size.impressions,
        validation_impressions=2000,
    )
    frames = [
        pl.DataFrame(pa.concat_tables(site.behaviors(split))) for split in ("train", "validation")
    ]
    rows, first = pl.concat(frames).iter_rows(named=True), size.impressions
    articles = pl.DataFrame(site.articles())
    topic, published = (
        dict(zip(articles["article_id"], articles[name], strict=True))
        for name in ("category_str", "published_time")
    )
    read = {
        user: Counter(topic[id] for id in ids)
        for user, ids in pl.DataFrame(pa.concat_tables(site.histories("train")))[
            "user_id", "article_id_fixed"
        ].iter_rows()
    }
    scores: dict[str, list[list[float]]] = defaultdict(list)
    labels = []
    # What happened until a minute before: an article's clicks, and in how many lists one article
    # was clicked and another was not.
    pending: deque[tuple[datetime, list[int], list[int]]] = deque()
    wins: Counter[tuple[int, int]] = Counter()
    recent: deque[tuple[datetime, int]] = deque()
    clicks: Counter[int] = Counter()
    for number, row in enumerate(rows):
        now, ids = row["impression_time"], row["article_ids_inview"]
        while pending and pending[0][0] < now - timedelta(seconds=60):
            then, clicked, beside = pending.popleft()
            recent += [(then, id) for id in clicked]
            clicks.update(clicked)
            wins.update((id, other) for id in clicked for other in beside)
        while recent and recent[0][0] < now - timedelta(hours=24):
            clicks[recent.popleft()[1]] -= 1
        pending.append((now, row["article_ids_clicked"], ids))
        if number < first:
            continue
        labels.append([id in row["article_ids_clicked"] for id in ids])
        by_topic = read.get(row["user_id"], Counter())
        scores["newest"].append([published[id].timestamp() for id in ids])
        scores["popularity"].append([clicks[id] for id in ids])
        scores["wins"].append(
            [
                sum(math.log((wins[x, z] + 0.3) / (wins[z, x] + 0.3)) for z in ids) / len(ids)
                for x in ids
            ]
        )
        scores["topics"].append([math.log(by_topic[topic[id]] + 1) for id in ids])
        scores["wins and topics"].append(
            [
                win + topical / 3
                for win, topical in zip(scores["wins"][-1], scores["topics"][-1], strict=True)
            ]
        )
        scores["oracle"].append(row["oracle_scores"])
    auc = {name: slow_auc(list(zip(of, labels, strict=True))) for name, of in scores.items()}
    assert auc["newest"] > 0.48
    assert max(auc["newest"], 0.56) < auc["popularity"]
    assert auc["popularity"] + 0.03 < auc["wins"]
    assert auc["topics"] > 0.65
    assert max(auc["wins"], auc["topics"]) + 0.03 < auc["wins and topics"] < auc["oracle"]
    assert 0.9 < auc["oracle"] < 0.97


def test_a_chunk_of_readers_without_histories_is_whole(monkeypatch):
    monkeypatch.setattr(demo, "CHUNK", 64)  # one reader in a chunk of histories
    tables = list(DemoSite(seed=3, **SIZE).histories("train"))
    assert len(tables) == SIZE["users"]
    assert {len(table) for table in tables} == {0, 1}
    assert len({str(table.schema) for table in tables}) == 1
