"""Who may score where the service has a key."""

import pytest

from tests.clients import Upload, log_lines, series, until
from tests.service import RunningService, parquet

KEY = "kæy-sesame"
ROWS = {"impressions": [{"impression_id": 1, "article_ids_inview": [1, 2]}]}


@pytest.fixture(scope="module")
def locked(world, tmp_path_factory):
    """A service with a key, which anybody may watch."""
    log = tmp_path_factory.mktemp("locked") / "log"
    with RunningService(log, MODEL_URI=world.models, API_KEY=KEY, PUBLIC_METRICS="true") as service:
        yield service


def test_the_key_opens_both_ways_to_score(locked, world):
    headers = {"X-API-Key": KEY.encode()}
    files = {"file": parquet(world.behaviors(20)), "history": parquet(world.history())}
    assert locked.client.post("/predict/json", json=ROWS, headers=headers).status_code == 200
    assert locked.client.post("/predict", files=files, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"another",
        KEY.encode()[:-1],
        KEY.encode() + b"1",
        KEY.encode("latin-1"),
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/", "/predict/json", "/events"])
def test_without_it_the_answer_is_401_and_says_what_is_missing(locked, path, key):
    headers = {} if key is None else {"X-API-Key": key}
    answer = locked.client.post(path, json=ROWS, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "ApiKey"
    assert answer.json()["error"] == {
        "rule": "X-API-Key must carry this service's key.",
        "received": "another key" if key else "none",
        "where": "header X-API-Key",
        "todo": "Ask whoever runs the service for the key; /docs has Authorize.",
    }


def test_strangers_take_no_places(locked, world):
    with Upload(locked, b"a" * 100_000, b"") as upload:
        upload.send(50_000)
        assert locked.metric("nrms_requests_in_flight") == 0
        assert upload.send().answer()[0] == 401
    assert series(locked, "nrms_requests_total", status="401") > 0


def test_what_orchestrators_and_people_look_at_needs_no_key(locked):
    paths = ("/livez", "/readyz", "/info", "/metrics", "/", "/docs", "/openapi.json")
    assert {path: locked.client.get(path).status_code for path in paths} == dict.fromkeys(
        paths, 200
    )


def test_unless_it_is_public_what_tells_of_models_and_traffic_needs_the_key_too(world, tmp_path):
    with RunningService(tmp_path / "log", MODEL_URI=world.models, API_KEY=KEY) as service:
        for path in ("/info", "/metrics", "/example"):
            for method in ("GET", "HEAD"):
                assert service.client.request(method, path).status_code == 401
                assert (
                    service.client.request(
                        method, path, headers={"X-API-Key": KEY.encode()}
                    ).status_code
                    == 200
                )
            assert service.client.get(path).json()["error"]["where"] == "header X-API-Key"
        open_to_all = ("/livez", "/readyz", "/", "/docs", "/openapi.json")
        assert {service.client.get(path).status_code for path in open_to_all} == {200}


@pytest.mark.system
def test_why_there_is_no_model_is_told_to_those_with_the_key(tmp_path):
    models = tmp_path / "secret-place"
    with RunningService(tmp_path / "log", ready=False, MODEL_URI=models, API_KEY=KEY) as service:
        until(lambda: "secret-place" in service.log.read_text(), "a first try")
        assert "secret-place" not in service.client.get("/readyz").text
        assert (
            "secret-place"
            in service.client.get("/readyz", headers={"X-API-Key": KEY.encode()}).text
        )


def test_info_says_whether_a_key_is_asked_for(locked, service):
    assert locked.client.get("/info").json()["asks_for_key"]
    assert not service.client.get("/info").json()["asks_for_key"]


def test_docs_offer_to_authorize(locked):
    document = locked.client.get("/openapi.json").json()
    (name,) = document["components"]["securitySchemes"]
    scheme = document["components"]["securitySchemes"][name]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-API-Key")
    for path in ("/predict", "/predict/json"):
        assert document["paths"][path]["post"]["security"] == [{name: []}]


def test_the_key_is_never_told(locked):
    locked.client.post("/predict/json", json=ROWS, headers={"X-API-Key": KEY.encode()})
    for path in ("/info", "/metrics", "/openapi.json", "/readyz"):
        assert "sesame" not in locked.client.get(path).text
    assert log_lines(locked)
    assert "sesame" not in locked.log.read_text()
