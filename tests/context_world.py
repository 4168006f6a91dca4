"""A small model that reads what happened before, and the data that it was trained on."""

from pathlib import Path

from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset

SIZES = {"ranker_dim": 16, "ranker_heads": 2, "ranker_head_dim": 8, "ranker_hidden": 16}


def make_context_world(folder: Path) -> None:
    """Fills a folder with data and a model root with one version."""
    from nrms.training.config import TrainConfig
    from nrms.training.run import train  # imports TensorFlow

    site = DemoSite(seed=7, articles=500, users=120, impressions=1200, validation_impressions=300)
    data = str(folder / "data")
    write_dataset(site, data, shard_rows=400, overwrite=False, progress=lambda *_: None)
    flags = {
        "epochs": 2,
        "lr": 0.01,
        "warmup": 0,
        "promote": "always",
        "wandb_mode": "disabled",
        "history_size": 10,
    }
    output = str(folder / "models")
    train(TrainConfig(data=data, output=output, model="context", **SIZES, **flags))
