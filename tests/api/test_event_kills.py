"""A service that is killed while events pour in: what it acknowledged is there once, and what it
did not can be sent again.
"""

import random
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import httpx
import pytest

from nrms.data.schema import CLICKS, IN_VIEW
from nrms.events.address import open_log
from nrms.events.log import EventLog
from tests.api.test_events import file, taken
from tests.clients import until
from tests.scale import scaled
from tests.service import RunningService, send_events

pytestmark = pytest.mark.system

KILLS = scaled(60)
CLIENTS = 4
SHOWN = datetime.now(UTC).isoformat()


class Site:
    """Clients that send events, each until it gets no answer, and what they know of them.

    A request has some impressions; their clicks come with them, or later or earlier than they, in
    a request of their own.
    """

    def __init__(self, seed: int) -> None:
        self.acknowledged: list[list[dict]] = []
        self.unanswered: list[list[dict]] = []
        self._lock = threading.Lock()
        self._number = 0
        self._seed = seed

    def requests(self, chance: random.Random) -> list[list[dict]]:
        """Some requests that belong together, in the order in which they are sent."""
        with self._lock:
            start = self._number
            self._number += 3
        shown = [
            {
                "impression_id": number,
                "user_id": number % 9,
                "impression_time": SHOWN,
                IN_VIEW: [number, number + 1, number + 2],
                CLICKS: [number],
            }
            for number in range(start, start + 3)
        ]
        clicks = [{"impression_id": row["impression_id"], CLICKS: row[IN_VIEW]} for row in shown]
        requests = [shown, clicks] if chance.random() < 0.5 else [shown[:2], [*shown[2:], *clicks]]
        chance.shuffle(requests)
        return requests

    def send(self, service: RunningService, number: int, count: list[int]) -> None:
        """What a client does until the service is gone."""
        chance = random.Random(self._seed + number)
        with httpx.Client(base_url=service.url, timeout=60, verify=False) as client:
            while True:
                for rows in self.requests(chance):
                    answered = self._send(client, rows, chance)
                    with self._lock:
                        (self.acknowledged if answered else self.unanswered).append(rows)
                    count[number] += answered
                if not answered:
                    return

    def _send(self, client: httpx.Client, rows: list[dict], chance: random.Random) -> bool:
        try:
            answer = send_events(client, file(rows) if chance.random() < 0.1 else rows)
        except httpx.TransportError:
            return False
        assert taken(answer)[0] == len(rows)
        return True


def check(log: EventLog, site: Site) -> None:
    """What was acknowledged is there once, what was not at most once, and nothing in part."""
    found = log.since(0, 10**6).to_pylist()
    assert [row["position"] for row in found] == list(range(1, len(found) + 1))
    rows = Counter((row["impression_id"], row["late"]) for row in found)
    assert set(rows.values()) == {1}
    seen = {key for key, late in rows if not late}
    clicked = Counter((row["impression_id"], one) for row in found for one in row[CLICKS])
    assert max(clicked.values()) == 1

    def there(event: dict) -> bool:
        key = event["impression_id"]
        return key in seen if IN_VIEW in event else (key, True) in rows or key not in seen

    assert all(there(event) for request in site.acknowledged for event in request)
    for request in site.unanswered:
        shown = {event["impression_id"] in seen for event in request if IN_VIEW in event}
        assert len(shown) <= 1
    assert {key for key, late in rows if late} <= seen


def test_killed_under_load_it_loses_nothing_acknowledged_and_doubles_nothing(tmp_path):
    url = f"sqlite:///{tmp_path}/events.sqlite"
    environment = {"MODEL_URI": tmp_path / "none", "EVENTS": "true", "EVENTS_URL": url}
    seed = random.SystemRandom().randrange(2**32)
    chance, site = random.Random(seed), Site(seed)
    print(f"seed {seed}")  # noqa: T201
    for _ in range(KILLS):
        with RunningService(tmp_path / "log", ready=False, **environment) as service:
            until(lambda service=service: service.send([]).status_code == 422, "an open log")
            again, site.unanswered = site.unanswered, []
            for request in again:  # some of it was written before the kill, and some was not
                accepted, repeated = taken(service.send(request))
                assert accepted + repeated == len(request)
                assert 0 in (accepted, repeated)
                site.acknowledged.append(request)
            count = [0] * CLIENTS
            threads = [
                threading.Thread(target=site.send, args=[service, number, count])
                for number in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            enough = chance.randrange(60)
            until(lambda count=count, enough=enough: sum(count) >= enough, "events to be taken")
            time.sleep(chance.random() * 0.02)  # so that it may be at any point of its work
            service.process.kill()
            for thread in threads:
                thread.join()
            assert service.process.wait() == -signal.SIGKILL
        log = open_log(url, 48 * 3_600)
        check(log, site)
        log.close()
    assert len(site.acknowledged) > 10 * KILLS
    with RunningService(tmp_path / "log", ready=False, **environment) as service:
        until(lambda: service.send([]).status_code == 422, "an open log")
        for request in site.unanswered:
            taken(service.send(request))
        site.acknowledged += site.unanswered
        site.unanswered = []
        last = site.acknowledged[-20:]
        assert [taken(service.send(request)) for request in last] == [
            (0, len(request)) for request in last
        ]
    log = open_log(url, 48 * 3_600)
    check(log, site)
    sent = [event for request in site.acknowledged for event in request]
    assert log.state().end == len(sent)
    assert log.state().waiting == 0
    log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()
