"""Load test of a running service, with Locust: uploads of 10,000 impressions, one after the other
for each user.

    .venv/bin/python -m jobs.prepare --source demo --impressions 1000 \\
        --validation-impressions 10000 --output runs/load
    .venv/bin/locust -f tests/load.py --headless --host http://127.0.0.1:8000 --users 4 \\
        --run-time 60s

LOAD_SPLIT names another split of a data set, API_KEY the service's key. 429 is an answer, not a
failure: it is counted apart, and the user waits as long as Retry-After says.
"""

import os
import time
from pathlib import Path

from locust import HttpUser, task

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
