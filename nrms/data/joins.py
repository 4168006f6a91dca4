"""How much of a split can be joined: articles with articles.parquet, readers with the histories,
words with the model's vocabulary.

If files do not belong together, nothing fails: most ids are unknown, and the metrics are those of
chance. So the shares of what cannot be joined are measured, compared with those of the training
split, and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.data.columns import row_numbers, unnest
from nrms.data.dataset import Dataset
from nrms.data.mistakes import first, is_mask
from nrms.data.parquet import open_parquet
from nrms.data.quality import DataReport
from nrms.data.schema import ARTICLES, BEHAVIORS, HISTORY, Column, mask_error, schema_error
from nrms.data.split import Split
from nrms.errors import SchemaError

FEW = 20  # candidates; if an upload has fewer, all of them may be unknown
# so many titles are counted, which gives the share to about 0.01 within milliseconds
_TITLES = 2_000


@dataclass(frozen=True)
class Joins:
    """The result of joining a split.

    Attributes:
        shares: see `shares`.
        warnings: one line for each thing that is likely to be wrong, including the warnings of the
            split itself.
    """

    shares: dict[str, float]
    warnings: list[str]


@dataclass(frozen=True)
class _Side:
    """The column in which the ids of a share are looked up, and what they are called."""

    contract: tuple[Column, ...]
    column: str
    ids: str


@dataclass(frozen=True)
class _Share:
    """The words for a share, and the most likely causes of a large one."""

    some: str  # "53.0% of the ..."
    none: str  # "no ..."
    causes: tuple[str, str, str]
    side: _Side | None = None


_REWRITTEN = "ids were cast, cut or given a prefix in one of the files"
_SHARES = {
    "unknown_candidates": _Share(
        "candidates are not in articles.parquet",
        "candidate is in articles.parquet",
        (
            "articles.parquet is older than the impressions",
            "it is of another site or edition",
            _REWRITTEN,
        ),
        _Side(BEHAVIORS, "article_ids_inview", "candidates"),
    ),
    "unknown_history": _Share(
        "history clicks are on articles that are not in articles.parquet",
        "history click is on an article of articles.parquet",
        (
            "articles.parquet lacks older articles",
            "the histories are of another site or edition",
            "`article_id_fixed` holds something else than ids of articles",
        ),
        _Side(HISTORY, "article_id_fixed", "history clicks"),
    ),
    "unknown_clicks": _Share(
        "clicks are on articles that are not in articles.parquet",
        "click is on an article of articles.parquet",
        (
            "`article_ids_clicked` holds positions or something else than ids of articles",
            "articles.parquet is older than the impressions",
            _REWRITTEN,
        ),
        _Side(BEHAVIORS, "article_ids_clicked", "clicks"),
    ),
    "readers_without_history": _Share(
        "impressions are of readers without a history row",
        "impression's reader has a history row",
        (
            "the histories are of other days or of some readers only",
            "`user_id` was renumbered or hashed anew in one of the files",
            "readers are new or not logged in",
        ),
        _Side(BEHAVIORS, "user_id", "readers"),
    ),
    "unknown_words": _Share(
        "words of the titles in view are not in the model's vocabulary",
        "word of the titles in view is in the model's vocabulary",
        (
            "the titles are in another language than those of the training",
            "they are of another site or section",
            "they were cleaned or encoded in another way",
        ),
    ),
}


NAMES = tuple(_SHARES)


def shares(report: DataReport, words: int = 0, unknown_words: int = 0) -> dict[str, float]:
    """The shares that cannot be joined, each from 0 to 1. A share of nothing is absent.

    Args:
        report: the counts of a split.
        words: the number of words in its titles.
        unknown_words: how many of these words are not in the vocabulary.

    Returns:
        `unknown_candidates`, `unknown_history` and `unknown_clicks`, not in articles.parquet; of
        the impressions `readers_without_history`; `unknown_words`.
    """
    counts = {
        "unknown_candidates": (report["unknown_candidate"], report["candidates"]),
        "unknown_history": (
            report["unknown_history_article"],
            report["history_entries"] - report["late_history"],
        ),
        "unknown_clicks": (report["unknown_click"], report["clicks"]),
        "readers_without_history": (report["user_without_history"], report["impressions"]),
        "unknown_words": (unknown_words, words),
    }
    return {name: unknown / total for name, (unknown, total) in counts.items() if total}


def warnings(
    split: str,
    found: Mapping[str, float],
    own: Mapping[str, float],
    max_unknown: float,
    sides: Callable[[str], str] = lambda name: "",
) -> list[str]:
    """One line for each share that is more than `max_unknown` above the training split's own.

    Args:
        split: its name.
        found: its `shares`.
        own: those of the training split; an absent one counts as 0.
        max_unknown: by how much a share may be larger.
        sides: gives the first ids of a share; called where nothing at all can be joined.
    """
    lines = []
    for name, share in found.items():
        if share > own.get(name, 0.0) + max_unknown:
            what = (
                f"{share:.1%} of the {_SHARES[name].some}"
                if share < 1
                else f"no {_SHARES[name].none}{sides(name)}"
            )
            trained = f" ({own[name]:.1%} in training)" if name in own else ""
            one, another, third = _SHARES[name].causes
            lines.append(f"{split}: {what}{trained}. Most likely {one}, {another}, or {third}.")
    return lines


def line(found: Mapping[str, float]) -> str:
    """The shares as a line of the log."""
    return ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in found.items())


def check(
    dataset: Dataset,
    split: Split,
    count_words: Callable[[list[str]], tuple[int, int]] | None,
    own: Mapping[str, float],
    max_unknown: float,
) -> Joins:
    """Measures the joins of a split whose shards have been read.

    Args:
        dataset: the data set.
        split: one of its splits.
        count_words: the words of titles, and how many of them the model does not know; None of a
            model that reads no words.
        own: the training split's own shares; nothing for the training split itself, and for a model
            without any.
        max_unknown: by how much a share may be larger before it is a warning.
    """
    report = split.report
    titles = _titles_in_view(dataset, split)
    words, unknown_words = (0, 0) if count_words is None else count_words(titles)
    found = shares(report, words, unknown_words)
    lines = split.warnings + warnings(
        split.name, found, own, max_unknown, lambda name: _sides(name, dataset, split)
    )
    if report["clicks"] == report["click_not_in_view"] > report["unknown_click"]:
        lines.append(
            f"{split.name}: no click is on an article in "
            f"view{_sides('unknown_clicks', dataset, split)}. Look at column "
            "`article_ids_clicked`: it must hold ids of `article_ids_inview`."
        )
    if titles and count_words is not None and not words:
        lines.append(
            f"{split.name}: no title in view has a word, so all articles look alike. Look at "
            "column `title` of articles.parquet: it is null or empty."
        )
    return Joins(found, lines)


def refuse_strangers(dataset: Dataset, split: Split, few: int = 1) -> None:
    """Refuses a split with `few` or more candidates if none of them is in articles.parquet. All its
    shards must have been read.

    Raises:
        SchemaError: there are so many unknown candidates and no other. It names the file that is
            wrong, as far as the histories tell.
    """
    report = split.report
    count = report["candidates"]
    if count >= few and report["unknown_candidate"] == count:
        where = split.shards[0].uri if len(split) == 1 else split.uri
        files = _Files(split.good, split.history_files, dataset.articles_file, split.cache)
        raise _strangers(count, files, dataset.articles.ids, where)


def refuse_strange_files(
    behaviors: Sequence[storage.FileInfo],
    history: Sequence[storage.FileInfo],
    articles: storage.FileInfo,
    cache: Path,
    where: str,
) -> None:
    """The same for files that are not read to the end: it stops at the first candidate that is in
    articles.parquet.

    Raises:
        SchemaError: no candidate is there, or the clicks are 0/1 masks. `where` is the split's
            folder.
    """
    with open_parquet(articles, cache, ARTICLES, {}) as reader:
        ids = reader.read("article_id")["article_id"]
    ids = ids.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.string())
    count = 0
    for info in behaviors:
        with open_parquet(info, cache, BEHAVIORS, {}) as reader:
            for batch in reader.batches("article_ids_inview", "article_ids_clicked"):
                clicks, in_view = batch.get("article_ids_clicked"), batch["article_ids_inview"]
                candidates = unnest(in_view)[1]
                if (
                    clicks is not None
                    and is_mask(clicks, in_view)
                    and not row_numbers(unnest(clicks)[1], ids).any()
                ):
                    raise mask_error(len(clicks), info.uri)
                if row_numbers(candidates, ids).any():
                    return
                count += len(candidates)
    if count:
        raise _strangers(count, _Files(behaviors, history, articles, cache), ids, where)


@dataclass(frozen=True)
class _Files:
    behaviors: Sequence[storage.FileInfo]
    history: Sequence[storage.FileInfo]
    articles: storage.FileInfo
    cache: Path


def _strangers(count: int, files: _Files, articles: pa.Array, where: str) -> SchemaError:
    """The error where none of `count` candidates is among the articles. It says which file is
    wrong, as far as the histories tell.
    """
    candidates = _first_ids(files.behaviors, files.cache, BEHAVIORS, "article_ids_inview")
    read_before = _first_ids(files.history, files.cache, HISTORY, "article_id_fixed").cast(
        articles.type
    )
    received = (
        f"none of the {count:,} candidate ids is in articles.parquet: candidates begin "
        f"{first(candidates)}, articles begin {first(articles)}"
    )
    todo = "Give the articles that these impressions are of, their ids written in the same way."
    if row_numbers(read_before, articles).any():
        received += "; articles of the histories are"
        todo = "Look at column `article_ids_inview`: it must hold ids of articles.parquet."
    elif len(read_before):
        # Two files against one. News is read for a day or two: candidates and histories need not
        # have ids in common.
        received += f"; nor are those of the histories, which begin {first(read_before)}"
        where = files.articles.uri
        todo = "Give the articles that both are of: these are others, or their ids were changed."
    return schema_error("Candidates must be in articles.parquet.", received, where, todo)


def why_no_click(dataset: Dataset, split: Split) -> str:
    """Why a split has no impression with a click and a non-click, and what to do. All its shards
    must have been read.
    """
    report = split.report
    if not report["impressions"]:
        return "no impression. Check its behaviours files."
    if report["unlabelled"] == report["impressions"]:
        return "no column `article_ids_clicked` with a value. Add it."
    if not report["clicks"]:
        return (
            f"no click in {report['impressions']:,} impressions. Write the clicked articles as "
            "`article_ids_clicked`."
        )
    if report["click_not_in_view"] == report["clicks"]:
        sides = _sides("unknown_clicks", dataset, split)
        return (
            f"{report['clicks']:,} clicks, none of them in view{sides}. Check column "
            "`article_ids_clicked`."
        )
    return (
        "clicks on all that was in view, or on articles that are not in articles.parquet. Check "
        "columns `article_ids_inview` and `article_ids_clicked`."
    )


def _titles_in_view(dataset: Dataset, split: Split) -> list[str]:
    """At most `_TITLES` titles of articles in view, taken evenly from articles.parquet."""
    rows = np.flatnonzero(split.in_view[1:])
    return dataset.articles.titles.take(
        pa.array(rows[:: max(1, -(-len(rows) // _TITLES))])
    ).to_pylist()


def _sides(name: str, dataset: Dataset, split: Split) -> str:
    """The first ids of both sides of a share and their types; "" for a share without ids."""
    side = _SHARES[name].side
    if side is None:
        return ""
    files = split.good if side.contract is BEHAVIORS else split.history_files
    ids = _first_ids(files, split.cache, side.contract, side.column)
    others, table = "articles", dataset.articles.ids
    if side.column == "user_id":
        others, table = "histories", split.histories.users
    return f": {side.ids} begin {first(ids)}, {others} begin {first(table)}"


def _first_ids(
    files: Sequence[storage.FileInfo], cache: Path, contract: tuple[Column, ...], column: str
) -> pa.Array:
    """The first ids of a column, those of some thousand rows, without nulls; empty where no file
    has ids.
    """
    for info in files:
        with open_parquet(info, cache, contract, {}) as reader:
            for batch in reader.batches(column):
                ids = batch.get(column, pa.nulls(0))
                ids = (ids if column == "user_id" else unnest(ids)[1]).drop_null()
                if len(ids):
                    return ids
    return pa.nulls(0)
