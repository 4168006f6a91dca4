"""Failures of the service are answered as documented."""

import json
import resource
from pathlib import Path

import httpx
from fastapi.testclient import TestClient

from api.app import create_app
from api.errors import ErrorBody
from api.settings import Settings
from tests.clients import until
from tests.service import RunningService


def test_without_memory_a_body_is_answered_503_and_the_next_as_ever(world, tmp_path):
    # Of 4 MB, and twenty times that as Python's objects: it arrives where it cannot be read. With
    # less, glibc itself may end the process, at the first thread that it has no memory for.
    large = b'{"impressions":[' + b",".join([b"{}"] * 1_200_000) + b"]}"
    rows = [{"impression_id": 1, "article_ids_inview": world.article_ids[:2]}]
    with RunningService(tmp_path / "log", MODEL_URI=world.models) as service:
        pid = service.process.pid

        def post(body: bytes) -> httpx.Response:
            return service.client.post(
                "/predict/json", content=body, headers={"Content-Type": "application/json"}
            )

        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        limit = (size + 2**25, resource.RLIM_INFINITY)
        unlimited = resource.prlimit(pid, resource.RLIMIT_AS, limit)
        for _ in range(3):
            answer = post(large)
            assert answer.status_code == 503, answer.text
            error = ErrorBody.model_validate_json(answer.content).error
            assert error.rule == "The service must have room and processes for an upload."
            assert int(answer.headers["Retry-After"]) >= 1
        resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
        assert post(json.dumps({"impressions": rows}).encode()).status_code == 200
        assert service.process.poll() is None


def test_a_fault_of_the_service_is_answered_as_documented(world, tmp_path):
    app = create_app(Settings(model_uri=world.models))

    @app.get("/fault")
    @app.post("/fault")
    def fault() -> None:
        raise ZeroDivisionError("with a secret in it")

    @app.post("/memory")
    def memory() -> None:
        raise MemoryError

    with TestClient(app, raise_server_exceptions=False) as client:
        until(lambda: client.get("/readyz").status_code == 200, "a model")
        for answer, status in (
            (client.get("/fault"), 500),
            (client.post("/fault"), 500),
            (client.post("/memory"), 503),
        ):
            assert answer.status_code == status
            assert "secret" not in ErrorBody.model_validate_json(answer.content).model_dump_json()
        sample = client.app.state.service.metrics.registry.get_sample_value
        assert sample("nrms_rejections_total", {"reason": "fault"}) == 2
