"""What the readers of the made-up site have been shown and have clicked on, of which they tire."""

import numpy as np

KEPT = 1 << 20  # pairs of a reader and an article, those shown last; 21 bytes each


class Showings:
    """Counts for each reader how often an article was shown, in bounded memory: of the pairs of a
    reader and an article, those shown last stay known.

    Args:
        articles: the number of articles.
        readers: the number of readers.

    Attributes:
        last_click: the article on which each reader clicked last, -1 for none, int64 of shape
            `(readers,)`.
    """

    def __init__(self, articles: int, readers: int) -> None:
        self.last_click = np.full(readers, -1)
        self.articles = articles
        self.pairs = np.zeros(0, np.int64)  # reader * articles + article, sorted
        self.shown = np.zeros(0, np.int32)
        self.clicked = np.zeros(0, bool)
        self.last = np.zeros(0, np.int64)  # number of the last showing
        self.number = 0  # of the next showing


class NewShowings:
    """Candidates of some impressions, in the order of time, beside all that was shown before.

    Args:
        past: what was shown before.
        reader: the reader of each candidate, int64 of shape `(c,)`.
        article: number of each candidate, int64 of shape `(c,)`, distinct within a list.

    Attributes:
        shown: how often the reader had been shown the candidate before, int32 of shape `(c,)`.
    """

    def __init__(self, past: Showings, reader: np.ndarray, article: np.ndarray) -> None:
        pairs = reader * past.articles + article
        # Candidates by pair and time; the showings of one pair are neighbours.
        self._past, self._order = past, np.argsort(pairs, kind="stable")
        ordered = pairs[self._order]
        is_new = np.diff(ordered, prepend=-1) != 0
        self._starts, self._group = np.flatnonzero(is_new), np.cumsum(is_new) - 1
        self._pairs = ordered[self._starts]
        at = np.searchsorted(past.pairs, self._pairs)
        known = np.append(past.pairs, -1)[at] == self._pairs
        self._known = at[known]
        self._shown = np.zeros(len(self._pairs), np.int32)
        self._shown[known] = past.shown[self._known]
        self._clicked = np.zeros(len(self._pairs), bool)
        self._clicked[known] = past.clicked[self._known]
        self.shown = np.empty(len(pairs), np.int32)
        self.shown[self._order] = (
            self._shown[self._group] + np.arange(len(pairs)) - self._starts[self._group]
        )

    def clicked_before(self, clicked: np.ndarray) -> np.ndarray:
        """Which candidates the reader had clicked on before, bool of shape `(c,)`, given the clicks
        on all of them in the same shape.
        """
        passed = np.cumsum(clicked[self._order])
        earlier = passed - clicked[self._order]
        before = np.empty(len(clicked), bool)
        before[self._order] = self._clicked[self._group] | (
            earlier > earlier[self._starts][self._group]
        )
        return before

    def keep(self, clicked: np.ndarray) -> None:
        """Adds these candidates and their clicks to the past."""
        past = self._past
        counts = np.diff(self._starts, append=len(self._order))
        stays = np.ones(len(past.pairs), bool)
        stays[self._known] = False
        last = past.number + self._order[self._starts + counts - 1]
        past.number += len(clicked)
        ever = self._clicked | np.logical_or.reduceat(clicked[self._order], self._starts)
        last = np.concatenate([past.last[stays], last])
        pairs = np.concatenate([past.pairs[stays], self._pairs])
        order = np.argsort(pairs, kind="stable")
        if len(order) > KEPT:
            order = order[last[order] >= np.partition(last, -KEPT)[-KEPT]]
        past.pairs, past.last = pairs[order], last[order]
        past.shown = np.concatenate([past.shown[stays], self._shown + counts.astype(np.int32)])[
            order
        ]
        past.clicked = np.concatenate([past.clicked[stays], ever])[order]
