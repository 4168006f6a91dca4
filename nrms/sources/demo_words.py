"""A made-up language for the demo data, with pronounceable words in Danish letters, and sentences
of these words.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Titles of 8 words have 3,000 distinct words in 1,000 of them, 6,200 in 3,000 and 11,800 in 9,000.
# Real English news has 4,100, 8,000 and 14,200: here a topic's words come more often, so that few
# impressions are enough to learn them.
FUNCTION_WORDS, FUNCTION_SHARE, FUNCTION_ZIPF = 60, 0.14, 1.0
GENERAL_WORDS, GENERAL_SHARE, GENERAL_ZIPF = 3_000, 0.28, 0.8
STYLES = 24  # general words that tell of an article's quality in its body
NAMES, NAME_SHARE, NAME_ZIPF = 20_000, 0.16, 0.7
TOPIC_WORDS, TOPIC_SHARE, TOPIC_ZIPF = 300, 0.42, 1.3  # 300 words in each topic

# Parts of syllables; a letter or cluster that stands here twice is twice as likely.
_CLUSTERS = [
    "bl",
    "br",
    "dr",
    "fl",
    "fr",
    "gr",
    "kl",
    "kr",
    "kv",
    "pr",
    "sk",
    "sl",
    "sp",
    "st",
    "tr",
]
_FIRST = [*"bdfghjklmnprstv", *"bdfghklmrstv", *_CLUSTERS]
_INNER = [*"bdfgklmnrstv", "ld", "nd", "nt", "rd", "rk", "st"]
_VOWELS = [*"aaaeeeeiioouyæøå"]
_LAST = [*[""] * 4, *"rrnnlstdgk", "nd", "st", "sk", "ng"]


def make_words(
    rng: np.random.Generator, count: int, syllables: tuple[int, int], taken: set[str]
) -> list[str]:
    """Draws `count` new, distinct words with `syllables` = (fewest, most) syllables, and adds them
    to `taken`.
    """
    words: list[str] = []
    most = syllables[1]
    while len(words) < count:
        lengths = rng.integers(syllables[0], most + 1, count)
        vowels, inner = rng.choice(_VOWELS, (count, most)), rng.choice(_INNER, (count, most))
        first, last = rng.choice(_FIRST, count), rng.choice(_LAST, count)
        parts = [first, vowels[:, 0]]
        for i in range(1, most):
            parts += [np.where(i < lengths, letters[:, i], "") for letters in (inner, vowels)]
        made = pc.binary_join_element_wise(*map(pa.array, [*parts, last]), "")
        for word in made.to_pylist():
            if word not in taken and len(words) < count:
                taken.add(word)
                words.append(word)
    return words


def zipf(rng: np.random.Generator, size: int, count: int, exponent: float) -> np.ndarray:
    """Draws `count` numbers r from 0 to `size - 1` with the weights `(r + 1) ** -exponent`."""
    cumulative = np.cumsum(np.arange(1, size + 1) ** -exponent)
    return np.searchsorted(cumulative, rng.random(count) * cumulative[-1])


class Language:
    """A word list in four parts: function words, general words, names, and the words of each topic.

    Args:
        rng: draws the words.
        topics: the number of topics.
    """

    def __init__(self, rng: np.random.Generator, topics: int) -> None:
        taken: set[str] = set()
        self.words = pa.array(
            make_words(rng, FUNCTION_WORDS, (1, 1), taken)
            + make_words(rng, GENERAL_WORDS, (1, 3), taken)
            + make_words(rng, NAMES, (2, 3), taken)
            + make_words(rng, TOPIC_WORDS * topics, (2, 4), taken)
        )
        self._first_topic_word = FUNCTION_WORDS + GENERAL_WORDS + NAMES

    def topic_names(self, topics: np.ndarray) -> pa.StringArray:
        """The most frequent word of each topic in `topics`, an int array."""
        return self.words.take(
            pa.array(self._first_topic_word + topics.astype(np.int64) * TOPIC_WORDS)
        )

    def style(self, ranks: np.ndarray) -> pa.StringArray:
        """For each row of `ranks`, float `(n, words)`, mostly within 3 of 0, general words that say
        how high each is.
        """
        steps = np.clip((ranks + 3) / 6 * STYLES, 0, STYLES - 1).astype(np.int64)
        words = self.words.take(pa.array((FUNCTION_WORDS + steps).ravel()))
        offsets = np.arange(len(ranks) + 1) * ranks.shape[1]
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), words), " ")

    def sentences(
        self, rng: np.random.Generator, topics: np.ndarray, lengths: np.ndarray
    ) -> pa.StringArray:
        """Draws for each i a sentence of `lengths[i]` words about topic `topics[i]`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        total = int(offsets[-1])
        part = rng.choice(4, total, p=[FUNCTION_SHARE, GENERAL_SHARE, NAME_SHARE, TOPIC_SHARE])
        pool = self._first_topic_word + np.repeat(topics, lengths).astype(np.int64) * TOPIC_WORDS
        ids = np.choose(
            part,
            [
                zipf(rng, FUNCTION_WORDS, total, FUNCTION_ZIPF),
                FUNCTION_WORDS + zipf(rng, GENERAL_WORDS, total, GENERAL_ZIPF),
                FUNCTION_WORDS + GENERAL_WORDS + zipf(rng, NAMES, total, NAME_ZIPF),
                pool + zipf(rng, TOPIC_WORDS, total, TOPIC_ZIPF),
            ],
        )
        tokens = pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), self.words.take(pa.array(ids))
        )
        return pc.utf8_capitalize(pc.binary_join(tokens, " "))
