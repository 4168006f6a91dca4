"""What the service writes down about requests, and that no request waits for it or fails by it."""

import hashlib
import io
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from api.metrics import Metrics
from api.prediction_log import PredictionLog, Record
from nrms import storage
from tests.clients import Load, series, until
from tests.conftest import FakeGcs
from tests.service import RunningService, parquet


def written(folder: str) -> list[dict]:
    """The records in a log, each as a dict."""
    files = storage.list_files(folder, ".parquet")
    return [
        row
        for file in files
        for row in pq.read_table(io.BytesIO(storage.read_bytes(file))).to_pylist()
    ]


@pytest.fixture(scope="module")
def files(world) -> tuple[bytes, bytes]:
    return parquet(world.behaviors(20)), parquet(world.history())


def test_the_log_holds_counts_timings_hashes_and_histograms_of_every_scored_request(
    world, bucket, tmp_path, files
):
    folder = f"{bucket}/log"
    environment = {"PREDICTION_LOG": folder, "PREDICTION_LOG_SECONDS": 0.1}
    with RunningService(tmp_path / "log", MODEL_URI=world.models, **environment) as service:
        answers = {}
        for format in ("json", "parquet", "json"):
            answer = service.predict(*files, format=format)
            answers[answer.headers["X-Request-Id"]] = answer
        rows = {"impressions": [{"impression_id": 1, "article_ids_inview": [-1, -2, -3]}]}
        few = service.client.post("/predict/json", json=rows)
        assert service.predict(b"no Parquet").status_code == 422
        records = until(
            lambda: len(found := written(folder)) >= 4 and found, "the records of four requests"
        )
        assert series(service, "nrms_prediction_log_files_total", outcome="written") >= 1
        assert service.metric("nrms_prediction_log_dropped_total") == 0
    by_id = {record["request_id"]: record for record in records}
    assert by_id.keys() == answers.keys() | {few.headers["X-Request-Id"]}
    counts = next(iter(answers.values())).json()["counts"]
    for request_id in answers:
        record = by_id[request_id]
        assert record["model_version"] == storage.name(world.version)
        assert record["body_sha256"] == hashlib.sha256(b"".join(files)).hexdigest()
        for name in ("impressions", "candidates", "unknown_articles", "empty_histories"):
            assert record[name] == counts[name]
        assert len(record["histogram_edges"]) == len(record["histogram"]) + 1
        assert {stage for stage, _ in record["seconds"]} == {
            "upload",
            "queue",
            "decode",
            "score",
            "respond",
        }
        assert all(seconds >= 0 for _, seconds in record["seconds"])
    record = by_id[few.headers["X-Request-Id"]]
    assert (record["impressions"], record["unknown_articles"], record["empty_histories"]) == (
        1,
        3,
        1,
    )
    assert all(sum(record["histogram"]) == record["candidates"] for record in records)
    today = {f"date={record['time']:%Y-%m-%d}" for record in records}
    assert {file.uri.split("/")[-2] for file in storage.list_files(folder)} <= today | {
        f"date={datetime.now(UTC):%F}"
    }


def test_what_is_not_written_yet_is_written_when_the_service_ends(world, bucket, tmp_path, files):
    environment = {"PREDICTION_LOG": f"{bucket}/log", "PREDICTION_LOG_SECONDS": 600}
    with RunningService(tmp_path / "log", MODEL_URI=world.models, **environment) as service:
        ids = {service.predict(*files).headers["X-Request-Id"] for _ in range(3)}
        assert written(f"{bucket}/log") == []
        service.process.terminate()
        assert service.process.wait(60) == 0
    assert {record["request_id"] for record in written(f"{bucket}/log")} == ids


def test_without_its_bucket_requests_are_answered_and_what_is_lost_is_counted(
    world, tmp_path, monkeypatch
):
    server = FakeGcs(tmp_path / "buckets")
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("NRMS_RETRY_SECONDS", "0.1")
        folder = f"{server.create_bucket()}/log"
        environment = {"PREDICTION_LOG": folder, "PREDICTION_LOG_SECONDS": 0.1}
        server.kill()
        with RunningService(tmp_path / "log", MODEL_URI=world.models, **environment) as service:
            with Load(service, world, clients=2) as load:
                until(
                    lambda: series(service, "nrms_prediction_log_files_total", outcome="failed"),
                    "a file that fails",
                )
                load.round()
                server.start()
                until(
                    lambda: series(service, "nrms_prediction_log_files_total", outcome="written"),
                    "a file",
                )
            assert load.faults == []
            assert load.statuses() == {200}
            lost = service.metric("nrms_prediction_log_dropped_total")
            service.process.terminate()
            assert service.process.wait(60) == 0
        assert lost > 0
        assert len(written(folder)) == len(load.answers) - lost
    finally:
        server.kill()


def test_records_that_nobody_takes_are_dropped_and_counted_at_once(tmp_path):
    metrics = Metrics()
    log = PredictionLog(str(tmp_path), 600, metrics)
    record = Record(datetime.now(UTC), "id", "version", "sha256", 1, 1, 0, 0, {}, [0.0, 1.0], [1])
    for _ in range(10_050):
        log.add(record)
    assert metrics.registry.get_sample_value("nrms_prediction_log_dropped_total") == 50
    log.start()
    log.stop()
    assert len(written(str(tmp_path))) == 10_000
