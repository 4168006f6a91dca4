"""Demo data and model sizes small enough to train within seconds."""

from pathlib import Path

from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset

REPOSITORY = Path(__file__).parent.parent
METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10")
SMALL = {
    "history_size": 10,
    "title_size": 16,
    "word_dim": 16,
    "heads": 2,
    "head_dim": 8,
    "attention_dim": 16,
    "lr": 0.01,
    "epochs": 2,
    "promote": "always",  # some of these trainings are too short to be better than chance
    "wandb_mode": "disabled",
}


def write_demo(output, shard_rows=100):
    site = DemoSite(seed=1, articles=600, users=200, impressions=1500, validation_impressions=400)
    write_dataset(site, output, shard_rows=shard_rows, overwrite=False, progress=lambda *_: None)
    return output
