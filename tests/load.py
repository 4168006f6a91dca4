"""Load test of a running service, with Locust.

Uploads of 10,000 impressions, one after the other for each user:

    .venv/bin/python -m jobs.prepare --source demo --impressions 1000 \\
        --validation-impressions 10000 --output runs/load
    .venv/bin/locust -f tests/load.py Uploader --headless --host http://127.0.0.1:8000 --users 4 \\
        --run-time 60s

Events, each in a request of its own, ten a second for each user:

    .venv/bin/locust -f tests/load.py Page --headless --host http://127.0.0.1:8000 --users 5 \\
        --run-time 60s

LOAD_SPLIT names another split of a data set, API_KEY the service's key. 429 is an answer, not a
failure: it is counted apart, and the user waits as long as Retry-After says.
"""

import itertools
import json
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

from locust import HttpUser, constant_throughput, task

SPLIT = Path(os.environ.get("LOAD_SPLIT", "runs/load/validation"))
FILES = {"file": "behaviors-00000.parquet", "history": "history.parquet"}


class Uploader(HttpUser):
    """Sends the same upload again and again."""

    def on_start(self) -> None:
        """Reads the files once."""
        self._files = {name: (SPLIT / file).read_bytes() for name, file in FILES.items()}
        key = os.environ.get("API_KEY")
        self._headers = {"X-API-Key": key} if key else {}

    @task
    def predict(self) -> None:
        """One upload; all predictions back."""
        with self.client.post(
            "/predict?format=parquet", files=self._files, headers=self._headers, catch_response=True
        ) as answer:
            if answer.status_code == 429:
                answer.request_meta["name"] = "busy (429)"
                answer.success()
                time.sleep(float(answer.headers["Retry-After"]))


class Page(HttpUser):
    """Shows lists to readers, and says which and what was clicked."""

    wait_time = constant_throughput(10)
    _numbers = itertools.count(time.time_ns() // 1_000)

    def on_start(self) -> None:
        """What all requests carry."""
        key = os.environ.get("API_KEY")
        self._headers = {"Content-Type": "application/x-ndjson"}
        self._headers |= {"X-API-Key": key} if key else {}

    @task
    def event(self) -> None:
        """One list of twelve."""
        shown = random.sample(range(9_500_000, 9_500_500), 12)
        row = {
            "impression_id": next(self._numbers),
            "user_id": random.randrange(100_000),
            "impression_time": datetime.now(UTC).isoformat(),
            "article_ids_inview": shown,
            "article_ids_clicked": shown[:1] if random.random() < 0.5 else [],
        }
        self.client.post("/events", data=json.dumps(row), headers=self._headers)
