"""More clients than places, slow clients, clients that leave: what they are answered, and that
places become free.
"""

import signal
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from tests.clients import Load, Sending, Upload, children, series, until
from tests.processes import send
from tests.service import RunningService, parquet

pytestmark = pytest.mark.system

PLACES = 3
EVENT_PLACES = 2


@pytest.fixture(scope="module")
def files(world) -> tuple[bytes, bytes]:
    return parquet(world.behaviors(20)), parquet(world.history())


@pytest.fixture(scope="module")
def crowded(world, tmp_path_factory):
    """A service with one worker, where two more may wait; so long that no test meets
    a time limit.
    """
    folder = tmp_path_factory.mktemp("crowded")
    limits = {"WORKERS": 1, "QUEUE_SIZE": PLACES - 1, "UPLOAD_SECONDS": 600, "DECODE_SECONDS": 600}
    events = {"EVENTS": "true", "EVENTS_URL": f"sqlite:///{folder}/events.sqlite"}
    limits |= events | {"EVENTS_QUEUE": EVENT_PLACES}
    with RunningService(folder / "log", MODEL_URI=world.models, **limits) as service:
        yield service


@pytest.fixture(scope="module")
def impatient(world, tmp_path_factory):
    """A service that waits for a body for one second."""
    log = tmp_path_factory.mktemp("impatient") / "log"
    limits = {"WORKERS": 1, "QUEUE_SIZE": PLACES - 1, "UPLOAD_SECONDS": 1}
    with RunningService(log, MODEL_URI=world.models, **limits) as service:
        yield service


@pytest.fixture
def stopped(crowded):
    """Holds whatever is being scored, until the test calls the function that it gets."""
    (decoder,) = until(lambda: children(crowded.process.pid), "the process that reads uploads")
    assert send(decoder, signal.SIGSTOP)
    yield lambda: send(decoder, signal.SIGCONT)
    send(decoder, signal.SIGCONT)


def in_flight(service: RunningService) -> float:
    return service.metric("nrms_requests_in_flight")


def wait_for_in_flight(service: RunningService, count: int) -> None:
    until(lambda: in_flight(service) == count, f"{count} requests in flight")


def wait_for_waiting(service: RunningService, count: int) -> None:
    until(lambda: service.metric("nrms_requests_waiting") == count, f"{count} requests waiting")


def half(service: RunningService, files: tuple[bytes, bytes]) -> Upload:
    upload = Upload(service, *files)
    return upload.send(len(upload.body) // 2)


def test_with_all_places_taken_others_are_told_to_come_back_and_all_are_answered_in_the_end(
    crowded, files
):
    with ExitStack() as stack:
        uploads = [stack.enter_context(half(crowded, files)) for _ in range(PLACES)]
        wait_for_in_flight(crowded, PLACES)
        refused = series(crowded, "nrms_rejections_total", reason="busy")
        for answer in (
            crowded.predict(*files),
            crowded.client.post("/predict/json", json={"impressions": []}),
        ):
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) >= 1
            assert (
                answer.json()["error"]["rule"]
                == f"At most {PLACES} requests may arrive or wait at once."
            )
            assert set(answer.json()["error"]) == {"rule", "received", "where", "todo"}
        assert series(crowded, "nrms_rejections_total", reason="busy") == refused + 2
        # What orchestrators and people look at takes no place.
        assert {
            crowded.client.get(path).status_code
            for path in ("/livez", "/readyz", "/info", "/", "/docs")
        } == {200}
        assert [upload.send().answer()[0] for upload in uploads] == [200] * PLACES
    assert crowded.predict(*files).status_code == 200
    wait_for_in_flight(crowded, 0)


def test_events_and_uploads_take_no_places_from_each_other(crowded, files):
    row = {"impression_id": 1, "user_id": 1, "article_ids_inview": [1, 2]}
    row["impression_time"] = datetime.now(UTC).isoformat()
    kinds = ("application/x-ndjson", "application/vnd.apache.parquet")
    with ExitStack() as stack:
        uploads = [stack.enter_context(half(crowded, files)) for _ in range(PLACES)]
        wait_for_in_flight(crowded, PLACES)
        assert crowded.send([row]).status_code == 200
        events = [
            stack.enter_context(Sending(crowded, "/events", kind, b"x" * 1_000)).send(500)
            for kind in kinds
        ]
        until(
            lambda: crowded.metric("nrms_events_requests_in_flight") == EVENT_PLACES,
            "no place for events",
        )
        refused = crowded.send([row])
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        rule = f"At most {EVENT_PLACES} requests may arrive or wait at once."
        assert refused.json()["error"]["rule"] == rule
        assert [upload.send().answer()[0] for upload in uploads] == [200] * PLACES
        assert crowded.predict(*files).status_code == 200
        events[0].vanish()
        until(lambda: crowded.metric("nrms_events_requests_in_flight") == 1, "a place that is free")
        assert crowded.send([row]).status_code == 200
        assert events[1].send().answer()[0] == 422
    assert crowded.send([row]).json()["repeated"] == 1


def test_more_clients_than_places_are_answered_or_told_to_come_back_and_nothing_else(
    crowded, world
):
    with Load(crowded, world, clients=8) as load:
        for _ in range(4):
            load.round()
    assert load.faults == []
    assert load.statuses() <= {200, 429}
    assert 200 in load.statuses()
    assert {
        "retry-after" in answer.headers for answer in load.answers if answer.status_code == 429
    } <= {True}
    wait_for_in_flight(crowded, 0)


def test_clients_that_vanish_while_they_upload_free_their_places(crowded, files):
    for _ in range(2 * PLACES):
        half(crowded, files).vanish()
    wait_for_in_flight(crowded, 0)
    assert crowded.predict(*files).status_code == 200


def test_a_client_that_vanishes_from_the_queue_frees_its_place_and_is_not_scored(
    crowded, files, stopped
):
    scored = crowded.metric("nrms_impressions_total")
    with half(crowded, files).send() as first:
        wait_for_in_flight(crowded, 1)
        second = half(crowded, files).send()
        wait_for_waiting(crowded, 1)
        second.vanish()
        wait_for_waiting(crowded, 0)
        wait_for_in_flight(crowded, 1)
        stopped()
        assert first.answer()[0] == 200
    wait_for_in_flight(crowded, 0)
    assert crowded.metric("nrms_impressions_total") == scored + 20


def test_a_client_that_vanishes_while_it_is_scored_frees_its_place(crowded, files, stopped):
    upload = half(crowded, files).send()
    wait_for_in_flight(crowded, 1)
    until(lambda: crowded.metric("nrms_requests_waiting") == 0, "the upload to be scored")
    upload.vanish()
    stopped()
    wait_for_in_flight(crowded, 0)
    assert crowded.predict(*files).status_code == 200


def test_a_body_that_stalls_is_answered_408_and_frees_its_place(impatient, files):
    slow = series(impatient, "nrms_rejections_total", reason="upload_too_slow")
    with ExitStack() as stack:
        uploads = [stack.enter_context(half(impatient, files)) for _ in range(PLACES)]
        for upload in uploads:
            status, headers, body = upload.answer()
            assert status == 408
            assert b"A body must arrive within 1 seconds." in body
            assert headers["connection"] == "close"
            assert upload.closed()
        wait_for_in_flight(impatient, 0)
        assert series(impatient, "nrms_rejections_total", reason="upload_too_slow") == slow + PLACES
        assert series(impatient, "nrms_rejections_total", reason="http_400") == 0
        assert impatient.predict(*files).status_code == 200


def test_a_body_that_trickles_is_answered_408_however_steadily_it_comes(impatient, files):
    with Upload(impatient, *files) as upload:
        upload.socket.setblocking(False)
        while True:
            try:
                upload.socket.recv(1, socket.MSG_PEEK)
                break
            except BlockingIOError:
                upload.send(1)
                time.sleep(0.01)  # the client's pace: the body would take minutes
        upload.socket.setblocking(True)
        assert upload.answer()[0] == 408
    wait_for_in_flight(impatient, 0)


def test_a_client_that_sends_nothing_takes_no_place_for_longer_than_an_upload_may_take(
    impatient, files
):
    with ExitStack() as stack:
        uploads = [stack.enter_context(Upload(impatient, *files)) for _ in range(PLACES)]
        wait_for_in_flight(impatient, PLACES)
        assert [upload.answer()[0] for upload in uploads] == [408] * PLACES
    wait_for_in_flight(impatient, 0)
