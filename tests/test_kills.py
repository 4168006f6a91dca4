"""Whatever is killed, and wherever: the same again ends as if nothing had been, and leaves nothing
beside.
"""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest

from nrms import bundles, storage
from nrms.inference.article_vectors import ArticleVectors
from nrms.nights.config import ScoreConfig
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.storage.commit import look
from nrms.storage.scratch import scratch_folder
from tests import kills, scale

KILLS = scale.scaled(30)  # of each job on each storage


class Score:
    """A night with a submission, and the article vectors."""

    outputs = ("out",)

    def __init__(self, world, folder):
        self.model, self.data = world.version, world.data

    def __call__(self, root):
        from nrms.nights.scoring import score

        score(
            ScoreConfig(
                model=self.model,
                data=self.data,
                output=f"{root}/out",
                article_vectors=f"{root}/vectors",
                runtime="onnx",
                submission="ebnerd",
                wandb_mode="disabled",
            )
        )

    def left(self, files):
        # Parts and vectors of vectors that were encoded in one go; the manifest has times.
        return {
            name: None if name.endswith("manifest.json") else data for name, data in files.items()
        }


class Prepare:
    """Two splits of a data set."""

    outputs = ("train", "validation")

    def __init__(self, world, folder):
        pass

    def __call__(self, root):
        site = DemoSite(seed=0, articles=500, users=20, impressions=90, validation_impressions=30)
        write_dataset(site, root, shard_rows=50, overwrite=False, progress=lambda split, rows: None)

    def left(self, files):
        return files


class Publish:
    """A version of a training that was tried before."""

    outputs = ()

    def __init__(self, world, folder):
        self.folder = folder / "bundle"
        (self.folder / "plots").mkdir(parents=True)
        for name in (*bundles.FIRST_RELEASE, bundles.PRIOR, "plots/curve.png"):
            (self.folder / name).write_bytes(name.encode() * 100)

    def __call__(self, root):
        tries = bundles.Tries(f"{root}/checkpoints", "0123456789abcdef")
        bundles.publish(root, self.folder, {"metrics": {"auc": 0.75}}, tries=tries)
        tries.end(root)

    def left(self, files):
        pointer = json.loads(files["latest.json"])
        assert (
            hashlib.sha256(files[f"{pointer['version']}/meta.json"]).hexdigest()
            == pointer["sha256"]
        )
        # Killed with its very last change, a training has ended, and the same again is one more:
        # its version is whole.
        ended = {name.partition("/")[0] for name in files if name.endswith("/meta.json")} - {
            pointer["version"]
        }
        assert all(
            {f"{version}/{name}" for name in (*bundles.FIRST_RELEASE, bundles.PRIOR)}
            <= files.keys()
            for version in ended
        )
        return {
            name.replace(pointer["version"], "VERSION")
            for name in files
            if name.partition("/")[0] not in ended
        }


def key(title):
    return title.encode() * 16


def encode(titles):
    return np.stack([np.full(3, ord(title), np.float32) for title in titles])


class Vectors:
    """The article vectors of a model, for some titles, and then for others that are in part new."""

    outputs = ()

    def __init__(self, world, folder):
        pass

    def __call__(self, root):
        with scratch_folder() as cache:
            for titles in ("abc", "bcd"):
                vectors = ArticleVectors("a" * 64, "onnx")
                vectors.load(f"{root}/vectors", cache)
                found = vectors.of(
                    [key(title) for title in titles],
                    lambda rows, titles=titles: encode([titles[row] for row in rows]),
                )
                assert found[:, 0].tolist() == [ord(title) for title in titles]
                vectors.save(f"{root}/vectors")

    def left(self, files):
        return files


JOBS = {job.__name__.lower(): job for job in (Score, Prepare, Publish, Vectors)}


@pytest.fixture(params=JOBS)
def job(request, world, tmp_path):
    return JOBS[request.param](world, tmp_path)


@pytest.fixture
def temporary(tmp_path):
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def files(root):
    """All files below, hidden ones too."""
    if storage.is_gcs(root):
        return {
            info.uri[len(root) + 1 :]: storage.read_bytes(info) for info in storage.list_files(root)
        }
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in Path(root).rglob("*")
        if path.is_file()
    }


def check_and_go_on(job, root, unbroken, temporary, **options):
    for output in job.outputs:
        found = look(f"{root}/{output}")
        assert found.success is None or found.is_complete(verify=True)
    assert kills.run(job, root, temporary=temporary, **options) == 0
    assert job.left(files(root)) == unbroken
    assert list(temporary.iterdir()) == []


@pytest.mark.system
def test_killed_on_a_disk(job, tmp_path, temporary):
    """Killed before one change to the file system after another, several times in one folder."""
    job(str(tmp_path / "unbroken"))
    unbroken = job.left(files(tmp_path / "unbroken"))
    changes = kills.count_changes(job, str(tmp_path / "counted"), temporary=temporary)
    rng = random.Random(random.SystemRandom().randrange(2**32))
    killed = 0
    for number in range(KILLS):
        root = str(tmp_path / str(number))
        for _ in range(rng.choice([1, 1, 2])):
            killed += kills.run(job, root, temporary=temporary, change=rng.randrange(changes)) != 0
        check_and_go_on(job, root, unbroken, temporary)
    assert killed >= KILLS // 2


@pytest.mark.system
def test_killed_at_requests_to_a_bucket(job, proxy, bucket, tmp_path, temporary):
    job(f"{bucket}/unbroken")
    unbroken, requests = job.left(files(f"{bucket}/unbroken")), len(proxy.seen)
    rng = random.Random(random.SystemRandom().randrange(2**32))
    for number in range(KILLS):
        root = f"{bucket}/{number}"
        kills.run_to_request(
            proxy, rng.randrange(requests), rng.random() < 0.5, job, root, temporary=temporary
        )
        check_and_go_on(job, root, unbroken, temporary, emulator=proxy.url)
