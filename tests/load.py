"""Load test of a running service, with Locust: uploads of 10,000 impressions, one after the other for each user.

    python -m tests.load --make load      # once: writes load/file.parquet and load/history.parquet from the demo data
    locust -f tests/load.py --headless --host http://127.0.0.1:8000 --users 4 --run-time 60s

LOAD_FOLDER names another folder of the two files. 429 is an answer, not a failure: it is counted apart, and the user
waits as long as Retry-After says.
"""

import argparse
import os
import time
from pathlib import Path

FOLDER = Path(os.environ.get("LOAD_FOLDER", "load"))


def make(folder: Path, data: Path, rows: int) -> None:
    """Cuts the first impressions of a data set's validation split out of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    split = data / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    tables, count = [], 0
    for path in sorted(split.glob("behaviors*.parquet")):
        tables.append(pq.read_table(path))
        count += len(tables[-1])
        if count >= rows:
            break
    pq.write_table(pa.concat_tables(tables).slice(0, rows), folder / "file.parquet", compression="zstd")
    (folder / "history.parquet").write_bytes((split / "history.parquet").read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", type=Path, default=FOLDER)
    parser.add_argument("--data", type=Path, default=Path("runs/demo/data"))
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    make(options.make, options.data, options.rows)
else:
    from locust import HttpUser, task

    class Uploader(HttpUser):
        """Sends the same upload again and again."""

        def on_start(self) -> None:
            """Reads the files once."""
            self._files = {name: (FOLDER / f"{name}.parquet").read_bytes() for name in ("file", "history")}

        @task
        def predict(self) -> None:
            """One upload; all predictions back."""
            with self.client.post("/predict?format=parquet", files=self._files, catch_response=True) as answer:
                if answer.status_code == 429:
                    answer.request_meta["name"] = "busy (429)"
                    answer.success()
                    time.sleep(float(answer.headers["Retry-After"]))
