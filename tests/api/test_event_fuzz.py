"""Events that nobody would think of, made by breaking honest ones: refused as a whole or taken as a
whole.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from api.errors import ErrorBody
from api.schemas import EventsOut
from nrms.data.schema import CLICKS, IN_VIEW
from nrms.events.address import open_log
from tests.api.test_events import file
from tests.api.test_fuzz import BREAKS, cut, delete, flip, insert, overwrite
from tests.clients import until
from tests.scale import scaled
from tests.service import RunningService

pytestmark = pytest.mark.system

SEED = 20261127
BODIES = scaled(4_000)
SHOWN = datetime.now(UTC).isoformat()
# Texts of JSON in the place of a value, and of a whole event.
VALUES = [
    *("null", "true", "[]", "{}", '""', "0", "-1", "1.0", "1e3", "1e400", "NaN", "-Infinity"),
    *(str(number) for number in (2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**400)),
    *('"\\u0000"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\\\"', f'"{"å" * 200}"', f'"{"x" * 201}"'),
    *("[null]", "[[]]", "[1,[2]]", '["1",2]', "[" * 2_000 + "]" * 2_000, f"[{'1,' * 20_000}1]"),
    *('"2026-13-01T00:00:00"', '"9999-12-31T23:59:59-14:00"', f'"{SHOWN}"', '"now"'),
    *('{"impression_id":1}', "0x10", "'1'", "01", "1 2", '"a":1'),
]
LINE_BREAKS = [flip, insert, delete, overwrite, cut]


def request(chance: random.Random, start: int) -> list[dict]:
    """An honest request."""
    rows: list[dict] = []
    for number in range(start, start + chance.randint(1, 6)):
        shown = [chance.randrange(10**6) for _ in range(chance.randint(1, 8))]
        row = {
            "impression_id": number,
            "user_id": chance.randrange(50),
            "impression_time": SHOWN,
            IN_VIEW: shown,
        }
        if chance.random() < 0.7:
            row[CLICKS] = shown[: chance.randint(0, 2)]
        if chance.random() < 0.3:
            row |= {"event_id": f"e{number}", "article_id": 5, "device_type": 1}
        rows.append(row)
        if chance.random() < 0.4:
            rows.append({"impression_id": chance.randrange(number + 2), CLICKS: shown[-1:]})
    return rows


def other_value(body: bytes, chance: random.Random) -> bytes:
    """Another value in one place of one line, or another line."""
    lines = body.split(b"\n")
    place = chance.randrange(len(lines))
    row = json.loads(lines[place])
    name = chance.choice([*row, "surprise", ""])
    value = chance.choice(VALUES)
    if name:
        texts = {key: json.dumps(one) for key, one in row.items()} | {name: value}
        value = f"{{{','.join(f'{json.dumps(key)}:{text}' for key, text in texts.items())}}}"
    lines[place] = value.encode()
    return b"\n".join(lines)


def other_lines(body: bytes, chance: random.Random) -> bytes:
    """Lines that are lacking, twice there, joined, or ended in another way."""
    lines = body.split(b"\n")
    place = chance.randrange(len(lines))
    ways: list[Callable[[], bytes]] = [
        lambda: b"\n".join(lines * 3),
        lambda: b"".join(lines),
        lambda: b"\r".join(lines),
        lambda: b"\n\n".join([b"", *lines, b""]),
        lambda: b"[" + b",".join(lines) + b"]",
        lambda: b"\n".join(lines[:place] + lines[place + 1 :]),
        lambda: body.decode().encode("utf-16"),
    ]
    return chance.choice(ways)()


def broken(number: int) -> tuple[str, bytes]:
    """The media type and the body of this number, always the same."""
    chance = random.Random(SEED + number)
    rows = request(chance, 10 * number)
    if chance.random() < 0.3:
        data = file(rows)
        return "vnd.apache.parquet", chance.choice(BREAKS)(data, chance)
    body = "\n".join(json.dumps(row) for row in rows).encode()
    way = chance.choice([other_value, other_value, other_value, other_lines, *LINE_BREAKS])
    return "x-ndjson", way(body, chance)


def test_broken_events_are_refused_or_taken_as_a_whole(tmp_path):
    url = f"sqlite:///{tmp_path}/events.sqlite"
    environment = {"MODEL_URI": tmp_path / "none", "EVENTS": "true", "EVENTS_URL": url}
    statuses: Counter[int] = Counter()
    last = [{"impression_id": -1, CLICKS: [1]}]
    with RunningService(tmp_path / "log", ready=False, **environment) as service:
        until(lambda: service.send(last).status_code == 200, "an open log")
        position = service.send(last).json()["position"]
        for number in range(BODIES):
            kind, body = broken(number)
            headers = {"Content-Type": f"application/{kind}"}
            answer = service.client.post("/events", content=body, headers=headers)
            assert answer.status_code in (200, 422), f"{SEED + number}: {answer.text}"
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                position = EventsOut.model_validate_json(answer.content).position
            else:
                error = ErrorBody.model_validate_json(answer.content).error
                assert all(dict(error).values()), f"{SEED + number}: {answer.text}"
                # Not a row of what was refused is there.
                assert service.send(last).json()["position"] == position, SEED + number
        assert min(statuses.values()) > BODIES // 20
        assert service.process.poll() is None
    log = open_log(url, 48 * 3_600)
    found = log.since(0, 10**6)  # all of it can be read
    assert found["position"].to_pylist() == list(range(1, position + 1))
    log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()
