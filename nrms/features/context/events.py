"""Impressions as events: who was shown what when, and what was clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.columns import list_places, list_rows
from nrms.data.impressions import Impressions

NO_PAGE = -1


@dataclass(frozen=True)
class Events:
    """Lists that were shown: n lists with c candidates in total.

    Attributes:
        time: when each was shown, microseconds since 1970 in UTC, int64 `(n,)`.
        reader: place in `readers`, int64 `(n,)`.
        page: place in `articles` of the article on whose page it stood, int64 `(n,)`; -1 on the
            front page.
        offsets: int64 `(n + 1,)`; the candidates of list i are `offsets[i]:offsets[i + 1]`.
        article: place in `articles`, int64 `(c,)`.
        clicked: whether it was clicked, bool `(c,)`.
        exposed: whether the list counts as shown, bool `(n,)`. Clicks that become known late come
            with their list once more, which then is not shown again.
        articles: the ids that occur, int64 or string, without duplicates.
        readers: the same of readers.
    """

    time: np.ndarray
    reader: np.ndarray
    page: np.ndarray
    offsets: np.ndarray
    article: np.ndarray
    clicked: np.ndarray
    articles: pa.Array
    readers: pa.Array
    exposed: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def __post_init__(self) -> None:
        if len(self.exposed) != len(self.time):
            object.__setattr__(self, "exposed", np.ones(len(self.time), bool))

    def __len__(self) -> int:
        return len(self.time)

    @classmethod
    def empty(cls) -> Events:
        """No events."""
        none, ids = np.empty(0, np.int64), pa.array([], pa.int64())
        return cls(none, none, none, np.zeros(1, np.int64), none, np.empty(0, bool), ids, ids)

    @classmethod
    def of(cls, impressions: Impressions, rows: np.ndarray | None = None) -> Events:
        """A shard's impressions, or those of these rows, in that order. They must have times."""
        if rows is not None:
            impressions = impressions.take(rows)
        assert impressions.time is not None
        ids, n = impressions.candidate_ids, len(impressions)
        page = impressions.page_id
        if page is not None:
            ids = pa.concat_arrays([ids, page.cast(ids.type)])
        article, articles = encoded(ids)
        reader, readers = encoded(impressions.user_id)
        candidates = len(impressions.candidates)
        clicked = impressions.clicked
        return cls(
            impressions.time.astype("datetime64[us]").astype(np.int64),
            reader,
            np.full(n, NO_PAGE) if page is None else article[candidates:],
            impressions.offsets,
            article[:candidates],
            np.zeros(candidates, bool) if clicked is None else clicked,
            articles,
            readers,
        )

    def take(self, rows: np.ndarray) -> Events:
        """These lists alone, in the order of `rows`, int64 `(m,)`."""
        offsets, places = list_places(self.offsets, rows)
        return Events(
            self.time[rows],
            self.reader[rows],
            self.page[rows],
            offsets,
            self.article[places],
            self.clicked[places],
            self.articles,
            self.readers,
            self.exposed[rows],
        )

    def cut(self, start: int, stop: int) -> Events:
        """The lists from `start` up to `stop`."""
        first, last = self.offsets[start], self.offsets[stop]
        return Events(
            self.time[start:stop],
            self.reader[start:stop],
            self.page[start:stop],
            self.offsets[start : stop + 1] - first,
            self.article[first:last],
            self.clicked[first:last],
            self.articles,
            self.readers,
            self.exposed[start:stop],
        )

    def in_order(self) -> Events:
        """The same in the order of time. Lists of the same time keep theirs."""
        order = np.argsort(self.time, kind="stable")
        return self if np.array_equal(order, np.arange(len(order))) else self.take(order)

    @staticmethod
    def joined(parts: Sequence[Events]) -> Events:
        """All lists of the parts, in the order of time."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return Events.empty()
        if len(parts) == 1:
            return parts[0].in_order()
        article, articles = _united([part.articles for part in parts])
        reader, readers = _united([part.readers for part in parts])
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        pages = zip(article, parts, strict=True)
        return Events(
            np.concatenate([part.time for part in parts]),
            np.concatenate([own[part.reader] for own, part in zip(reader, parts, strict=True)]),
            np.concatenate(
                [np.where(part.page < 0, NO_PAGE, own[part.page]) for own, part in pages]
            ),
            np.append(0, np.cumsum(lengths)),
            np.concatenate([own[part.article] for own, part in zip(article, parts, strict=True)]),
            np.concatenate([part.clicked for part in parts]),
            articles,
            readers,
            np.concatenate([part.exposed for part in parts]),
        ).in_order()

    def distinct(self) -> Events:
        """The same with each article once in a list, clicked if one of its places was."""
        rows = list_rows(self.offsets)
        keys = rows * max(1, len(self.articles)) + self.article
        found, place = np.unique(keys, return_inverse=True)
        if len(found) == len(keys):
            return self
        clicked = np.zeros(len(found), bool)
        clicked[place[self.clicked]] = True
        rows, article = np.divmod(found, max(1, len(self.articles)))
        offsets = np.searchsorted(rows, np.arange(len(self) + 1))
        return replace(self, offsets=offsets, article=article, clicked=clicked)

    def compact(self) -> Events:
        """The same, whose ids are those that occur alone."""
        both = np.concatenate([self.article, self.page[self.page >= 0]])
        used, place = np.unique(both, return_inverse=True)
        page = self.page.copy()
        page[page >= 0] = place[len(self.article) :]
        readers, reader = np.unique(self.reader, return_inverse=True)
        return replace(
            self,
            article=place[: len(self.article)],
            page=page,
            reader=reader,
            articles=self.articles.take(pa.array(used)),
            readers=self.readers.take(pa.array(readers)),
        )


def encoded(ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The place of each id among those that occur, int64, -1 for a null; and these."""
    found = ids.dictionary_encode()
    indices = pc.fill_null(found.indices, NO_PAGE).to_numpy().astype(np.int64)
    return indices, found.dictionary


def _united(vocabularies: Sequence[pa.Array]) -> tuple[list[np.ndarray], pa.Array]:
    """For each array of ids their places among all, and all ids."""
    codes, ids = encoded(pa.concat_arrays([one.cast(vocabularies[0].type) for one in vocabularies]))
    ends = np.cumsum([len(one) for one in vocabularies])
    return np.split(codes, ends[:-1]), ids
