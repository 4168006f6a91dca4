"""What the service does when the model or the articles change under it, well or badly, while
clients upload.
"""

import copy
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import bundles, storage
from tests.clients import Load, log_lines, series, until
from tests.conftest import FakeGcs
from tests.service import RunningService, parquet

pytestmark = pytest.mark.system


def with_weights(files: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of a model whose news encoder has other word vectors."""
    shutil.copytree(files, folder)
    model = onnx.load(folder / "news_encoder.onnx")
    words = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    words.CopyFrom(
        onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(words)), words.name)
    )
    onnx.save(model, folder / "news_encoder.onnx")
    return folder


def publish(world, models: str, files: Path | None = None) -> str:
    """Publishes a version that latest.json names; of two versions of one second, that is the one
    that sorts later.
    """
    world = copy.copy(world)
    world.files = files or world.files
    while True:
        version = storage.name(world.publish(models))
        if bundles.latest_version(models) == version:
            return version


def publish_damaged(world, models: str, damage: Callable[[Path], object]) -> str:
    """Publishes a version that is damaged before anybody can see it."""
    staging = Path(models).with_name(uuid.uuid4().hex)
    while (version := publish(world, str(staging))) < bundles.latest_version(models):
        shutil.rmtree(staging)
    damage(staging / version)
    (staging / version).rename(Path(models, version))
    (staging / "latest.json").replace(Path(models, "latest.json"))
    return version


def served(service: RunningService) -> str:
    return service.client.get("/info").json()["model"]["version"]


def wait_for_version(service: RunningService, version: str) -> None:
    until(lambda: served(service) == version, f"{version} to be served")


def wait_for_error(service: RunningService) -> str:
    return until(lambda: service.client.get("/info").json()["reload_error"], "an error in /info")


def wait_for_no_error(service: RunningService) -> None:
    until(lambda: service.client.get("/info").json()["reload_error"] is None, "no error in /info")


def scores(answer) -> np.ndarray:
    return np.concatenate([row["scores"] for row in answer.json()["rows"]])


def not_ready(service: RunningService) -> str:
    """What a service without a model says, which must be the same for probes and clients."""

    def ready() -> str:
        answer = service.client.get("/readyz")
        assert answer.status_code == 503
        return answer.json()["error"]["received"]

    before = ready()
    predict = service.predict(b"anything")
    assert predict.status_code == 503
    assert predict.headers["Retry-After"].isdigit()
    error = predict.json()["error"]
    assert set(error) == {"rule", "received", "where", "todo"}
    after = ready()
    assert error["received"] in (before, after)  # a try to load may end in between
    return after


@pytest.fixture(scope="module")
def models(world, tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("reload") / "models")
    publish(world, folder)
    return folder


@pytest.fixture(scope="module")
def following(world, models, tmp_path_factory):
    """A service that follows `models`; each test leaves a good version there."""
    with RunningService(
        tmp_path_factory.mktemp("following") / "log", MODEL_URI=models, RELOAD_SECONDS=0.05
    ) as service:
        yield service


@pytest.fixture(scope="module")
def other_files(world, tmp_path_factory) -> Path:
    """The files of a model with other scores."""
    return with_weights(
        world.files, tmp_path_factory.mktemp("other") / "bundle", lambda words: -30 * words
    )


def test_a_service_without_a_model_lives_says_why_and_becomes_ready_by_itself(
    world, bucket, tmp_path
):
    with RunningService(tmp_path / "log", ready=False, MODEL_URI=f"{bucket}/models") as service:
        until(lambda: "is no model" in not_ready(service), "the reason in /readyz")
        assert service.client.get("/livez").status_code == 200
        assert service.client.get("/info").json()["model"] is None
        publish(world, f"{bucket}/models")
        service.wait_for("/readyz")
        assert (
            service.predict(parquet(world.behaviors()), parquet(world.history())).status_code == 200
        )


def test_a_service_that_starts_before_its_bucket_becomes_ready_by_itself(
    world, tmp_path, monkeypatch
):
    server = FakeGcs(tmp_path / "buckets")
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("NRMS_RETRY_SECONDS", "0.1")
        models = f"{server.create_bucket()}/models"
        publish(world, models)
        server.kill()
        with RunningService(tmp_path / "log", ready=False, MODEL_URI=models) as service:
            until(lambda: "could not be read" in not_ready(service), "the reason in /readyz")
            server.start()
            service.wait_for("/readyz")
    finally:
        server.kill()


def test_no_answer_is_dropped_or_mixed_while_versions_are_swapped(
    following, world, models, other_files
):
    kinds, expected = {}, {}
    with Load(following, world) as load:
        for files in (world.files, other_files) * 3:
            version = publish(world, models, files)
            kinds[version] = files
            wait_for_version(following, version)
            load.round()
    assert load.faults == []
    assert load.statuses() == {200}
    answered = {answer.json()["model"]["version"] for answer in load.answers}
    assert set(kinds) <= answered
    for answer in load.answers:
        body = answer.json()
        assert body["model"]["version"] == answer.headers["X-Model-Version"]
        files = kinds.get(body["model"]["version"], world.files)
        np.testing.assert_allclose(
            scores(answer), expected.setdefault(files, scores(answer)), atol=1e-6
        )
    # Else a mixture would not be seen.
    assert np.median(np.abs(expected[world.files] - expected[other_files])) > 1e-4


BROKEN = {
    "cut encoder": lambda folder: os.truncate(folder / "news_encoder.onnx", 1000),
    "missing encoder": lambda folder: (folder / "user_encoder.onnx").unlink(),
    "altered tokenizer": lambda folder: (folder / "tokenizer.json").write_bytes(b"{}"),
    "altered meta": lambda folder: (folder / "meta.json").write_text(
        (folder / "meta.json").read_text() + " "
    ),
    "missing meta": lambda folder: (folder / "meta.json").unlink(),
}


@pytest.mark.parametrize(
    "name", [*BROKEN, "garbage encoder", "garbage tokenizer", "NaN weights", "garbage pointer"]
)
def test_a_broken_version_leaves_the_old_one_serving_and_is_visible(
    following, world, models, tmp_path, name
):
    old = served(following)
    failed, loaded = (
        series(following, "nrms_reloads_total", outcome=outcome) for outcome in ("failed", "loaded")
    )
    files = tmp_path / "bundle"
    with Load(following, world, clients=1) as load:
        if name in BROKEN:
            publish_damaged(world, models, BROKEN[name])
        elif name == "garbage pointer":
            storage.write_bytes(b"{", storage.join(models, "latest.json"))
        elif name == "NaN weights":
            publish(
                world,
                models,
                with_weights(world.files, files, lambda words: words * np.float32(np.nan)),
            )
        else:
            shutil.copytree(world.files, files)
            (
                files
                / {"garbage encoder": "news_encoder.onnx", "garbage tokenizer": "tokenizer.json"}[
                    name
                ]
            ).write_text("x")
            publish(world, models, files)
        error = wait_for_error(following)
        load.round()
        assert served(following) == old
        assert series(following, "nrms_reload_failing") == 1
        assert series(following, "nrms_reloads_total", outcome="failed") > failed
        assert series(following, "nrms_reloads_total", outcome="loaded") == loaded
        assert following.client.get("/readyz").status_code == 200
        assert [line["message"] for line in log_lines(following) if line["level"] == "ERROR"][
            -1
        ] == error
        new = publish(world, models)
        wait_for_version(following, new)
        load.round()
    assert load.faults == []
    assert load.statuses() == {200}
    assert {answer.json()["model"]["version"] for answer in load.answers} <= {old, new}
    wait_for_no_error(following)
    assert series(following, "nrms_reload_failing") == 0
    assert series(following, "nrms_model_info", version=new) == 1
    assert series(following, "nrms_model_info", version=old) == 0


def test_a_model_root_whose_pointer_vanishes_is_visible(following, models):
    pointer = Path(models, "latest.json").read_bytes()
    Path(models, "latest.json").unlink()
    assert "has no latest.json" in wait_for_error(following)
    storage.write_bytes(pointer, storage.join(models, "latest.json"))
    wait_for_no_error(following)


def test_articles_change_too_where_the_model_is_a_versions_own_folder(world, tmp_path):
    articles = tmp_path / "articles.parquet"
    pq.write_table(pq.read_table(world.articles).slice(0, 100), articles)
    with RunningService(
        tmp_path / "log", MODEL_URI=world.version, ARTICLES_URI=articles
    ) as service:
        storage.upload(world.articles, articles)
        until(lambda: series(service, "nrms_articles") > 100, "the new catalogue")
        assert served(service) == storage.name(world.version)
        assert series(service, "nrms_reloads_total", outcome="failed") == 0


def encoded(service: RunningService) -> list[str]:
    """The articles that had to be encoded at each load, from the log."""
    lines = [line["message"] for line in log_lines(service) if line["logger"] == "api.served_model"]
    return [message.partition(" articles, ")[2] for message in lines]


def test_a_new_article_becomes_known_and_only_it_is_encoded(world, bucket, tmp_path):
    models, articles = f"{bucket}/models", f"{bucket}/articles.parquet"
    publish(world, models)
    table = pq.read_table(world.articles)
    storage.write_bytes(parquet(table), articles)
    new = table.slice(0, 2).set_column(
        table.schema.get_field_index("article_id"),
        "article_id",
        pa.array([1, 2], table["article_id"].type),
    )
    new = new.set_column(
        table.schema.get_field_index("title"), "title", pa.array(["Something new", "And more"])
    )
    rows = {
        "impressions": [
            {
                "impression_id": 1,
                "article_ids_inview": [1, 2],
                "article_id_fixed": table["article_id"][:3].to_pylist(),
            }
        ]
    }
    with RunningService(tmp_path / "log", MODEL_URI=models, ARTICLES_URI=articles) as service:
        assert (
            service.client.post("/predict/json", json=rows).json()["counts"]["unknown_articles"]
            == 2
        )
        for count in (1, 2):
            storage.write_bytes(parquet(pa.concat_tables([table, new.slice(0, count)])), articles)
            until(
                lambda count=count: series(service, "nrms_articles") == len(table) + count,
                "the new catalogue",
            )
            answer = service.client.post("/predict/json", json=rows).json()
            assert answer["counts"]["unknown_articles"] == 2 - count
        assert encoded(service)[1:] == ["1 encoded", "1 encoded"]

        storage.write_bytes(b"no Parquet", articles)
        assert "must be whole Parquet" in wait_for_error(service)
        assert series(service, "nrms_reload_failing") == 1
        assert service.client.post("/predict/json", json=rows).json() == answer
        storage.write_bytes(parquet(pa.concat_tables([table, new])), articles)
        wait_for_no_error(service)
    # What the first service encoded, the bucket keeps for the next one, and for the nightly job.
    with RunningService(tmp_path / "log2", MODEL_URI=models, ARTICLES_URI=articles) as service:
        assert encoded(service) == ["0 encoded"]
