"""A service that is sent a day of events while it is asked `past=live`: its scores are the night's,
whatever happens to it in between.
"""

import json
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import bundles
from nrms.data.columns import unnest
from nrms.data.schema import CLICKS, IN_VIEW
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from tests.clients import series, until
from tests.context_world import make_context_world
from tests.service import RunningService, parquet

pytestmark = pytest.mark.system

CLOSE = {"rtol": 0, "atol": 1e-5}  # of float32, in batches of other sizes


PAGE = "article_id"


class Day:
    """The validation split of a small site as rows of JSON, and the night's scores of them."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.models = str(world / "models")
        self.articles = str(world / "data" / "articles.parquet")
        (path,) = (world / "data" / "validation").glob("behaviors*.parquet")
        self.table = pq.read_table(path)
        self.history = pq.read_table(world / "data" / "validation" / "history.parquet")
        columns = (self.history[name].to_pylist() for name in ("user_id", "article_id_fixed"))
        read = dict(zip(*columns, strict=True))
        self.rows = self.table.to_pylist()
        for row in self.rows:
            row["article_id_fixed"] = read.get(row["user_id"], [])
        flags = {"runtime": "onnx", "wandb_mode": "disabled"}
        score(ScoreConfig(data=str(world / "data"), model=self.models, output=str(folder), **flags))
        (part,) = folder.glob("part-*.parquet")
        offsets, values = unnest(pq.read_table(part)["scores"].combine_chunks())
        self.scores = np.split(values.to_numpy(), offsets[1:-1])

    def request(self, number: int, **changes: object) -> dict:
        """What a site asks before it shows a list."""
        row = self.rows[number] | changes
        names = ("impression_id", "user_id", IN_VIEW, "article_id_fixed", "device_type", PAGE)
        asked = {name: row[name] for name in names}
        if row["impression_time"] is not None:
            asked["impression_time"] = row["impression_time"].isoformat()
        return asked

    def event(self, number: int, **changes: object) -> dict:
        """What it sends when it has been shown."""
        row = self.rows[number] | changes
        names = ("impression_id", "user_id", IN_VIEW, CLICKS, "device_type", PAGE)
        return {"impression_time": row["impression_time"].isoformat()} | {
            name: row[name] for name in names
        }


@pytest.fixture(scope="module")
def day(shared, tmp_path_factory) -> Day:
    world = shared.folder("context-world", make_context_world)
    return Day(world, tmp_path_factory.mktemp("night") / "out")


def environment(day: Day, folder: Path, **others: object) -> dict[str, object]:
    """Of a service that takes events of any age, on a log of its own."""
    return {
        "MODEL_URI": day.models,
        "EVENTS": "true",
        "EVENTS_URL": f"sqlite:///{folder}/events.sqlite",
        "EVENTS_KEEP_HOURS": 1e6,
        "RELOAD_SECONDS": 10,
        **others,
    }


def known(service: RunningService, day: Day) -> None:
    """Waits until the service has a live state."""
    until(lambda: ask(service, day.request(0)).status_code == 200, "a live state")


def ask(service: RunningService, *rows: dict, **query: object):
    body = {"impressions": rows}
    return service.client.post("/predict/json", json=body, params={"past": "live", **query})


def scores(service: RunningService, *rows: dict, **query: object) -> list[np.ndarray]:
    answer = ask(service, *rows, **query)
    assert answer.status_code == 200, answer.text
    return [np.array(row["scores"]) for row in answer.json()["rows"]]


def send(service: RunningService, *events: dict) -> None:
    """Sends events, and waits until they count."""
    answer = service.send(list(events))
    assert answer.status_code == 200, answer.text
    until(
        lambda: service.metric("nrms_context_position") >= answer.json()["position"],
        "the events to be applied",
    )


def replay(service: RunningService, day: Day, start: int, stop: int) -> None:
    """Asks for each impression, compares its scores with the night's, and sends it."""
    for number in range(start, stop):
        (found,) = scores(service, day.request(number))
        np.testing.assert_allclose(found, day.scores[number], **CLOSE)
        send(service, day.event(number))


def test_a_replayed_day_has_the_nights_scores_through_a_restart_and_a_kill(day, tmp_path):
    variables = environment(day, tmp_path, CONTEXT_SAVE_SECONDS=1)
    with RunningService(tmp_path / "log", **variables) as service:
        known(service, day)
        replay(service, day, 0, 100)
    assert (tmp_path / "events-state" / "context.parquet").exists()
    with RunningService(tmp_path / "log", **variables) as service:
        until(lambda: series(service, "nrms_context_position") == 100, "what was saved")
        replay(service, day, 100, 200)
        service.process.kill()
        service.process.wait()
    with RunningService(tmp_path / "log", **variables) as service:
        until(lambda: series(service, "nrms_context_position") == 200, "what was saved and the log")
        replay(service, day, 200, 300)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.fixture(scope="module")
def site(day, tmp_path_factory):
    """A service that has been sent the first half of the day, in one request."""
    folder = tmp_path_factory.mktemp("site")
    with RunningService(folder / "log", **environment(day, folder)) as service:
        known(service, day)
        send(service, *(day.event(number) for number in range(150)))
        yield service


def test_an_upload_asked_live_is_scored_by_the_events_alone(site, day):
    """Its times are of one second, in which no row can count for another anyway: so the state
    decides.
    """
    moment = day.rows[149]["impression_time"] + timedelta(seconds=1)
    later = day.table.slice(150, 20)
    place = later.column_names.index("impression_time")
    times = pa.array([moment] * 20, later.schema.field(place).type)
    later = later.set_column(place, "impression_time", times)
    files = {"file": ("f", parquet(later)), "history": ("h", parquet(day.history))}
    live = {"past": "live"}
    answer = site.client.post("/predict", params=live, files=files).json()
    assert answer["context"] == "fresh"
    found = np.concatenate([row["scores"] for row in answer["rows"]])
    asked = (day.request(number, impression_time=moment) for number in range(150, 170))
    np.testing.assert_allclose(found, np.concatenate(scores(site, *asked)), **CLOSE)
    answer = site.client.post("/predict", params=live | {"format": "parquet"}, files=files)
    assert answer.headers["X-Context"] == "fresh"
    answer = site.client.post("/predict", files=files).json()
    assert "context" not in answer
    assert not np.allclose(np.concatenate([row["scores"] for row in answer["rows"]]), found)


def test_a_state_that_is_too_old_is_said_to_be_stale(site, day):
    newest = day.rows[149]["impression_time"]
    for minutes, expected in ((1.9, "fresh"), (2.1, "stale")):
        moment = newest + timedelta(minutes=minutes)
        answer = ask(site, day.request(150, impression_time=moment)).json()
        assert answer["context"] == expected
        said = [line for line in answer.get("warnings", []) if "context: stale" in line]
        assert len(said) == (expected == "stale")
    answer = ask(site, day.request(150, impression_time=None)).json()  # asks for now
    assert answer["context"] == "stale"
    assert series(site, "nrms_context_age_seconds") > 120
    assert series(site, "nrms_context_keys") > 1_000
    assert series(site, "nrms_context_lag_rows") == 0


def test_an_impression_before_what_is_counted_is_doubted(site, day):
    early = day.rows[0]["impression_time"] - timedelta(days=1)
    answer = ask(site, day.request(0, impression_time=early)).json()
    assert any("may hold what happened after it" in line for line in answer["warnings"])


def test_readers_are_known_by_their_events_whatever_the_type_of_their_ids(site, day):
    reader = day.rows[149]["user_id"]
    asked = day.request(150, user_id=reader)
    (known_,), (text,) = scores(site, asked), scores(site, asked | {"user_id": str(reader)})
    (other,) = scores(site, asked | {"user_id": "nobody"})
    np.testing.assert_allclose(text, known_, **CLOSE)
    assert not np.allclose(other, known_, atol=1e-3)


def test_events_count_within_a_second(site, day):
    moment = day.rows[149]["impression_time"] + timedelta(seconds=1)
    before = series(site, "nrms_context_position")
    sent = day.event(0, impression_id=10**6, impression_time=moment)
    start = time.monotonic()
    assert site.send([sent]).status_code == 200
    until(lambda: series(site, "nrms_context_position") > before, "an event to count", 1)
    assert time.monotonic() - start < 1


def test_late_clicks_count_as_if_they_had_come_with_their_impression(day, tmp_path):
    """Before the delay is over, and before their reader comes again, nobody knows of them."""
    waiting: list[tuple[datetime, int]] = []
    with RunningService(tmp_path / "log", **environment(day, tmp_path)) as service:
        known(service, day)
        for number in range(100):
            row = day.rows[number]
            over = [
                (time, other)
                for time, other in waiting
                if row["impression_time"] - time > timedelta(seconds=50)
                or day.rows[other]["user_id"] == row["user_id"]
            ]
            waiting = [pair for pair in waiting if pair not in over]
            for _, other in over:
                clicks = {name: day.rows[other][name] for name in ("impression_id", CLICKS)}
                send(service, clicks)
            (found,) = scores(service, day.request(number))
            np.testing.assert_allclose(found, day.scores[number], **CLOSE)
            send(service, day.event(number, **{CLICKS: []}))
            waiting.append((row["impression_time"], number))


def test_a_new_version_keeps_the_state_and_a_damaged_one_is_made_again(day, tmp_path):
    (about,) = Path(day.models).glob("*/meta.json")
    version, models = tmp_path / "version", tmp_path / "models"
    shutil.copytree(about.parent, version, ignore=shutil.ignore_patterns("meta.json"))
    meta = json.loads(about.read_text())
    del meta["version"]
    bundles.publish(str(models), version, meta)
    variables = environment(day, tmp_path, MODEL_URI=models) | {"RELOAD_SECONDS": 0.2}
    with RunningService(tmp_path / "log", **variables) as service:
        known(service, day)
        send(service, *(day.event(number) for number in range(50)))
        (before,) = scores(service, day.request(50))
        second = bundles.publish(str(models), version, meta).rpartition("/")[2]
        until(
            lambda: service.client.get("/info").json()["model"]["version"] == second,
            "the new version",
        )
        (after,) = scores(service, day.request(50))
        np.testing.assert_allclose(after, before, **CLOSE)
        np.testing.assert_allclose(after, day.scores[50], **CLOSE)
    saved = tmp_path / "events-state" / "context.parquet"
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    with RunningService(tmp_path / "log", **variables) as service:
        until(lambda: series(service, "nrms_context_position") == 50, "the log")
        np.testing.assert_allclose(scores(service, day.request(50))[0], day.scores[50], **CLOSE)


def test_the_number_of_keys_is_bounded(day, tmp_path):
    variables = environment(day, tmp_path, CONTEXT_MAX_KEYS=1_000)
    with RunningService(tmp_path / "log", **variables) as service:
        known(service, day)
        send(service, *(day.event(number) for number in range(300)))
        assert 0 < series(service, "nrms_context_keys") <= 1_000
        assert np.isfinite(scores(service, day.request(299))[0]).all()


def test_without_events_there_is_nothing_live(day, service, tmp_path):
    with RunningService(tmp_path / "log", MODEL_URI=day.models) as without:
        answer = ask(without, day.request(0))
        assert answer.status_code == 422
        assert "EVENTS=true" in answer.json()["error"]["rule"]
    # A model that reads no past has nothing to ask for, and its answers say nothing about it.
    answer = ask(service, {"impression_id": 1, IN_VIEW: [1, 2]})
    assert answer.status_code in (200, 422)
    assert "context" not in answer.json()
