"""The made-up site is like a real one: docs/how-to/data.md says in which facts, and how nearly."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from nrms.sources.config import DemoConfig
from nrms.sources.demo import DemoSite

DOCS = Path(__file__).parents[3] / "docs/how-to/data.md"
COLUMNS = "| fact | a real site | within |\n| --- | --- | --- |\n"
Numbers = list[float]


def promised() -> dict[str, tuple[Numbers, str]]:
    """What the docs say of each fact: the numbers of the real site, and the tolerance."""
    table = DOCS.read_text().partition(COLUMNS)[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.M)
    return {
        fact: ([float(number.replace(",", "")) for number in wanted.split("/")], within)
        for fact, wanted, within in rows
    }


def quantiles(values: pl.Series, *percent: int) -> Numbers:
    return np.quantile(values.to_numpy(), np.array(percent) / 100).tolist()


def slashes(numbers: Numbers) -> str:
    return "/".join(f"{number:.4g}" for number in numbers)


def percent(values: np.ndarray) -> float:
    return 100 * float(np.mean(values))


def measured(site: DemoSite) -> dict[str, Numbers]:
    """The same facts of `site`."""
    rows = pl.concat(
        pl.DataFrame(pa.concat_tables(site.behaviors(split))) for split in ("train", "validation")
    ).with_columns(size=pl.col("article_ids_inview").list.len())
    articles = pl.DataFrame(site.articles()).select("article_id", "published_time")
    shown = pl.col("impression_id").cum_count().over("user_id", "article")
    clicks = pl.col("clicked").cast(pl.Int32)
    clicks_before = clicks.cum_sum().over("user_id", "article") - clicks
    candidates = (
        rows.rename({"article_id": "page"})
        .with_columns(article="article_ids_inview", place=pl.int_ranges("size"))
        .explode("article", "place")
        .with_columns(clicked=pl.col("article").is_in(pl.col("article_ids_clicked")))
        .with_columns(shown=shown - 1, clicked_before=clicks_before > 0)
        .join(articles, left_on="article", right_on="article_id")
        .with_columns(age=pl.col("impression_time") - pl.col("published_time"))
        .with_columns(pl.col("age").dt.total_seconds() / 3600)
    )
    clicked = candidates.filter("clicked")

    def by_age(of: pl.DataFrame) -> Numbers:
        edges = [0, 1, 3, 6, 12, 24, 48, np.inf]
        return (100 * np.histogram(of["age"], edges)[0] / len(of)).tolist()

    counts = candidates.group_by("article").agg(pl.len(), pl.col("clicked").sum()).drop("article")

    def top(column: str, *shares: float) -> Numbers:
        ordered = counts[column].sort(descending=True).to_numpy()
        return [100 * ordered[: int(s * len(ordered))].sum() / ordered.sum() for s in shares]

    def rate(least: int, most: int) -> float:
        some = candidates.filter(pl.col("shown").is_between(least, most))
        return percent(some["clicked"].to_numpy())

    def shared(pairs: list[tuple[set, set]], of: str) -> Numbers:
        sizes = [(len(a & b), len(a | b) if of == "both" else len(b)) for a, b in pairs]
        shares = np.array([common / whole for common, whole in sizes])
        return [percent(shares), percent(shares == 0)]

    lists = rows.with_columns(
        list=pl.Series([set(ids) for ids in rows["article_ids_inview"].to_list()], dtype=pl.Object)
    )
    front = rows.with_row_index().filter(pl.col("article_id").is_null())
    sets = lists["list"].to_list()
    minutes_apart = [
        (sets[i], sets[j])
        for (i, one, then), (j, other, now) in pairwise(
            front.select("index", "user_id", "impression_time").iter_rows()
        )
        if one != other and (now - then).total_seconds() < 600
    ]
    by_reader = rows.with_row_index().sort("user_id", "index").select("index", "user_id")
    returns = [
        (sets[i], sets[j])
        for (i, one), (j, other) in pairwise(by_reader.iter_rows())
        if one == other
    ]
    sessions = rows.group_by("session_id").agg(
        pl.len(), pauses=pl.col("impression_time").diff().drop_nulls().dt.total_milliseconds()
    )
    hours = rows["impression_time"].dt.hour().to_numpy()
    days = candidates.group_by(pl.col("impression_time").dt.date()).agg(pl.n_unique("article"))
    history = pl.DataFrame(pa.concat_tables(site.histories("train")))
    device = rows["device_type"].to_numpy()
    place = (clicked["place"] + 0.5) / clicked["size"]
    return {
        "impressions by hour of the day, 0 to 23, %": (
            100 * np.bincount(hours, minlength=24) / len(hours)
        ).tolist(),
        "list length, quantiles 10/25/50/75/90/95/99": quantiles(
            rows["size"], 10, 25, 50, 75, 90, 95, 99
        ),
        "shortest and longest list": [rows["size"].min(), rows["size"].max()],
        "place of a click in its list, from 0 to 1": [place.mean()],
        "impressions on the front page, %": [percent(rows["article_id"].is_null().to_numpy())],
        "impressions on device 1/2/3, %": [percent(device == number) for number in (1, 2, 3)],
        "clicks by age of the article, under 1/3/6/12/24/48 hours, older, %": by_age(clicked),
        "exposures by the same ages, %": by_age(candidates),
        "articles a day: exposed, new": [days["article"].mean(), len(articles) / 32],
        "exposed articles that are ever clicked, %": [percent(counts["clicked"].to_numpy() > 0)],
        "clicks of the top 1/10/20 % of articles, %": top("clicked", 0.01, 0.1, 0.2),
        "exposures of the top 1/10 % of articles, %": top("len", 0.01, 0.1),
        "shown to this reader before: candidates, clicks, %": [
            percent(of["shown"].to_numpy() > 0) for of in (candidates, clicked)
        ],
        "click rate after 0/1/2/3 to 5/6 and more showings, %": [
            rate(*ends) for ends in ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10**9))
        ],
        "clicked by this reader before: candidates, clicks, %": [
            percent(of["clicked_before"].to_numpy()) for of in (candidates, clicked)
        ],
        "impressions of a session: mean": [sessions["len"].mean()],
        "impressions of a session, quantiles 50/75/90/99": quantiles(
            sessions["len"], 50, 75, 90, 99
        ),
        "seconds between two of a session, median": [sessions["pauses"].explode().median() / 1000],
        "impressions of a reader in nine days, quantiles 50/90": quantiles(
            rows.group_by("user_id").len()["len"], 50, 90
        ),
        "history length, quantiles 10/50/90": quantiles(
            history["article_id_fixed"].list.len(), 10, 50, 90
        ),
        "two front-page lists minutes apart: articles in common, no article, %": shared(
            minutes_apart, "both"
        ),
        "list and the reader's previous one: articles in common, no article, %": shared(
            returns, "the later"
        ),
    }


def test_the_facts_are_those_of_a_real_site():
    size = DemoConfig()
    site = DemoSite(
        seed=size.seed,
        articles=size.articles,
        users=size.users,
        impressions=size.impressions,
        validation_impressions=size.impressions // 4,
    )
    facts, wanted = measured(site), promised()
    assert facts.keys() == wanted.keys()
    table, wrong = ["fact | wanted | got | within"], []
    for fact, (numbers, within) in wanted.items():
        got = facts[fact]
        for number, measure in zip(numbers, got, strict=True):
            limit = float(within.removesuffix(" %")) * (number / 100 if "%" in within else 1)
            if abs(measure - number) > limit:
                wrong.append((fact, number, measure))
        table.append(f"{fact} | {slashes(numbers)} | {slashes(got)} | {within}")
    sys.stdout.write("\n".join(table) + "\n")  # pytest -s shows it
    assert not wrong
