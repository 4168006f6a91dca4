"""The articles of the made-up site: topic, words, time, and what draws readers to each of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.sources.demo_calendar import DAYS, HOUR, Visits
from nrms.sources.demo_words import Language

TOPICS = 12
SUPPLY = 0.5  # the number of articles on the n-th topic is proportional to n ** -SUPPLY

# An article attracts by QUALITY * its quality, which nobody sees, less what it has lost by its age,
# FADING * log(1 + (age in hours / FADING_HOURS) ** FADING_POWER), and more in a burst.
QUALITY = 1.4
FADING, FADING_HOURS, FADING_POWER = 1.4, 8.0, 1.5
BURSTS = 0.12  # share of the articles that suddenly draw clicks
BURST, BURST_HOURS = 3.0, 2.0  # so much, and in so many hours it is divided by e
BURST_AFTER = 3.0  # mean hours from publication to a burst

# Bodies and document vectors tell of an article's quality, too, which its title does not: STYLE
# words of each body are, with some noise, those of its rank in quality.
STYLE, STYLE_NOISE = 8, 0.7
NO_BODY, NO_VECTOR = 0.05, 0.02  # shares of the articles
VECTOR = 64
VECTOR_NOISE = 0.35  # standard deviation of each entry; a topic and a quality of 1 have length 1


class Articles:
    """All articles of a site, in the order of publication.

    Args:
        rng: draws the articles.
        texts: draws their bodies and vectors, on which no click depends.
        count: how many, over all days of the calendar.

    Attributes:
        supply: how many articles there are on each topic, relative, float of shape `(TOPICS,)`.
        topic: number of the topic, int16 of shape `(count,)`.
        published: int64 microseconds, sorted.
        quality: standard normal, float32.
        ids: int32.
    """

    def __init__(self, rng: np.random.Generator, texts: np.random.Generator, count: int) -> None:
        self._language = Language(rng, TOPICS)
        self.supply = np.arange(1, TOPICS + 1) ** -SUPPLY
        share = self.supply / self.supply.sum()
        self.topic = rng.choice(TOPICS, count, p=share).astype(np.int16)
        self.published = Visits(0, DAYS).draw(rng, count)
        self.quality = rng.standard_normal(count, np.float32)
        self.ids = (9_500_000 + np.cumsum(rng.integers(1, 40, count))).astype(np.int32)
        after = (rng.exponential(BURST_AFTER, count) * HOUR).astype(np.int64)
        never = np.iinfo(np.int64).max
        self._burst = np.where(rng.random(count) < BURSTS, self.published + after, never)
        self._texts = {
            "title": self._language.sentences(rng, self.topic, 4 + rng.binomial(12, 1 / 3, count)),
            "subtitle": self._language.sentences(
                rng, self.topic, 8 + rng.binomial(20, 1 / 2, count)
            ),
            "body": self._bodies(texts),
            "document_vector": self._vectors(texts),
        }

    def attraction(self, article: np.ndarray, time: np.ndarray) -> np.ndarray:
        """How much articles attract at `time`, int64 microseconds: a part of the utility, float."""
        age = (time - self.published[article]) / HOUR
        faded = FADING * np.log1p((age / FADING_HOURS) ** FADING_POWER)
        bursting = time >= self._burst[article]
        attraction = QUALITY * self.quality[article] - faded
        since = (time[bursting] - self._burst[article[bursting]]) / HOUR
        attraction[bursting] += BURST * np.exp(-since / BURST_HOURS)
        return attraction

    def _bodies(self, rng: np.random.Generator) -> pa.Array:
        count = len(self.ids)
        about = self._language.sentences(rng, self.topic, 40 + rng.binomial(80, 1 / 2, count))
        seen = self.quality[:, None] + STYLE_NOISE * rng.standard_normal((count, STYLE))
        bodies = pc.binary_join_element_wise(about, self._language.style(seen), " ")
        return pc.if_else(pa.array(rng.random(count) < NO_BODY), None, bodies)

    def _vectors(self, rng: np.random.Generator) -> pa.Array:
        axes = np.linalg.qr(rng.standard_normal((VECTOR, TOPICS + 1)))[0].T
        vectors = axes[self.topic] + self.quality[:, None] * axes[TOPICS]
        vectors += VECTOR_NOISE * rng.standard_normal(vectors.shape)
        every = pa.FixedSizeListArray.from_arrays(vectors.astype(np.float32).ravel(), VECTOR)
        missing = pa.array(rng.random(len(vectors)) < NO_VECTOR)
        return pc.if_else(missing, None, every.cast(pa.list_(pa.float32())))

    def table(self, published: pa.Array) -> pa.Table:
        """The table of articles, with `published` as the times."""
        return pa.table(
            {
                "article_id": self.ids,
                **self._texts,
                "category_str": self._language.topic_names(self.topic),
                "published_time": published,
            }
        )
