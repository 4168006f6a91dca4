"""Real Weights & Biases runs, offline; its failures, provoked; and that none of them reaches the
caller.
"""

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nrms.tracking import Tracker
from tests.offline_runs import artifacts, console, history, records, started, summary
from tests.processes import send

pytestmark = pytest.mark.system

KEY = "0123456789abcdef" * 3


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, caplog):
    """What a tracker sets for its process ends with the test."""
    caplog.set_level(logging.INFO, "nrms")
    for name in ("WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def tracker(folder, mode="offline", **bounds):
    return Tracker(
        mode, "a-project", "train", {"lr": 1e-4, "model": "nrms"}, "a-run", folder, **bounds
    )


def warnings_of(caplog):
    return [
        text
        for name, level, text in caplog.record_tuples
        if name.startswith("nrms") and level >= logging.WARNING
    ]


def run_folder(tracker):
    *command, folder = shlex.split(tracker.sync_command)
    assert command == ["wandb", "sync"]
    return Path(folder)


def test_an_offline_run_is_on_disk_whole_and_says_how_to_upload_it(tmp_path, caplog, capfd):
    Figure().savefig(tmp_path / "plot.png")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    with tracker(tmp_path / "a folder") as run:
        run.log({"loss": 0.5}, 1)
        run.log({"loss": np.float32(0.25), "val_auc": 0.75}, 2)
        run.summary({"val_auc": 0.75})
        run.image("curve", tmp_path / "plot.png")
        run.artifact("nrms", "model", str(tmp_path / "model"), {})
    folder = run_folder(run)

    assert folder.is_relative_to(tmp_path / "a folder" / "wandb")
    rows = history(folder)
    assert [(row["_step"], row["loss"]) for row in rows if "loss" in row] == [
        ("1", "0.5"),
        ("2", "0.25"),
    ]
    (curve,) = [row["curve.path"] for row in rows if "curve.path" in row]
    assert (folder / "files" / json.loads(curve)).read_bytes() == (
        tmp_path / "plot.png"
    ).read_bytes()
    all_records = records(folder)
    run_record = started(folder)
    assert (run_record.project, run_record.display_name, run_record.job_type) == (
        "a-project",
        "a-run",
        "train",
    )
    config = {item.key: item.value_json for item in run_record.config.update}
    assert (config["lr"], config["model"]) == ("0.0001", '"nrms"')
    assert any(
        item.key == "val_auc" and item.value_json == "0.75"
        for record in all_records
        for item in record.summary.update
    )
    (artifact,) = [record for record in all_records if "weights.bin" in str(record)]
    assert '"nrms"' in str(artifact)
    assert any(record.HasField("exit") for record in all_records)

    assert warnings_of(caplog) == []
    assert f"To upload: {run.sync_command}" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_result_is_not_overwritten_by_the_step_that_was_logged_last(tmp_path):
    with tracker(tmp_path, summarized=("loss", "val_*")) as run:
        run.log({"loss": 0.5, "val_auc": 0.75, "epoch": 1}, 1)
        run.summary({"loss": 0.5, "val_auc": 0.75})
        run.log({"loss": 0.25, "val_auc": 0.5, "epoch": 2}, 2)
    found = summary(run_folder(run))
    assert (found["loss"], found["val_auc"], found["epoch"]) == (0.5, 0.75, 2)
    assert [row["val_auc"] for row in history(run_folder(run))] == ["0.75", "0.5"]


def test_a_run_that_goes_on_keeps_its_id_and_is_uploaded_whole(tmp_path, monkeypatch):
    with tracker(tmp_path, group="a-group") as first:
        first.log({"loss": 0.5}, 1)
    time.sleep(1)  # a run's folder is named by its second and its id
    monkeypatch.setenv("WANDB_RUN_GROUP", "of the environment")
    with tracker(tmp_path, run_id=first.run_id, group="a-group") as second:
        second.log({"loss": 0.25}, 2)
    folders = [Path(word) for word in shlex.split(second.sync_command)[2:]]
    assert folders[0] == run_folder(first)
    assert [started(folder).run_id for folder in folders] == [first.run_id] * 2
    assert [started(folder).run_group for folder in folders] == ["a-group", "of the environment"]
    assert [row["_step"] for folder in folders for row in history(folder)] == ["1", "2"]


@pytest.mark.parametrize("uri", ["gs://a-bucket/days of/æ", "a folder", "/"])
def test_a_data_set_is_an_input_by_reference_that_its_content_tells_apart(tmp_path, caplog, uri):
    fingerprints = ["a" * 64, "b" * 64]
    with tracker(tmp_path) as run:
        for fingerprint in fingerprints:
            run.data(uri, fingerprint)
    assert warnings_of(caplog) == []
    found = artifacts(run_folder(run))
    assert [json.loads(artifact.metadata) for artifact in found] == [
        {"uri": uri, "fingerprint": fingerprint} for fingerprint in fingerprints
    ]
    assert all(artifact.type == "dataset" and artifact.use_after_commit for artifact in found)
    assert {(len(artifact.manifest.contents), artifact.name) for artifact in found} == {
        (1, found[0].name)
    }
    assert found[0].digest != found[1].digest


def test_what_goes_to_the_console_is_recorded_and_not_doubled(tmp_path, capfd):
    script = """
import logging, sys
from nrms import logs
from nrms.tracking import Tracker
from tqdm import tqdm
logs.to_stderr()
with Tracker("offline", "p", "train", {}, None, sys.argv[1]) as run:
    print("to stdout")
    logging.getLogger("nrms.x").info("to the log")
    for _ in tqdm(range(2), desc="a bar"):
        pass
print(run.sync_command)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    folder = Path(shlex.split(done.stdout.splitlines()[-1])[-1])
    for text, stream in (
        ("to stdout", done.stdout),
        ("to the log", done.stderr),
        ("a bar: 100%", done.stderr),
    ):
        assert stream.count(text) == 1
        assert console(folder).count(text) == 1


def test_the_commit_of_the_working_directory_is_with_the_model(tmp_path, monkeypatch, caplog):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q", tmp_path / "code"], check=True)
    subprocess.run(
        [*git, "-C", tmp_path / "code", "commit", "-q", "--allow-empty", "-m", "a"], check=True
    )
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    found = []
    for place in ("code", "none"):
        monkeypatch.chdir(tmp_path / place)
        with tracker(tmp_path) as run:
            run.artifact("nrms", "model", str(tmp_path / "none"), {"metrics": {"auc": 0.5}})
        found += [json.loads(artifact.metadata) for artifact in artifacts(run_folder(run))]
    assert (
        found[0].pop("commit")
        == subprocess.check_output(
            [*git, "rev-parse", "HEAD"], cwd=tmp_path / "code", text=True
        ).strip()
    )
    assert found == [{"metrics": {"auc": 0.5}}] * 2
    assert warnings_of(caplog) == []


def test_a_bucket_is_recorded_as_references(tmp_path, caplog, bucket):
    from nrms import storage

    storage.write_bytes(b"weights", storage.join(bucket, "models/v1/model.keras"))
    with tracker(tmp_path) as run:
        run.artifact("nrms", "model", storage.join(bucket, "models/v1"), {})
    assert warnings_of(caplog) == []
    assert any(
        f"{bucket}/models/v1/model.keras" in str(record) for record in records(run_folder(run))
    )


def test_disabled_leaves_no_trace(tmp_path, caplog):
    with tracker(tmp_path, "disabled") as run:
        run.log({"loss": 0.5}, 1)
        run.image("curve", tmp_path / "missing.png")
    assert run.sync_command is None
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []


@pytest.fixture
def closed_port(monkeypatch):
    """Weights & Biases lives where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", url)
    return url


@pytest.fixture
def silent_server(monkeypatch):
    """Weights & Biases takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def assert_recorded_offline_after_one_warning(run, caplog, words):
    run.log({"loss": 0.5}, 1)
    run.finish()
    (warning,) = warnings_of(caplog)
    assert words in warning
    assert "recording offline" in warning
    assert "\n" not in warning
    assert [row["loss"] for row in history(run_folder(run))] == ["0.5"]


def test_without_a_network_an_online_run_is_recorded_offline(
    tmp_path, caplog, capfd, monkeypatch, closed_port
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with tracker(tmp_path, "online", init_seconds=2) as run:
        assert_recorded_offline_after_one_warning(run, caplog, "connection refused")
    assert capfd.readouterr() == ("", "")
    leaks = [
        path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert leaks == []
    assert KEY not in caplog.text


@pytest.mark.usefixtures("silent_server")
def test_a_server_that_does_not_answer_is_given_up_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with tracker(tmp_path, "online", init_seconds=2) as run:
        assert_recorded_offline_after_one_warning(run, caplog, "Timed out")


@pytest.mark.usefixtures("closed_port")
def test_a_malformed_key_is_said_once_and_not_shown(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-short-secret")
    with tracker(tmp_path, "online", init_seconds=2) as run:
        assert_recorded_offline_after_one_warning(run, caplog, "WANDB_API_KEY")
    assert "a-short-secret" not in caplog.text


def test_online_without_a_key_does_not_ask_for_one(tmp_path, caplog):
    with tracker(tmp_path, "online") as run:
        assert_recorded_offline_after_one_warning(run, caplog, "no API key")


def test_without_a_mode_a_key_decides(tmp_path, caplog, monkeypatch, closed_port):
    with tracker(tmp_path, None) as run:
        pass
    assert warnings_of(caplog) == []
    assert run_folder(run).name.startswith("offline-run")

    (tmp_path / "netrc").write_text(
        f"machine {closed_port.removeprefix('http://')} login user password {KEY}"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with tracker(tmp_path, None, init_seconds=2):
        pass
    (warning,) = warnings_of(caplog)
    assert "connection refused" in warning


def test_without_a_mode_the_environment_decides_before_a_key(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with tracker(tmp_path, None):
        pass
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    with tracker(tmp_path / "file" / "folder") as run:
        run.log({"loss": 0.5}, 1)
        run.summary({"loss": 0.5})
    (warning,) = warnings_of(caplog)
    assert "Not a directory" in warning
    assert run.sync_command is None


def test_after_a_failing_call_the_run_is_closed_and_later_calls_do_nothing(tmp_path, caplog):
    with tracker(tmp_path) as run:
        run.log({"loss": 0.5}, 1)
        run.image("curve", tmp_path / "missing.png")
        run.artifact("nrms", "model", str(tmp_path / "missing"), {})
        run.log({"loss": 0.25}, 2)
    (warning,) = warnings_of(caplog)
    assert "missing.png" in warning
    assert run.sync_command in warning
    assert [row["loss"] for row in history(run_folder(run))] == ["0.5"]


# What happens to a whole process, up to its end: a child runs BEFORE, logs, runs DURING, logs, and
# ends.
CHILD = """
import logging, os, resource, signal, subprocess, sys
from nrms.tracking import Tracker
from tests.processes import send
logging.basicConfig(level=logging.WARNING, format="%(message)s")
folder, before, during = sys.argv[1:]
exec(before)
with Tracker("offline", "p", "train", {}, None, folder, call_seconds=3) as run:
    run.log({"loss": 0.5}, 1)
    exec(during)
    for step in range(2, 3000):
        run.log({"loss": 1 / step}, step)
print(run.sync_command)
"""
SERVICE = "int(subprocess.check_output(['pgrep', '-P', str(os.getpid()), 'wandb-core']))"


def child(folder, before="", during=""):
    # Into files: a service process that hangs would hold pipes open.
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        command = [sys.executable, "-c", CHILD, folder, before, during]
        # Not measured: coverage could not write its own file where files may not grow, and would
        # say so.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
        }
        assert (
            subprocess.run(
                command, stdout=stdout, stderr=stderr, env=environment, check=False
            ).returncode
            == 0
        )
    return (folder / "stdout").read_text().strip(), (folder / "stderr").read_text().strip()


def test_a_healthy_process_says_nothing(tmp_path):
    sync_command, errors = child(tmp_path)
    assert errors == ""
    assert len(history(Path(shlex.split(sync_command)[-1]))) == 2999


def test_a_crash_of_the_service_process_is_one_warning(tmp_path):
    sync_command, errors = child(tmp_path, during=f"os.kill({SERVICE}, signal.SIGKILL)")
    (warning,) = errors.splitlines()
    assert warning.startswith("Weights & Biases: ")
    assert warning.endswith(f"; going on without it. To upload what it recorded: {sync_command}")


def test_a_service_process_that_hangs_is_one_warning(tmp_path):
    during = f"pid = {SERVICE}; os.kill(pid, signal.SIGSTOP); print(pid)"
    output, errors = child(tmp_path, during=during)
    pid, sync_command = output.splitlines()
    send(int(pid), signal.SIGKILL)
    assert errors == (
        f"Weights & Biases: no answer in 3 seconds; going on without it. To upload what it "
        f"recorded: {sync_command}"
    )


def test_a_full_disk_is_one_warning(tmp_path):
    # A file that may not grow stands for it: the service process inherits the limit.
    limit = (
        "limit = resource.RLIMIT_FSIZE; "
        "resource.setrlimit(limit, (40_000, resource.getrlimit(limit)[1]))"
    )
    _, errors = child(tmp_path, before=limit)
    (warning,) = errors.splitlines()
    assert warning.startswith("Weights & Biases: the record may have gaps: ")
    assert "file too large" in warning
