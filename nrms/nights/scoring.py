"""Scores a data set with a published model: predictions, metrics and report, which is all that
`jobs.score` does.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrms import bundles, storage
from nrms.config import as_dict
from nrms.data import joins
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.prefetch import prefetch
from nrms.errors import ConfigError, SchemaError
from nrms.evaluation import comparison, plots
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.baselines import INPUTS, Popularity, standard_baselines
from nrms.evaluation.beyond_accuracy import BeyondAccuracy, with_category
from nrms.evaluation.evaluation import Evaluation
from nrms.evaluation.html_report import Example, write_report
from nrms.evaluation.ranking import METRICS
from nrms.features.context.past import Past
from nrms.features.context.start import start_before
from nrms.inference.article_vectors import ArticleVectors, default_folder
from nrms.inference.loaded_model import Catalogue, LoadedModel, Scorer
from nrms.nights.config import ScoreConfig
from nrms.nights.examples import examples
from nrms.nights.output import NightOutput
from nrms.nights.start import Start, start_of_night
from nrms.nights.submission import SUBMISSIONS, refuse_line_breaks, submission
from nrms.storage.commit import fingerprint
from nrms.storage.scratch import scratch_folder
from nrms.tracking import Tracker

logger = logging.getLogger(__name__)

_LIBRARIES = ("tensorflow", "keras", "onnxruntime", "numpy", "pyarrow")
# What computes scores, by runtime.
_COMPUTE = {"keras": ("tensorflow", "keras", "numpy"), "onnx": ("onnxruntime", "numpy")}
_RULES = 2  # version of the scoring, raised by each change of this code that moves a digit
# seed of the random baseline, the same for every run, so that equal inputs give equal metrics
_SEED = 42
_EXAMPLES = 10


@dataclass(frozen=True)
class ScoringResult:
    """The result of a scoring.

    Attributes:
        output: the folder.
        model_uri: the version that scored.
        metrics: as `Evaluation.metrics` gives them; None where everything was there already.
        written: the parts that this run wrote, without those that it found whole.
    """

    output: str
    model_uri: str
    metrics: dict[str, Any] | None
    written: int


def score(
    config: ScoreConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> ScoringResult:
    """Scores a split shard by shard. However a run ended, the next one does only what is missing.

    Args:
        config: see `nrms.nights.config.ScoreConfig`.
        progress: called with the number of impressions done, at first 0, and that of the whole
            split.

    Returns:
        Where the predictions lie and what the metrics are.

    Raises:
        ConfigError: the output holds predictions of other data or another model.
        SchemaError: the data breaks the contract. Where only some behaviours files do, the others
            are scored before.
        ArtifactError: the model is incomplete, altered or of another format.
        StorageError: data, model or output could not be read or written, or another run took the
            output.
    """
    with scratch_folder() as cache:
        return _Scoring(config, cache).run(progress)


class _Scoring:
    """One run."""

    def __init__(self, config: ScoreConfig, cache: Path) -> None:
        self._config = config
        self._cache = cache
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._inner_seconds = 0.0
        with self._timed("model"):
            self._bundle = bundles.load(config.model, cache, [config.runtime])
            self._model = LoadedModel.open(self._bundle, config.runtime)
        with self._timed("open"):
            columns = with_category(self._model.inputs.columns)
            self._dataset = Dataset.open(config.data, cache, columns)
            self._split = self._dataset.split(
                config.split,
                self._model.inputs.history.size,
                (*INPUTS, *self._model.inputs.moment),
                set_aside_bad=True,
            )
            self._inputs = self._files_read()
        self._start = self._context_start()
        self._output = NightOutput(storage.normal(config.output), self._plan())

    def run(self, progress: Callable[[int, int], None]) -> ScoringResult:
        """See `score`."""
        names = SUBMISSIONS.get(self._config.submission)
        wanted = ["metrics.json", "report.html", *([names[0]] if names else [])]
        if not self._output.claim(wanted, self._config.overwrite, self._config.verify):
            return ScoringResult(self._config.output, self._bundle.uri, None, 0)
        with self._timed("check"):
            popularity, ages = self._check()
        articles = self._dataset.articles
        vectors = self._catalogue.vectors
        with self._timed("metrics"):
            beyond = BeyondAccuracy.of(self._split, articles, popularity, ages, vectors)
        baselines = standard_baselines(popularity, articles.published, _SEED)
        evaluation = Evaluation(baselines, ages=ages, beyond=beyond)
        shown: list[Example] = []
        with scratch_folder() as folder, ExitStack() as stack:
            write_ranks = stack.enter_context(submission(folder, names)) if names else None
            done, total = (
                0,
                sum(self._split.file_rows[self._split.shards[i].uri] for i in self._good()),
            )
            progress(0, total)
            for number, impressions in stack.enter_context(closing(self._shards())):
                with self._timed("write"):
                    scores = self._output.scores(
                        number, impressions, functools.partial(self._score, impressions)
                    )
                with self._timed("metrics"):
                    lengths = self._split.histories.lengths[impressions.user]
                    evaluation.add(impressions, lengths, scores)
                    if write_ranks is not None:
                        write_ranks(impressions, scores)
                    shown += examples(
                        impressions,
                        scores,
                        self._dataset.articles,
                        self._split.histories,
                        _EXAMPLES - len(shown),
                    )
                done += len(impressions)
                progress(done, total)
            assert done == total, f"{total} rows in, {done} rows out"
            self._refuse_bad()
            stack.close()
            metrics = evaluation.metrics()
            doubts = comparison.warnings(self._split.name, metrics)
            if "auc" in metrics:
                logger.info("%s: %s", self._split.name, comparison.summary(metrics))
            metrics |= {
                "joins": self._joins.shares,
                "warnings": self._joins.warnings + self._doubts + doubts,
            }
            self._finish(folder, metrics, evaluation, shown)
        return ScoringResult(
            self._config.output, self._bundle.uri, metrics, len(self._output.written)
        )

    def _files_read(self) -> list[dict[str, Any]]:
        """Every file that the predictions depend on."""
        dataset, split = self._dataset, self._split
        files: dict[str, tuple[storage.FileInfo, int | None]] = {
            "articles.parquet": (dataset.articles_file, len(dataset.articles))
        }
        files |= {
            f"{split.name}/{path}": (info, split.file_rows.get(info.uri))
            for path, info in split.files.items()
        }
        return [
            {
                "name": name,
                "generation": info.generation,
                **fingerprint(info, self._cache),
                "rows": rows,
            }
            for name, (info, rows) in sorted(files.items())
        ]

    def _plan(self) -> dict[str, Any]:
        """All that can change a digit, except the hardware."""
        # Generations are left out, because the same bytes copied again are the same input.
        inputs = [
            {name: file[name] for name in ("name", "size", "crc32c")} for file in self._inputs
        ]
        model = {"version": self._bundle.version, "sha256": self._bundle.sha256}
        runtime = self._config.runtime
        libraries = {library: importlib.metadata.version(library) for library in _COMPUTE[runtime]}
        return {
            "model": model,
            "split": self._split.name,
            "runtime": runtime,
            "libraries": libraries,
            "rules": _RULES,
            "inputs": inputs,
            **({} if self._start is None else {"context": self._start.plan}),
        }

    def _context_start(self) -> Start | None:
        """Where the state comes from; None for a model that reads no past. Raises ConfigError: one
        is given for such a model.
        """
        context, config = self._model.inputs.past, self._config
        if context is None:
            if config.context is not None:
                raise ConfigError(
                    "--context must be left out with a model that reads no past. Received: "
                    f"{config.context}, with {self._bundle.uri}. Leave it out."
                )
            return None
        with self._timed("context"):
            return start_of_night(config, context, self._dataset, self._cache)

    def _check(self) -> tuple[Popularity, ArticleAges]:
        """Reads every shard once before any is scored: sets bad ones aside, notes users and when
        articles are shown, and counts recent clicks.
        """
        split = self._split
        logger.info("reading %s, to find bad files before any is scored", split.uri)
        articles = self._dataset.articles
        popularity, ages = Popularity(), ArticleAges(articles.published, len(articles))
        self._occurring = np.zeros(len(split.histories.rows), bool)
        past = None
        if self._start is not None:
            (folder := self._cache / "past").mkdir()
            past = Past(split, self._model.inputs.past, folder, self._start.frozen)

        def read(i: int) -> Impressions | None:
            try:
                impressions = split.read(i)
                if past is not None:
                    past.add(i, impressions)
                return impressions
            except SchemaError as error:
                split.bad[split.shards[i].uri] = error
                return None

        for impressions in prefetch((read(i) for i in self._good()), depth=1):
            if impressions is not None:
                popularity.add(impressions)
                ages.add(impressions)
                self._occurring[impressions.user] = True
                if self._config.submission != "none":
                    refuse_line_breaks(impressions, split.uri)
        for error in split.bad.values():
            logger.error("not scored: %s", error)
        for line in split.report.lines():
            logger.info("%s: %s", split.name, line)
        joins.refuse_strangers(self._dataset, split)
        self._doubts: list[str] = []
        if past is not None and self._start is not None:
            with self._timed("context"):
                state, doubts = start_before(self._start.state(), split.first_time)
                past.join(state)
            self._doubts = doubts
        count_words, own = self._model.inputs.count_words, self._bundle.joins
        self._joins = joins.check(self._dataset, split, count_words, own, self._config.max_unknown)
        logger.info("%s: %s", split.name, joins.line(self._joins.shares))
        return popularity, ages

    def _good(self) -> list[int]:
        return [i for i, info in enumerate(self._split.shards) if info.uri not in self._split.bad]

    def _shards(self) -> Generator[tuple[int, Impressions]]:
        """The good shards in order. The next one is read while one is worked on."""
        with closing(prefetch(((i, self._split.read(i)) for i in self._good()), depth=1)) as shards:
            while True:
                with self._timed("read"):
                    shard = next(shards, None)
                if shard is None:
                    return
                yield shard

    def _refuse_bad(self) -> None:
        bad = list(self._split.bad)
        if bad:
            first = self._split.bad[bad[0]]
            raise SchemaError(
                "Every behaviours file must keep the contract. Received: "
                f"{len(bad)} of {len(self._split)} that do not "
                f"({', '.join(storage.name(uri) for uri in bad[:5])}{', ...' if bad[5:] else ''}), "
                f"in {self._split.uri}; the others are scored. Repair "
                f"them and run again with --overwrite. First: {first}"
            )

    def _score(self, impressions: Impressions) -> np.ndarray:
        scorer = self._scorer
        with self._timed("dot products"):
            return scorer.score(impressions)

    @functools.cached_property
    def _catalogue(self) -> Catalogue:
        """The articles, encoded."""
        bundle, model = self._bundle, self._model
        logger.info("loading the model %s, run by %s", bundle.version, self._config.runtime)
        with self._timed("model"):
            _ = model.runtime
        with self._timed("catalogue"):
            folder = self._config.article_vectors or default_folder(bundle.uri)
            kept = ArticleVectors(bundle.sha256, self._config.runtime)
            kept.load(folder, self._cache)
            catalogue = model.catalogue(self._dataset.articles, kept)
            kept.save(folder)
        articles = f"{len(self._dataset.articles):,}"
        logger.info("%s articles, %s of them encoded now", articles, f"{kept.encoded:,}")
        return catalogue

    @functools.cached_property
    def _scorer(self) -> Scorer:
        """The scorer, made for the first part that is missing. Without one, no reader is
        encoded.
        """
        scorer = self._model.scorer(self._catalogue, self._split.histories.rows)
        logger.info("encoding %s readers", f"{np.count_nonzero(self._occurring):,}")
        with self._timed("users"):
            # All at once, whichever shards are missing, as a vector's last digits depend on the
            # batch it is encoded in.
            scorer.prepare(np.flatnonzero(self._occurring))
        return scorer

    def _finish(
        self, folder: Path, metrics: dict, evaluation: Evaluation, examples: list[Example]
    ) -> None:
        """Writes the files about all parts, reports to the tracker, then makes the folder valid."""
        config, bundle = self._config, self._bundle
        settings = as_dict(config)
        logger.info("writing metrics and report")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")
        figures = evaluation.figures()
        libraries = {library: importlib.metadata.version(library) for library in _LIBRARIES}
        # The report has no times of this run, so that a run which goes on where another stopped
        # writes the same report.
        facts = {
            "model": bundle.uri,
            "model sha256": bundle.sha256,
            "data": self._split.uri,
            **({"date": config.date} if config.date else {}),
            **libraries,
        }
        with self._timed("report"):
            self._report(folder / "report.html", metrics, figures, examples, facts)
        for path in sorted(folder.iterdir()):
            self._output.add(path)
        self._track(folder, settings, metrics, figures)
        about = {
            "config": settings,
            "model": {"uri": bundle.uri, "version": bundle.version, "sha256": bundle.sha256},
            "inputs": self._inputs,
            "data": self._split.report.as_dict(),
            "libraries": libraries,
            "seconds": {name: round(seconds, 3) for name, seconds in self._seconds.items()},
        }
        self._output.finish(about)

    def _report(self, path: Path, *content: Any) -> None:
        if (
            plots.attempt(
                path.name, write_report, path, f"Predictions of {self._split.uri}", *content
            )
            is None
        ):
            path.write_text(
                "<!doctype html><p>The report could not be made. The numbers are in "
                "metrics.json.</p>\n"
            )

    def _track(self, folder: Path, settings: dict, metrics: dict, figures: dict) -> None:
        config = self._config
        tracked = {
            **settings,
            "model_version": self._bundle.version,
            "model_sha256": self._bundle.sha256,
        }
        # Equal predictions are recorded under one id, so a night that is killed after this is not
        # recorded twice.
        run_id = self._output.key[:16]
        group = config.run_group or self._bundle.version
        with Tracker(
            config.wandb_mode,
            config.wandb_project,
            "score",
            tracked,
            config.run_name,
            run_id=run_id,
            group=group,
        ) as tracker:
            rankings = {
                "": metrics,
                **{f"{name}_": found for name, found in metrics.get("baselines", {}).items()},
            }
            numbers = {
                f"{ranking}{name}": found[name]
                for ranking, found in rankings.items()
                for name in METRICS
                if name in found
            }
            counts = {name: value for name, value in metrics.items() if isinstance(value, int)}
            tracker.summary(numbers | counts | {"predictions": config.output})
            # Drawing is most of the time that a small night takes, and the report has its own.
            if tracker.run_id is not None:
                for name, path in plots.save_all(figures, folder).items():
                    tracker.image(name, path)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of the block to its stage, without those of stages inside it."""
        start, outer = time.perf_counter(), self._inner_seconds
        self._inner_seconds = 0.0
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._seconds[stage] += seconds - self._inner_seconds
            self._inner_seconds = outer + seconds
