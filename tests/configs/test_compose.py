"""docker-compose.yaml and what it mounts: valid, safe, and its jobs' command lines run as they
stand there.

No Docker engine is needed: the tool itself reads the file, promtool the rules, and the commands run
in this Python, against the bucket of the compose file's own storage server.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nrms import storage
from nrms.nights.schedule import Night, registry
from tests.service import RunningService
from tests.small_training import REPOSITORY
from tests.tools import checked, tool

pytestmark = pytest.mark.system

CONFIGS = REPOSITORY / "configs"
# What other programs export: Prometheus itself, Pushgateway, supercronic (its package
# prometheus_metrics).
FOREIGN = {
    "up",
    "ALERTS",
    "push_time_seconds",
    "supercronic_successful_executions",
    "supercronic_failed_executions",
    "supercronic_currently_running",
}
SMALL_SITE = (
    "--source demo --articles 600 --users 200 --impressions 1500 --validation-impressions 400"
)
SMALL_MODEL = """
data = "-"
output = "-"
history_size = 10
title_size = 16
word_dim = 16
heads = 2
head_dim = 8
attention_dim = 16
lr = 0.01
epochs = 1
"""


def config(*flags, **environment):
    command = [
        tool("docker-compose"),
        "--project-directory",
        REPOSITORY,
        "--env-file",
        os.devnull,
        *flags,
        "config",
    ]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GRAFANA_PASSWORD", "API_KEY")
    }
    return checked(*command, "--format", "json", env=inherited | environment, cwd=REPOSITORY)


@pytest.fixture(scope="module")
def compose():
    """The whole file, as the tool understands it."""
    return json.loads(config("--profile", "demo", GRAFANA_PASSWORD="any"))


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


# --- the file


def test_without_the_demo_only_what_runs_for_good_is_started():
    services = json.loads(config(GRAFANA_PASSWORD="any"))["services"]
    assert set(services) == {"gcs", "scheduler", "api", "pushgateway", "prometheus", "grafana"}


def test_the_password_must_be_given():
    with pytest.raises(
        AssertionError, match="required variable GRAFANA_PASSWORD is missing a value"
    ):
        config()


def test_the_example_names_every_variable_and_holds_no_secret():
    example = (REPOSITORY / ".env.example").read_text()
    text = (REPOSITORY / "docker-compose.yaml").read_text()
    for name in set(re.findall(r"(?<!\$)\$\{(\w+)", text)) - {"REGISTRY", "VERSION", "WANDB_MODE"}:
        assert re.search(rf"^(# )?{name}=", example, re.MULTILINE), name
    assert re.search(r"^GRAFANA_PASSWORD=$", example, re.MULTILINE)
    assert "/.env" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_every_image_has_a_version(services):
    for name, service in services.items():
        _, colon, version = service["image"].rpartition(":")
        assert colon, name
        assert version != "latest", name


def test_the_storage_server_is_the_one_of_the_tests(services):
    from tests.conftest import INSTALL

    assert services["gcs"]["image"].rpartition(":")[2] == INSTALL.rpartition("@v")[2]


def test_what_runs_for_good_is_restarted_watched_and_waited_for(services):
    own_check = {"api": "HEALTHCHECK --interval" in (REPOSITORY / "Dockerfile").read_text()}
    for name, service in services.items():
        watched = "healthcheck" in service or own_check.get(name, False)
        if name not in ("prepare", "train", "score"):
            assert service["restart"] == "unless-stopped", name
            assert watched or name == "pushgateway", name  # its image has neither shell nor client
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other


def test_nothing_is_open_to_the_network(services):
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_what_is_mounted_is_there(services):
    binds = [
        v
        for service in services.values()
        for v in service.get("volumes", [])
        if v["type"] == "bind"
    ]
    assert binds
    for bind in binds:
        assert bind["read_only"]
        assert Path(bind["source"]).is_dir()


# --- monitoring


def test_prometheus_takes_its_configuration_and_rules():
    checked(tool("promtool"), "check", "config", CONFIGS / "prometheus/prometheus.yml")


def test_alerts_fire_when_they_should_and_at_no_other_time():
    checked(tool("promtool"), "test", "rules", CONFIGS / "prometheus/rules_test.yml")


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ('up{job="api"} == 0', 'up{job="ap"} == 0'),
        pytest.param("> 0.05", "> 0.5", marks=pytest.mark.long),
        pytest.param(">= 54 * 3600", ">= 55 * 3600", marks=pytest.mark.long),
        pytest.param("- 0.03", "- 0.3", marks=pytest.mark.long),
        (
            "nrms_night_warnings > 0 and on (date) topk(1, nrms_night_date_timestamp_seconds)",
            "nrms_night_warnings > 0",
        ),
    ],
)
def test_the_tests_of_the_alerts_see_a_broken_rule(rule, broken, tmp_path):
    text = (CONFIGS / "prometheus/rules.yml").read_text()
    assert rule in text
    (tmp_path / "rules.yml").write_text(text.replace(rule, broken))
    shutil.copy(CONFIGS / "prometheus/rules_test.yml", tmp_path)
    with pytest.raises(AssertionError, match="FAILED"):
        checked(tool("promtool"), "test", "rules", tmp_path / "rules_test.yml")


def test_every_alert_is_tested_and_says_what_to_do():
    groups = yaml.safe_load((CONFIGS / "prometheus/rules.yml").read_text())["groups"]
    tests = (CONFIGS / "prometheus/rules_test.yml").read_text()
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        assert set(rule["annotations"]) == {"summary", "todo"}
        assert f'alertname="{rule["alert"]}"' in tests


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((CONFIGS / "grafana/dashboards/nrms.json").read_text())


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_asks_valid_questions(dashboard, tmp_path):
    rules = [
        {"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions(dashboard))
    ]
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
    )
    checked(tool("promtool"), "check", "rules", "--lint=none", tmp_path / "rules.yml")


def test_dashboard_and_rules_name_metrics_that_exist(dashboard):
    from api.metrics import EventMetrics, LiveMetrics, Metrics

    metrics = Metrics().registry
    EventMetrics(metrics)
    LiveMetrics(metrics)
    night = Night(
        "2026-11-25", metrics=dict.fromkeys(("auc", "mrr", "ndcg@5", "ndcg@10", "impressions"), 1)
    )
    declared = set(FOREIGN)
    for found in (metrics, registry([night])):
        for family in text_string_to_metric_families(generate_latest(found).decode()):
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                family.type, [""]
            )
            declared |= {family.name + suffix for suffix in suffixes}
    rules = (CONFIGS / "prometheus/rules.yml").read_text()
    used = set(
        re.findall(r"\b(?:nrms|supercronic)_[a-z0-9_]+\b", rules + " ".join(expressions(dashboard)))
    )
    assert used - declared == set()


def test_the_dashboard_shows_what_was_asked_for(dashboard):
    text = " ".join(expressions(dashboard))
    for name in (
        "stage_seconds",
        "impressions_total",
        "rejections_total",
        "connections_cut_total",
        "model_info",
        "context_age_seconds",
        "context_keys",
        "context_lag_rows",
        "night_auc",
        "night_impressions",
    ):
        assert f"nrms_{name}" in text


def test_grafana_finds_its_files(services, dashboard):
    mounts = {
        v["target"]: Path(v["source"])
        for v in services["grafana"]["volumes"]
        if v["type"] == "bind"
    }
    provisioning = mounts["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert {
        panel["datasource"]["uid"] for panel in dashboard["panels"] if "datasource" in panel
    } == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards/nrms.yml").read_text())["providers"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"] + "/")
    assert (mounts[provider["options"]["path"]] / Path(home).name).exists()
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_scrapes_services_that_exist(services):
    for job in yaml.safe_load((CONFIGS / "prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]:
        for target in job["static_configs"][0]["targets"]:
            assert target.partition(":")[0] in {*services, "localhost"}


# --- the demo, from the first command to the last


@pytest.fixture(scope="module")
def bucket(services, tmp_path_factory):
    """The storage server with the compose file's flags: its bucket's URI, and the address of the
    server.
    """
    root = tmp_path_factory.mktemp("gcs")
    (volume,) = services["gcs"]["volumes"]
    root.joinpath(Path(volume["target"]).name).mkdir()  # Docker makes a folder where it mounts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    flags = [
        word.replace("gcs:4443", f"127.0.0.1:{port}")
        .replace("/storage", str(root))
        .replace("4443", port)
        for word in services["gcs"]["command"]
    ]
    process = subprocess.Popen(
        [tool("fake-gcs-server"), "-host", "127.0.0.1", "-log-level", "error", *flags]
    )
    check = services["gcs"]["healthcheck"]["test"][-1].replace("4443", port)
    while True:
        try:
            urllib.request.urlopen(check).close()
            break
        except urllib.error.URLError:
            assert process.poll() is None
            time.sleep(0.02)
    yield services["prepare"]["environment"]["BUCKET"], f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the images' date is GNU's")
def test_the_demo_from_data_to_a_served_model(services, bucket, gateway, tmp_path, monkeypatch):
    uri, server = bucket
    address, pushed = gateway
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    small = tmp_path / "small.toml"
    small.write_text(SMALL_MODEL)
    environment = {
        **os.environ,
        **services["train"]["environment"],
        "STORAGE_EMULATOR_HOST": server,
        "PUSHGATEWAY": address,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def shell(*command):
        words = [
            word.replace("$$", "$").replace("configs/demo.toml", str(small)) for word in command
        ]
        words = [word.replace("--source demo", SMALL_SITE) for word in words]
        return checked(*words, cwd=REPOSITORY, env=environment)

    def cron(path):
        (line,) = [
            line for line in (CONFIGS / path).read_text().splitlines() if not line.startswith("#")
        ]
        return shell("/bin/sh", "-c", line.split(maxsplit=5)[5])

    shell(*services["prepare"]["command"])
    assert "model: " in shell(*services["train"]["command"])
    assert "model: " not in shell(*services["train"]["command"])
    days = [(datetime.now(UTC).date() - timedelta(days=n)).isoformat() for n in (1, 2, 3)]
    printed = shell(*services["score"]["command"])
    assert sum(f"{day}  complete: AUC" in printed for day in days) >= 2  # midnight may have passed
    assert "nrms_night_auc" in pushed[0][1]

    assert "  complete: AUC" in cron("crontab")
    assert len(pushed) == 2
    assert "validation: complete already, nothing to do" in cron("site.crontab")
    assert storage.exists(f"{uri}/predictions/date={days[1]}/_SUCCESS")

    settings = {
        name: value
        for name, value in services["api"]["environment"].items()
        if name != "STORAGE_EMULATOR_HOST"
    }
    settings["EVENTS_URL"] = f"sqlite:///{tmp_path}/events.sqlite"
    with RunningService(tmp_path / "log", STORAGE_EMULATOR_HOST=server, **settings) as service:
        split = f"{uri}/days/{days[1]}/validation"
        behaviors, history = (
            storage.read_bytes(f"{split}/{name}")
            for name in ("behaviors-00000.parquet", "history.parquet")
        )
        answer = service.predict(behaviors, history)
        assert answer.status_code == 200, answer.text
        night = json.loads(storage.read_bytes(f"{uri}/predictions/date={days[1]}/metrics.json"))
        assert answer.json()["metrics"]["auc"] == pytest.approx(night["auc"], abs=1e-5)
