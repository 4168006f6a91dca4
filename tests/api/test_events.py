"""`POST /events` as those meet it who send events: what is taken, what is refused, and how."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from api.errors import ErrorBody
from api.schemas import EventsOut
from nrms.data.schema import CLICKS, IN_VIEW
from nrms.events.address import open_log
from tests.clients import series, until
from tests.redis_server import RedisServer
from tests.service import RunningService, parquet

NOW = datetime.now(UTC)
SHOWN = NOW - timedelta(minutes=5)
NUMBERS = itertools.count(10**6)  # of impressions, each in the log of all tests once
TYPES = {
    "event_id": pa.string(),
    "impression_id": pa.int64(),
    "user_id": pa.int64(),
    "impression_time": pa.timestamp("us", "UTC"),
    IN_VIEW: pa.list_(pa.int64()),
    CLICKS: pa.list_(pa.int64()),
    "article_id": pa.int64(),
    "device_type": pa.int32(),
}


def impression(**columns: object) -> dict:
    """One that the log does not have yet."""
    row = {
        "impression_id": next(NUMBERS),
        "user_id": 7,
        "impression_time": SHOWN.isoformat(),
        IN_VIEW: [1, 2, 3],
        CLICKS: [2],
    }
    return row | columns


def file(rows: list[dict], **types: pa.DataType) -> bytes:
    """The rows as Parquet, with those columns of the contract that one of them has."""
    kinds = TYPES | types
    names = [name for name in kinds if any(name in row for row in rows)]
    columns = {name: [row.get(name) for row in rows] for name in names}
    if "impression_time" in columns:
        times = columns["impression_time"]
        columns["impression_time"] = [time and datetime.fromisoformat(time) for time in times]
    return parquet({name: pa.array(values, kinds[name]) for name, values in columns.items()})


def kept(where: RunningService | str, after: int = 0) -> list[dict]:
    """What a service's log, or the one at an address, has after a position."""
    if isinstance(where, RunningService):
        where = f"sqlite:///{where.log.parent}/events.sqlite"
    log = open_log(where, 48 * 3_600)
    try:
        return log.since(after, 10**6).to_pylist()
    finally:
        log.close()


def taken(answer) -> tuple[int, int]:
    """Accepted and repeated."""
    assert answer.status_code == 200, answer.text
    found = EventsOut.model_validate_json(answer.content)
    return found.accepted, found.repeated


def end(service: RunningService) -> int:
    """The position of the last row."""
    return service.send([{"impression_id": -1, CLICKS: [1]}]).json()["position"]


@pytest.mark.parametrize("pack", [list, file], ids=["lines", "file"])
def test_what_is_acknowledged_is_kept_as_it_came(service, pack):
    before = end(service)
    shown = impression(event_id=f"e{next(NUMBERS)}", article_id=9, device_type=2)
    rows = [shown, impression(**{CLICKS: None}), impression(**{CLICKS: []})]
    rows.append({"impression_id": rows[1]["impression_id"], CLICKS: [3]})
    answer = service.send(pack(rows))
    assert answer.json() == {"accepted": 4, "repeated": 0, "position": before + 4}
    found = kept(service, before)
    for row, sent in zip(found, rows[:3], strict=False):
        assert row.items() >= (sent | {"impression_time": SHOWN}).items()
        assert not row["late"]
    assert found[3] == found[1] | {
        "position": before + 4,
        "event_id": found[3]["event_id"],
        "late": True,
        CLICKS: [3],
    }
    assert service.send(pack(rows)).json() == {
        "accepted": 0,
        "repeated": 4,
        "position": before + 4,
    }


def test_lines_and_a_file_say_the_same(service):
    """The id that follows from the content does not depend on how the content came."""
    rows = [impression(), impression(article_id=3), impression(device_type=1)]
    rows.append({"impression_id": rows[0]["impression_id"], CLICKS: [1]})
    assert taken(service.send(rows)) == (4, 0)
    assert taken(service.send(file(rows))) == (0, 4)
    abroad = SHOWN.astimezone().isoformat(), SHOWN.isoformat().replace("+00:00", "Z")
    for time in (*abroad, SHOWN.replace(tzinfo=None).isoformat()):
        assert taken(service.send([rows[0] | {"impression_time": time}])) == (0, 1)


def test_ids_and_lists_may_come_in_any_type_of_parquet(service):
    rows = [impression(), impression()]
    large = file(
        rows,
        **{
            "user_id": pa.uint16(),
            "impression_time": pa.timestamp("ns"),
            IN_VIEW: pa.large_list(pa.int32()),
            CLICKS: pa.list_(pa.int8(), 1),
        },
    )
    before = end(service)
    assert taken(service.send(large)) == (2, 0)
    assert [row[IN_VIEW] for row in kept(service, before)] == [[1, 2, 3]] * 2


def test_lines_may_end_as_on_windows_and_be_empty(service):
    rows = [json.dumps(impression()) for _ in range(2)]
    body = b"\xef\xbb\xbf" + f"\r\n{rows[0]}\r\n\r\n{rows[1]}\r\n".encode()
    headers = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    assert taken(service.client.post("/events", content=body, headers=headers)) == (2, 0)


BAD = [
    ({"impression_id": 1.5}, "`impression_id` must be an integer"),
    ({"impression_id": True}, "`impression_id` must be an integer"),
    ({"impression_id": 2**63}, "`impression_id` must be an integer"),
    ({"user_id": "x" * 201}, "`user_id` must be an integer"),
    ({IN_VIEW: 5}, f"`{IN_VIEW}` must be a list"),
    ({IN_VIEW: [[1]]}, f"`{IN_VIEW}` must be a list"),
    ({CLICKS: [None]}, f"`{CLICKS}` must be a list"),
    ({"impression_time": "yesterday"}, "`impression_time` must be a time"),
    ({"impression_time": 1_777_636_800}, "`impression_time` must be a time"),
    ({"device_type": "phone"}, "`device_type` must be an integer"),
    ({"article_ids_click": [1]}, "An event may have event_id, impression_id"),
    ({IN_VIEW: ["1", "2"], CLICKS: None}, "The ids of all articles must be integers"),
    ({"user_id": None}, "An impression must name its reader."),
    ({IN_VIEW: None, CLICKS: None}, "An event must say what was shown"),
    ({"impression_time": "2020-01-01T00:00:00Z"}, "`impression_time` may be 48 hours old."),
    ({"impression_time": "2222-01-01T00:00:00Z"}, "`impression_time` may be 300 seconds in"),
    ({IN_VIEW: [9] * 10_001}, f"`{IN_VIEW}` may hold 10,000 articles."),
    ({CLICKS: [0, 0, 1], IN_VIEW: [7, 8, 9]}, f"`{CLICKS}` must hold the ids"),
]


def refused(answer, rule: str, where: str) -> None:
    assert answer.status_code == 422, answer.text
    error = ErrorBody.model_validate_json(answer.content).error
    assert error.rule.startswith(rule)
    assert error.where == where
    assert error.received
    assert error.todo


@pytest.mark.parametrize(("columns", "rule"), BAD, ids=[f"{rule[:40]}" for _, rule in BAD])
def test_one_bad_line_refuses_the_request_as_a_whole_with_its_number(service, columns, rule):
    before = end(service)
    good = [impression() for _ in range(3)]
    refused(service.send([*good[:2], impression(**columns), good[2]]), rule, "line 3")
    assert end(service) == before
    assert taken(service.send(good)) == (3, 0)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe", b'{"a":"\\ud800"}', b"[" * 99_999]
)
def test_a_line_that_is_no_event_is_refused_with_its_number(service, line):
    body = json.dumps(impression()).encode() + b"\n" + line
    headers = {"Content-Type": "application/x-ndjson"}
    answer = service.client.post("/events", content=body, headers=headers)
    refused(answer, "A line must be an event, one JSON object", "line 2")


@pytest.mark.parametrize(
    ("rows", "types", "rule", "where"),
    [
        ([{"user_id": None}], {}, "An impression must name its reader.", "row 1 (from 0)"),
        ([{IN_VIEW: [1, None]}], {}, f"`{IN_VIEW}` must not hold nulls.", "row 1 (from 0)"),
        (
            [{"impression_time": "2020-01-01T00:00:00"}],
            {},
            "`impression_time` may be 48 hours old.",
            "row 1 (from 0)",
        ),
        ([{"impression_id": 2**63}], {"impression_id": pa.uint64()}, "Column `impression_id`", ""),
        ([], {"user_id": pa.float32()}, "Column `user_id` must be", "file"),
        ([], {IN_VIEW: pa.list_(pa.string())}, f"Column `{IN_VIEW}` must hold article", "file"),
        ([], {"device_type": pa.string()}, "Column `device_type` must be", "file"),
    ],
)
def test_a_bad_file_is_refused_as_a_whole_with_its_row_or_column(service, rows, types, rule, where):
    before = end(service)
    good = impression(device_type=1)
    if pa.types.is_string(types.get("device_type", pa.null())):
        good["device_type"] = "phone"
    if types.get(IN_VIEW):
        good |= {IN_VIEW: ["1"], CLICKS: None}
    bad = [impression(**row) for row in rows]
    refused(service.send(file([good, *bad], **types)), rule, where or "row 1 (from 0)")
    assert end(service) == before


def test_a_file_without_lists_or_with_a_name_that_is_nearly_right_says_so(service):
    bare = {"impression_id": [1], "user_id": [1], "article_ids_in_view": [[1]]}
    refused(service.send(parquet(bare)), f"Events must have a column `{IN_VIEW}` or", "file")
    assert "`article_ids_in_view`" in service.send(parquet(bare)).json()["error"]["todo"]
    rows = {
        "impression_id": [next(NUMBERS)],
        "user_id": [1],
        "impression_time": [SHOWN],
        IN_VIEW: [[1]],
        "devicetype": [1],
    }
    (warning,) = service.send(parquet(rows)).json()["warnings"]
    assert "`devicetype`" in warning


def test_the_number_of_events_is_limited(service):
    rows = [{"impression_id": 1, CLICKS: [1]}] * 10_001
    refused(service.send(rows), "One request may hold 1 to 10,000 events.", "body")
    refused(service.send([]), "One request may hold 1 to 10,000 events.", "body")
    refused(service.send(file(rows)), "One upload may hold 10,000 events.", "file")
    long = impression(**{IN_VIEW: [1] * 10_000, CLICKS: None})
    many = [long | {"impression_id": next(NUMBERS)} for _ in range(101)]
    refused(service.send(file(many)), "One upload may hold 1,000,000 candidates", "file")
    assert service.send([long] * 250).status_code == 413


@pytest.mark.parametrize("kind", [None, "text/csv", "application/json", "multipart/form-data"])
def test_another_content_type_is_refused_even_when_the_body_is_large(service, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = service.client.post("/events", content=bytes(3 * 2**20), headers=headers)
    assert answer.status_code == 415
    error = ErrorBody.model_validate_json(answer.content).error
    assert "application/x-ndjson" in error.rule
    assert error.received == (kind or "none")


def test_an_event_that_contradicts_an_earlier_one_is_refused(service):
    first = impression(event_id=f"e{next(NUMBERS)}")
    assert taken(service.send([first])) == (1, 0)
    again = impression(event_id=first["event_id"])
    refused(service.send([impression(), again]), "An `event_id` must stand for one", "line 2")
    other = first | {"event_id": None, "user_id": 8}
    refused(service.send([other]), "An `impression_id` must stand for one list.", "line 1")


def test_the_document_has_an_example_that_is_taken_whenever_it_is_tried(service):
    document = service.client.get("/openapi.json").json()
    post = document["paths"]["/events"]["post"]
    content = post["requestBody"]["content"]
    body = content["application/x-ndjson"]["example"]
    headers = {"Content-Type": "application/x-ndjson"}
    assert taken(service.client.post("/events", content=body, headers=headers)) == (2, 0)
    assert taken(service.client.post("/events", content=body, headers=headers)) == (0, 2)
    assert set(content) == {"application/x-ndjson", "application/vnd.apache.parquet"}
    fields = document["components"]["schemas"]["EventIn"]["properties"]
    names = {column["name"] for column in service.client.get("/info").json()["contract"]["events"]}
    assert set(fields) == names


def test_metrics_say_what_became_of_events_and_how_the_log_stands(service):
    def total(outcome: str) -> float:
        return series(service, "nrms_events_total", outcome=outcome)

    before = {name: total(name) for name in ("accepted", "repeated", "refused")}
    waiting = service.metric("nrms_events_waiting")
    rows = [impression(), impression(impression_time=NOW.isoformat())]
    lost = [{"impression_id": next(NUMBERS), CLICKS: [1]} for _ in range(3)]
    service.send([*rows, *lost, rows[0]])
    service.send([*rows, {"impression_id": None}])
    service.send(file([*rows, impression(user_id=None)]))
    service.send(b"no Parquet")
    assert total("accepted") == before["accepted"] + 5
    assert total("repeated") == before["repeated"] + 1
    assert total("refused") == before["refused"] + 3 + 3 + 1
    until(lambda: service.metric("nrms_events_waiting") == waiting + 3, "three more that wait")
    age = service.metric("nrms_events_newest_age_seconds")
    assert 0 <= age <= (datetime.now(UTC) - NOW).total_seconds() + 1
    assert service.metric("nrms_events_log_open") == 1
    assert service.metric("nrms_events_log_rows") == len(kept(service))
    assert service.metric("nrms_events_log_bytes") >= 4_096


def test_where_events_are_off_one_line_says_how_to_turn_them_on(world, tmp_path):
    with RunningService(tmp_path / "log", ready=False, MODEL_URI=world.models) as service:
        answer = service.send([impression()])
        assert answer.status_code == 404
        error = ErrorBody.model_validate_json(answer.content).error
        assert error.rule == "The service must be started with EVENTS=true to take events."
        assert "nrms_events_log" not in service.client.get("/metrics").text


@pytest.fixture
def events(tmp_path) -> dict[str, str]:
    """The settings of a service without a model that takes events."""
    return {
        "MODEL_URI": str(tmp_path / "none"),
        "EVENTS": "true",
        "EVENTS_URL": f"sqlite:///{tmp_path}/events.sqlite",
    }


@pytest.mark.system
def test_events_need_no_model_and_outlive_the_service(events, tmp_path):
    rows = [impression(), impression(user_id="text")]
    with RunningService(tmp_path / "log", ready=False, **events) as service:
        until(lambda: service.send(rows[:1]).status_code == 200, "an open log")
        assert service.client.get("/readyz").status_code == 503
    assert [row["impression_id"] for row in kept(events["EVENTS_URL"])] == [
        rows[0]["impression_id"]
    ]
    with RunningService(tmp_path / "log", ready=False, **events) as service:
        until(lambda: service.send(rows[:1]).status_code == 200, "an open log")
        assert taken(service.send(rows[:1])) == (0, 1)
        refused(service.send(rows[1:]), "The ids of all users must be integers", "line 1")


@pytest.mark.system
def test_a_log_that_cannot_be_opened_is_answered_503_until_it_can(events, tmp_path):
    path = Path(events["EVENTS_URL"].removeprefix("sqlite:///"))
    path.mkdir()
    with RunningService(tmp_path / "log", ready=False, **events) as service:
        until(lambda: "could not be opened" in service.log.read_text(), "a first try")
        answer = service.send([impression()])
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert str(tmp_path) not in answer.text
        assert service.metric("nrms_events_log_open") == 0
        path.rmdir()
        until(lambda: service.send([impression()]).status_code == 200, "an open log")


@pytest.mark.system
def test_a_full_disk_is_answered_503_until_there_is_room_and_nothing_is_lost(
    events, tmp_path, disk
):
    events["EVENTS_URL"] = f"sqlite:///{disk.path}/events.sqlite"
    with RunningService(tmp_path / "log", ready=False, **events) as service:
        until(lambda: service.send([impression()]).status_code == 200, "an open log")
        disk.leave(50_000)
        done, answer = 1, None
        while answer is None or answer.status_code == 200:
            rows = [impression() for _ in range(50)]
            answer = service.send(rows)
            done += 50 * (answer.status_code == 200)
        assert answer.status_code == 503
        error = ErrorBody.model_validate_json(answer.content).error
        assert error.rule == "Events must be written to their log before they are acknowledged."
        assert "full" in service.log.read_text()
        assert service.client.get("/livez").status_code == 200
        disk.clear()
        assert taken(service.send(rows)) == (50, 0)
    assert len(kept(events["EVENTS_URL"])) == done + 50
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.fixture
def redis_server(tmp_path):
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    yield server
    server.kill()


@pytest.mark.system
def test_two_services_share_a_redis_and_wait_for_it_when_it_is_away(events, tmp_path, redis_server):
    events["EVENTS_URL"] = redis_server.url()
    rows = [impression(), impression()]
    clicks = [{"impression_id": row["impression_id"], CLICKS: [1]} for row in rows]
    settings = {"ready": False, **events}
    with (
        RunningService(tmp_path / "first", **settings) as first,
        RunningService(tmp_path / "second", **settings) as second,
    ):
        for service in (first, second):
            until(lambda service=service: service.send([]).status_code == 422, "an open log")
        assert first.send(rows[:1]).json() == {"accepted": 1, "repeated": 0, "position": 1}
        assert second.send(rows).json() == {"accepted": 1, "repeated": 1, "position": 2}
        assert second.send(clicks[:1]).json() == {"accepted": 1, "repeated": 0, "position": 3}
        redis_server.kill()
        for service in (first, second):
            answer = service.send(clicks)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert "127.0.0.1" not in answer.text
            assert service.client.get("/livez").status_code == 200
            until(lambda service=service: not service.metric("nrms_events_log_open"), "a look")
        redis_server.start()
        assert first.send(clicks).json() == {"accepted": 1, "repeated": 1, "position": 4}
        assert second.send([*rows, *clicks]).json()["repeated"] == 4
        until(lambda: second.metric("nrms_events_log_rows") == 4, "a look")
    found = kept(events["EVENTS_URL"])
    assert [(row["impression_id"], row["late"]) for row in found] == [
        (rows[0]["impression_id"], False),
        (rows[1]["impression_id"], False),
        (rows[0]["impression_id"], True),
        (rows[1]["impression_id"], True),
    ]


@pytest.mark.system
def test_a_service_starts_without_its_redis(events, tmp_path, redis_server):
    events["EVENTS_URL"] = redis_server.url().replace("//", "//:Zugzwang@")
    redis_server.kill()
    with RunningService(tmp_path / "log", ready=False, **events) as service:
        assert service.send([impression()]).status_code == 503
        until(lambda: "could not be opened" in service.log.read_text(), "a first try")
        redis_server.start()
        redis_server.ask("CONFIG SET requirepass Zugzwang")
        until(lambda: service.send([impression()]).status_code == 200, "an open log")
    assert "Zugzwang" not in service.log.read_text()
