"""Publishes the best weights of a training as a version."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nrms import bundles, storage
from nrms.bundles.export import export_model
from nrms.config import as_dict, config_lines
from nrms.evaluation import comparison, plots
from nrms.evaluation.evaluation import Evaluation
from nrms.evaluation.ranking import METRICS
from nrms.features.inputs import Inputs
from nrms.inference.parity import check_parity
from nrms.storage.scratch import scratch_folder
from nrms.tracking import Tracker
from nrms.training.config import TrainConfig
from nrms.training.data import TrainingData
from nrms.training.fit import Fit
from nrms.training.validation import Validator

logger = logging.getLogger(__name__)

_LIBRARIES = ("tensorflow", "keras", "numpy", "onnx", "onnxruntime", "tokenizers", "pyarrow")
_PARITY_ARTICLES = 64  # Keras and ONNX Runtime are compared on so many


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        model_uri: the published version.
        metrics: the validation metrics of the best weights and of the baselines, as
            `Evaluation.metrics` gives them, with `joins` and `warnings`.
        epochs: a row for each epoch: `loss`, `train_auc`, `val_auc`, `val_mrr`, ...
        samples: number of training samples in an epoch.
        promoted: whether `latest.json` was moved to the version, or named a later one already.
        beside: the validation metrics of the models of `TrainConfig.beside`, by name.
    """

    model_uri: str
    metrics: dict[str, Any]
    epochs: list[dict[str, float]]
    samples: int
    promoted: bool
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)


def publish(
    config: TrainConfig,
    inputs: Inputs,
    data: TrainingData,
    validator: Validator,
    evaluation: Evaluation,
    fits: Sequence[Fit],
    tracker: Tracker,
    tries: bundles.Tries,
    beside: dict[str, dict[str, Any]],
) -> TrainingResult:
    """Exports the best weights, publishes them with their metrics and figures, and records them.

    Args:
        config: the configuration of the training.
        inputs: what the model reads, fitted.
        data: the data that it was trained on.
        validator: has the model, with the best weights.
        evaluation: the evaluation of these weights and of the baselines.
        fits: the fits of the training. Their checkpoints are deleted once the version is published.
        tracker: records the run.
        tries: the tries of this training.
        beside: the metrics of other models.

    Raises:
        ArtifactError: ONNX Runtime does not compute what Keras does.
        StorageError: the version cannot be written.
    """
    epochs = [row for fit in fits for row in fit.trainer.epochs]
    metrics = evaluation.metrics()
    doubts = comparison.warnings(data.validation.name, metrics)
    metrics |= {
        "joins": data.validation_joins.shares,
        "warnings": data.own_joins.warnings + data.validation_joins.warnings + doubts,
    }
    logger.info("%s: %s", data.validation.name, comparison.summary(metrics))
    promoted = config.promote == "always" or (
        config.promote == "auto" and comparison.above_chance(metrics)
    )
    columns = {name: [row[name] for row in epochs] for name in epochs[0]}
    curves = plots.attempt("training_curves", plots.training_curves, columns)
    figures = {"training_curves": curves, **evaluation.figures()}
    with scratch_folder() as folder:
        logger.info("exporting the model for Keras and for ONNX Runtime, and comparing them")
        graphs = export_model(validator.model, folder, inputs.specs)
        sample = {name: array[:_PARITY_ARTICLES] for name, array in data.encoded.items()}
        # The runtime of the validation is used, because another one would trace the model again.
        by_keras = validator.loaded.runtime
        parity = check_parity(validator.model.graphs(inputs.specs), by_keras, folder, sample)
        if validator.loaded.prior is not None:
            np.save(folder / bundles.PRIOR, validator.loaded.prior)
        inputs.save(folder)
        (folder / "plots").mkdir()
        images = plots.save_all(figures, folder / "plots")
        # A training from this file shall not look for a checkpoint.
        lines = config_lines(replace(config, resume=False))
        (folder / "config.toml").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        meta = {
            "config": as_dict(config),
            "inputs": inputs.declared,
            "graphs": graphs,
            "scoring": validator.loaded.scoring,
            **({} if inputs.words is None else {"vocabulary_size": len(inputs.words.tokenizer)}),
            "data": {
                "uri": config.data,
                "articles": storage.join(config.data, "articles.parquet"),
                "fingerprint": data.fingerprint,
                "training": data.training.report.as_dict(),
                "validation": data.validation.report.as_dict(),
            },
            "joins": data.own_joins.shares,
            "metrics": metrics,
            "epochs": epochs,
            "onnx_parity": parity,
            "libraries": {library: importlib.metadata.version(library) for library in _LIBRARIES},
        }
        logger.info("publishing the model in %s", config.output)
        model_uri = bundles.publish(config.output, folder, meta, promoted, tries=tries)
        # Deleted now, because the uploads below may take minutes, and a training that is stopped
        # and resumed there would publish again.
        for fit in fits:
            fit.checkpoint.delete()
        tries.end(config.output)
        tracker.summary({f"val_{name}": metrics[name] for name in METRICS} | {"model": model_uri})
        for caption, path in images.items():
            tracker.image(caption, path)
        about = {
            "metrics": {name: metrics[name] for name in METRICS},
            "data_fingerprint": data.fingerprint,
        }
        tracker.artifact(
            "nrms", "model", model_uri, {**about, "data": config.data, "uri": model_uri}
        )
    return TrainingResult(model_uri, metrics, epochs, data.samples, promoted, beside)
