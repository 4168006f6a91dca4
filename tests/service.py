"""A small model to serve, uploads for it, and the service as a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrms import bundles
from nrms.architectures.nrms import NrmsConfig
from nrms.bundles.export import export_model
from nrms.data.dataset import Dataset
from nrms.features.inputs import History, Inputs
from nrms.features.title import Title
from nrms.models.build import build_model
from tests.small_training import REPOSITORY, write_demo

TITLE_SIZE, HISTORY_SIZE = 16, 10


def make_world(folder: Path) -> None:
    """Fills a folder with what a `World` is made of: demo data, and the files of a model."""
    write_demo(str(folder / "data"), shard_rows=700)
    articles = Dataset.open(str(folder / "data"), folder).articles
    (folder / "bundle").mkdir()
    inputs = Inputs([Title(TITLE_SIZE)], History(HISTORY_SIZE))
    inputs.fit(articles, np.arange(len(articles)))
    inputs.save(folder / "bundle")
    keras.utils.set_random_seed(1)
    model = build_model(NrmsConfig(word_dim=16, heads=2, head_dim=8, attention_dim=16), inputs)
    graphs = export_model(model, folder / "bundle", inputs.specs)
    parts = {"inputs": inputs.declared, "graphs": graphs, "scoring": model.scoring}
    (folder / "parts.json").write_text(json.dumps(parts))
    np.save(
        folder / "bundle" / bundles.PRIOR,
        np.random.default_rng(1).standard_normal(16).astype(np.float32),
    )


class World:
    """The demo data and model of `make_world`, to read, and a model root with one version (fixture
    `world`).
    """

    def __init__(self, made: Path, folder: Path) -> None:
        self.data, self.files = str(made / "data"), made / "bundle"
        self.articles = str(made / "data" / "articles.parquet")
        self.models = str(folder / "models")
        self.parts = json.loads((made / "parts.json").read_text())
        self.version = self.publish(self.models)

    def publish(self, models: str) -> str:
        """Publishes the model, the same again, as a new version; its URI."""
        config = {"history_size": HISTORY_SIZE, "title_size": TITLE_SIZE}
        meta = {"config": config, "metrics": {"auc": 0.6}, "data": {"articles": self.articles}}
        meta |= self.parts
        return bundles.publish(models, self.files, meta)

    def behaviors(self, rows: int = 200) -> pa.Table:
        """Labelled impressions."""
        (path, *_) = sorted(Path(self.data, "validation").glob("behaviors*.parquet"))
        return pq.read_table(path).slice(0, rows)

    @property
    def article_ids(self) -> list[int]:
        """Of the catalogue."""
        return pq.read_table(self.articles)["article_id"].to_pylist()

    def history(self) -> pa.Table:
        """Their users' histories."""
        return pq.read_table(Path(self.data, "validation", "history.parquet"))


def parquet(table: pa.Table | dict, **options: object) -> bytes:
    """The table as a Parquet file."""
    stream = pa.BufferOutputStream()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), stream, **options)
    return stream.getvalue().to_pybytes()


def send_events(client: httpx.Client, events: list[dict] | bytes) -> httpx.Response:
    """Sends rows as JSON lines, bytes as Parquet."""
    if isinstance(events, bytes):
        kind, body = "vnd.apache.parquet", events
    else:
        kind, body = "x-ndjson", "\n".join(json.dumps(row) for row in events).encode()
    return client.post("/events", content=body, headers={"Content-Type": f"application/{kind}"})


class RunningService:
    """`python -m api` with these environment variables; a context manager, ready on entry.

    With `files`, it may have so many open.
    """

    def __init__(
        self, log: Path, ready: bool = True, files: int | None = None, **environment: object
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._ready = ready
        command = [sys.executable, "-m", "api"]
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        variables = {"HOST": "127.0.0.1", "PORT": port, "RELOAD_SECONDS": 0.2, **environment}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **{name: str(value) for name, value in variables.items()}},
                stdout=stream,
                stderr=stream,
            )

    def __enter__(self) -> "RunningService":
        # Without certificates, which take longer to read than the service to answer.
        self.client = httpx.Client(base_url=self.url, timeout=60, verify=False)
        try:
            self.wait_for("/readyz" if self._ready else "/livez")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)

    def wait_for(self, path: str, status: int = 200) -> httpx.Response:
        """Asks until the answer has this status."""
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                answer = self.client.get(path)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == status:
                return answer
            time.sleep(0.02)

    def predict(
        self,
        file: bytes,
        history: bytes | None = None,
        articles: bytes | None = None,
        **query: object,
    ):
        """Uploads Parquet to `/predict`."""
        parts = {"file": file, "history": history, "articles": articles}
        files = {
            name: (f"{name}.parquet", data) for name, data in parts.items() if data is not None
        }
        return self.client.post("/predict", files=files, params=query)

    def send(self, events: list[dict] | bytes) -> httpx.Response:
        """Sends events to `/events`, see `send_events`."""
        return send_events(self.client, events)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [
            line
            for line in self.client.get("/metrics").text.splitlines()
            if line.startswith((name + " ", name + "{"))
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def memory(self) -> int:
        """Resident bytes of the service and its processes."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(
                    line.split(":\t", 1)
                    for line in status.read_text().splitlines()
                    if ":\t" in line
                )
            except OSError:
                continue
            if (
                str(self.process.pid) in (fields["Pid"].strip(), fields["PPid"].strip())
                and "VmRSS" in fields
            ):
                total += int(fields["VmRSS"].split()[0]) * 1024
        return total
