"""The nights that are due: missed and failed ones are done by the next run, and everybody can see
which they are.
"""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobs import prepare
from jobs.cli import run
from jobs.nightly import main
from nrms import storage
from nrms.config import parse
from nrms.errors import ConfigError
from nrms.nights.config import NightlyConfig, ScoreConfig
from nrms.nights.schedule import Night, look_after, registry
from nrms.nights.scoring import score
from tests.damage import flipped

pytestmark = pytest.mark.usefixtures("drawn_once")

DATES = ["2026-11-25", "2026-11-24", "2026-11-23"]


def write_day(folder, date):
    """A day of the site that `world`'s model was trained for."""
    flags = [
        "--articles",
        "600",
        "--users",
        "200",
        "--impressions",
        "1500",
        "--validation-impressions",
        "400",
    ]
    argv = ["--source", "demo", "--seed", "1", *flags, "--output", str(folder), "--date", date]
    prepare.main(parse(prepare.PrepareConfig, argv, "p", "d"))


@pytest.fixture
def prepare_day(shared):
    """Puts a day where a night looks for it: a copy of one that is made once."""

    def prepare_day(data, date):
        day = shared.folder(f"day-{date}", lambda folder: write_day(folder, date))
        for path, info in storage.list_paths(str(day)).items():
            storage.upload(info.uri, storage.join(data.replace("{date}", date), path))

    return prepare_day


@pytest.fixture
def root(request, tmp_path):
    return (
        request.getfixturevalue("bucket")
        if getattr(request, "param", None) == "bucket"
        else str(tmp_path)
    )


@pytest.fixture
def config(root, world, prepare_day, tmp_path):
    """Three nights, of which the middle one has no data."""
    config = NightlyConfig(
        model=world.version,
        data=storage.join(root, "days/{date}"),
        output=storage.join(root, "predictions/date={date}"),
        article_vectors=str(tmp_path / "vectors"),
        wandb_mode="disabled",
        runtime="onnx",
        date=DATES[0],
        days=3,
    )
    for date in (DATES[0], DATES[2]):
        prepare_day(config.data, date)
    return config


def scored(config):
    """The dates that a run scores."""
    dates = []

    def note(night):
        dates.append(night.date)
        return score(night)

    return look_after(config, note), dates


def samples(nights):
    families = text_string_to_metric_families(generate_latest(registry(nights)).decode())
    return {(s.name, s.labels["date"]): s.value for family in families for s in family.samples}


def call(config, capsys, *flags):
    """Exit code, stdout and stderr of the job."""
    names = ("model", "data", "output", "article_vectors", "wandb_mode", "runtime", "date", "days")
    argv = [f"--{name}={getattr(config, name)}" for name in names]
    with pytest.raises(SystemExit) as ended:
        run(main, NightlyConfig, "python -m jobs.nightly", "d", [*argv, *flags])
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_nights_with_data_are_scored_once_and_late_data_by_the_next_run(config, prepare_day):
    nights, dates = scored(config)
    assert dates == [DATES[0], DATES[2]]
    assert [night.metrics is not None for night in nights] == [True, False, True]
    assert scored(config)[1] == []
    prepare_day(config.data, DATES[1])
    assert scored(config)[1] == [DATES[1]]
    assert all(
        storage.exists(config.output.replace("{date}", date) + "/_SUCCESS") for date in DATES
    )


def test_a_failed_night_keeps_no_other_from_being_scored_and_is_tried_again(config):
    behaviors = storage.join(
        config.data.replace("{date}", DATES[0]), "validation/behaviors-00000.parquet"
    )
    good = storage.read_bytes(behaviors)
    storage.write_bytes(b"damaged", behaviors)
    nights, _ = scored(config)
    assert "behaviors-00000.parquet" in nights[0].error
    assert nights[2].metrics is not None
    assert samples(nights)["nrms_night_failed", DATES[0]] == 1

    storage.write_bytes(good, behaviors)
    nights, dates = scored(config)
    assert dates == [DATES[0]]
    assert samples(nights)["nrms_night_failed", DATES[0]] == 0


def test_what_an_earlier_model_left_half_done_does_not_keep_a_night_from_being_scored(
    config, world, tmp_path
):
    scored(config)
    output = config.output.replace("{date}", DATES[0])
    storage.delete(f"{output}/_SUCCESS")
    newer = replace(config, model=world.publish(str(tmp_path / "newer")))
    assert scored(newer)[1] == [DATES[0]]
    assert storage.exists(f"{output}/_SUCCESS")


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
@pytest.mark.parametrize(
    "damage", [None, lambda data: data[:100], lambda data: data[:60] + b"X" + data[61:]]
)
def test_a_complete_night_that_is_damaged_is_made_whole_and_no_other_is_touched(config, damage):
    scored(config)
    output = config.output.replace("{date}", DATES[2])
    before = {info.uri: storage.read_bytes(info) for info in storage.list_files(output)}
    for name in ("part-00000.parquet", "metrics.json", "report.html"):
        where = storage.join(output, name)
        storage.delete(where) if damage is None else storage.write_bytes(
            damage(before[where]), where
        )
        nights, dates = scored(config)
        assert dates == [DATES[2]]
        assert nights[2].metrics is not None
        after = {info.uri: storage.read_bytes(info) for info in storage.list_files(output)}
        manifest = storage.join(output, "manifest.json")
        assert after.pop(manifest)
        assert after == {uri: data for uri, data in before.items() if uri != manifest}
    assert scored(config)[1] == []


def test_a_damaged_night_of_an_earlier_model_is_scored_anew(config, world, tmp_path):
    scored(config)
    newer = replace(config, model=world.publish(str(tmp_path / "newer")))
    assert scored(newer)[1] == []
    storage.delete(storage.join(config.output.replace("{date}", DATES[0]), "part-00000.parquet"))
    nights, dates = scored(newer)
    assert dates == [DATES[0]]
    assert nights[0].metrics is not None


def test_a_damaged_night_whose_data_has_gone_has_failed(config, tmp_path):
    scored(config)
    storage.delete(storage.join(config.output.replace("{date}", DATES[0]), "part-00000.parquet"))
    nights, dates = scored(replace(config, data=str(tmp_path / "gone" / "{date}")))
    assert dates == [DATES[0]]
    assert [night.error is not None for night in nights] == [date == DATES[0] for date in DATES]


def test_damage_that_no_time_tells_of_is_found_with_verify(config):
    scored(config)
    folder = Path(config.output.replace("{date}", DATES[0]))
    path = folder / "part-00000.parquet"
    content = path.read_bytes()
    path.write_bytes(flipped(content, 1000))
    while (folder / "_SUCCESS").stat().st_ctime_ns <= path.stat().st_ctime_ns:
        (folder / "_SUCCESS").touch()
    assert scored(config)[1] == []
    assert scored(replace(config, verify=True))[1] == [DATES[0]]
    assert path.read_bytes() == content


def test_a_complete_night_of_the_first_release_is_complete(config):
    scored(config)
    for date in (DATES[0], DATES[2]):
        where = storage.join(config.output.replace("{date}", date), "manifest.json")
        manifest = json.loads(storage.read_bytes(where))
        for name in ("runtime", "libraries", "rules"):
            del manifest["plan"][name]
        storage.write_bytes(json.dumps(manifest).encode(), where)
    assert scored(config)[1] == []


def test_a_bug_in_one_night_keeps_no_other_from_being_scored(config):
    def broken(night):
        if night.date == DATES[0]:
            raise ZeroDivisionError("a bug")
        return score(night)

    nights = look_after(config, broken)
    assert nights[0].error == "ZeroDivisionError('a bug')"
    assert nights[2].metrics is not None


METRICS = b'{"impressions": 400, "auc": 0.5, "joins": {}}'
BAD_METRICS = {
    "missing": None,
    "empty": b"",
    "cut": b'{"impressions": 400, "au',
    "garbage": b"\xff\xfe\x00",
    "a list": b"[]",
    "nested deeply": b"[" * 100_000,
    "without impressions": b'{"auc": 0.5}',
    "an AUC that is a text": b'{"impressions": 400, "auc": "high"}',
    "an AUC that is null": b'{"impressions": 400, "auc": null}',
    "a count that is a list": b'{"impressions": 400, "candidates": [1]}',
    "warnings that are a number": b'{"impressions": 400, "warnings": 2}',
    "a count that is true": b'{"impressions": true}',
    "a count of 400 digits": b'{"impressions": 1' + b"0" * 400 + b"}",
    "joins that are a list": b'{"impressions": 400, "joins": []}',
    "a share that is a text": b'{"impressions": 400, "joins": {"unknown_words": "x"}}',
    "an interval that is a number": b'{"impressions": 400, "auc_interval": 5}',
}


@pytest.mark.parametrize("kind", BAD_METRICS)
@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_metrics_that_are_none_are_one_failed_night(config, kind, gateway, capsys, monkeypatch):
    def scores_badly(night, progress):
        storage.write_bytes(METRICS, storage.join(night.output, "metrics.json"))
        if night.date == DATES[0]:
            storage.delete(storage.join(night.output, "metrics.json"))
            if BAD_METRICS[kind] is not None:
                storage.write_bytes(BAD_METRICS[kind], storage.join(night.output, "metrics.json"))
        return SimpleNamespace(metrics=None)

    monkeypatch.setattr("nrms.nights.scoring.score", scores_badly)
    storage.write_bytes(b"", storage.join(config.output.replace("{date}", DATES[0]), "_SUCCESS"))
    address, pushed = gateway
    code, out, err = call(config, capsys, "--pushgateway", address)
    assert_one_night_failed(code, out, err)
    assert err.splitlines()[-1].startswith(f"error: 1 of 3 nights failed: {DATES[0]}. First: ")
    assert "metrics.json" in err.splitlines()[-1]
    ((_, body),) = pushed
    assert f'nrms_night_failed{{date="{DATES[0]}"}} 1.0' in body
    assert f'nrms_night_impressions{{date="{DATES[2]}"}} 400.0' in body


def assert_one_night_failed(code, out, err):
    """The first night failed, and the others are as they would be without it."""
    assert code == 1
    assert [line[:20].strip() for line in out.splitlines()[-3:]] == [
        f"{DATES[0]}  failed:",
        f"{DATES[1]}  no data",
        f"{DATES[2]}  complete",
    ]
    assert "Traceback" not in err


def break_link(split):
    (split / "behaviors-00000.parquet").rename(split / "x")
    (split / "behaviors-00000.parquet").symlink_to("gone")


def pipe(split):
    os.mkfifo(split / "behaviors-00001.parquet")


def no_utf8(split):
    (split / os.fsdecode(b"behaviors-\xff.parquet")).touch()


@pytest.mark.parametrize("harm", [break_link, pipe, no_utf8])
def test_data_that_cannot_be_read_is_one_failed_night(harm, config, gateway, capsys):
    harm(Path(config.data.replace("{date}", DATES[0]), "validation"))
    address, pushed = gateway
    code, out, err = call(config, capsys, "--pushgateway", address)
    assert_one_night_failed(code, out, err)
    assert "behaviors-" in err.splitlines()[-1]
    assert f'nrms_night_failed{{date="{DATES[0]}"}} 1.0' in pushed[0][1]


def test_a_folder_that_may_not_be_listed_is_one_failed_night(config, tmp_path):
    split = Path(config.data.replace("{date}", DATES[0]), "validation")
    for path in tmp_path.rglob("*"):
        path.chmod(0o777)
    parents = [path for path in (tmp_path, *tmp_path.parents) if path.stat().st_uid == os.getuid()]
    modes = {path: path.stat().st_mode for path in parents}
    for path in parents:
        path.chmod(path.stat().st_mode | 0o755 if path != tmp_path else 0o777)
    split.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        nights = look_after(
            config,
            lambda night: storage.write_bytes(METRICS, storage.join(night.output, "metrics.json")),
        )
    finally:
        os.seteuid(user)
        split.chmod(0o755)
        for path, mode in modes.items():
            path.chmod(mode)
    assert "Permission denied" in nights[0].error
    assert nights[2].metrics is not None


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_a_bucket_or_folder_that_is_not_there_fails_its_nights_and_the_pushgateway_is_told(
    config, root, gateway, capsys, tmp_path
):
    address, pushed = gateway
    if storage.is_gcs(root):
        config = replace(config, data="gs://no-such-bucket/{date}")
    else:
        (tmp_path / "file").touch()
        config = replace(config, output=str(tmp_path / "file" / "{date}"))
    code, _, err = call(config, capsys, "--pushgateway", address)
    assert code == 1
    assert "Traceback" not in err
    assert f'nrms_night_failed{{date="{DATES[0]}"}} 1.0' in pushed[0][1]


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
@pytest.mark.parametrize("part", ["behaviors", "history"])
def test_a_split_without_one_of_its_parts_is_no_data_yet(config, part):
    split = storage.join(config.data.replace("{date}", DATES[0]), "validation")
    for path, info in storage.list_paths(split).items():
        if part in path:
            storage.delete(info.uri)
    storage.write_bytes(b"", storage.join(split, part, "date=x", "_SUCCESS"))
    nights, dates = scored(config)
    assert dates == [DATES[2]]
    assert (nights[0].metrics, nights[0].error) == (None, None)


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_a_success_file_inside_a_part_ends_no_unfinished_split(config):
    split = storage.join(config.data.replace("{date}", DATES[0]), "validation")
    storage.delete(storage.join(split, "_SUCCESS"))
    storage.write_bytes(b"", storage.join(split, "history", "_SUCCESS"))
    assert scored(config)[1] == [DATES[2]]


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_paths_may_end_in_slashes(config):
    written = replace(
        config,
        data=f"{config.data}/",
        output=f"{config.output}//",
        split="validation/",
        model=f"{config.model}/",
    )
    assert scored(written)[1] == [DATES[0], DATES[2]]
    found = [storage.list_paths(config.output.replace("{date}", date)) for date in DATES]
    assert ["_SUCCESS" in paths for paths in found] == [True, False, True]
    assert scored(config)[1] == []
    for date in (DATES[0], DATES[2]):
        assert score(ScoreConfig(**scoring(config, date))).metrics is None  # the same predictions


def scoring(config, date):
    names = ("model", "article_vectors", "wandb_mode", "runtime")
    values = {name: getattr(config, name) for name in names}
    return values | {
        name: getattr(config, name).replace("{date}", date) for name in ("data", "output")
    }


def test_data_that_is_still_being_written_is_waited_for(config):
    storage.delete(storage.join(config.data.replace("{date}", DATES[0]), "validation/_SUCCESS"))
    nights, dates = scored(config)
    assert dates == [DATES[2]]
    assert (nights[0].metrics, nights[0].error) == (None, None)


def test_data_without_a_manifest_is_taken_as_it_is(config):
    for name in ("_SUCCESS", "manifest.json"):
        storage.delete(storage.join(config.data.replace("{date}", DATES[0]), "validation", name))
    assert scored(config)[1] == [DATES[0], DATES[2]]


def test_the_last_night_is_yesterday_unless_said_otherwise(world, tmp_path):
    paths = {"data": str(tmp_path / "{date}"), "output": str(tmp_path / "out/{date}")}
    before = datetime.now(UTC).date()
    nights = look_after(NightlyConfig(model=world.version, days=2, **paths), score)
    dates = [
        [(day - timedelta(days=n)).isoformat() for n in (1, 2)]
        for day in (before, datetime.now(UTC).date())
    ]
    assert [night.date for night in nights] in dates


@pytest.mark.parametrize("name", ["data", "output"])
def test_each_night_must_have_a_place_of_its_own(name):
    paths = {"data": "d/{date}", "output": "o/{date}", name: "same"}
    with pytest.raises(
        ConfigError, match=rf"--{name} must hold {{date}}: each night has its own. Received: same"
    ):
        NightlyConfig(model="m", **paths)


def test_the_gauges_say_what_metrics_json_says(config):
    nights, _ = scored(config)
    found = samples(nights)
    for night in (nights[0], nights[2]):
        assert found["nrms_night_auc", night.date] == night.metrics["auc"]
        ends = [found[f"nrms_night_auc_{end}", night.date] for end in ("low", "high")]
        assert ends == night.metrics["auc_interval"]
        assert found["nrms_night_ndcg_10", night.date] == night.metrics["ndcg@10"]
        assert found["nrms_night_impressions", night.date] == 400
        start = datetime.fromtimestamp(found["nrms_night_date_timestamp_seconds", night.date], UTC)
        assert start.isoformat() == f"{night.date}T00:00:00+00:00"
    assert not [key for key in found if key[1] == DATES[1]]


def test_the_gauges_tell_of_joins_and_warnings():
    shares = {"unknown_candidates": 0.97, "unknown_words": 0.5, "of a later release": 1.0}
    nights = [
        Night(DATES[0], metrics={"joins": shares, "warnings": ["one", "two"]}),
        Night(DATES[1], metrics={"joins": {}, "warnings": []}),
        Night(DATES[2], metrics={"impressions": 3}),  # of an earlier release
    ]
    found = samples(nights)
    assert {date: found.get(("nrms_night_warnings", date)) for date in DATES} == {
        DATES[0]: 2,
        DATES[1]: 0,
        DATES[2]: None,
    }
    assert found["nrms_night_unknown_candidates_ratio", DATES[0]] == 0.97
    assert [key for key in found if key[0].endswith("_ratio") and key[1] != DATES[0]] == []


def test_the_job_says_how_each_night_stands_and_fails_when_one_did(config, capsys):
    code, out, _ = call(config, capsys)
    assert code == 0
    assert [line[:20].strip() for line in out.splitlines()[-3:]] == [
        f"{DATES[0]}  complete",
        f"{DATES[1]}  no data",
        f"{DATES[2]}  complete",
    ]
    storage.delete(config.output.replace("{date}", DATES[2]) + "/_SUCCESS")
    storage.delete(storage.join(config.data.replace("{date}", DATES[2]), "articles.parquet"))
    code, out, err = call(config, capsys)
    assert code == 1
    assert f"{DATES[2]}  failed: " in out
    assert err.splitlines()[-1].startswith(f"error: 1 of 3 nights failed: {DATES[2]}. First: ")


def test_the_pushgateway_is_told(config, gateway, capsys):
    address, pushed = gateway
    assert call(config, capsys, "--pushgateway", address)[0] == 0
    ((path, body),) = pushed
    assert path == "/metrics/job/nightly"
    assert f'nrms_night_failed{{date="{DATES[0]}"}} 0.0' in body


def test_a_pushgateway_that_does_not_answer_is_one_line_after_the_nights_are_done(
    config, gateway, capsys
):
    code, _, err = call(config, capsys, "--pushgateway", "http://127.0.0.1:1")
    assert code == 1
    assert err.splitlines()[-1].startswith(
        "error: --pushgateway must name a Pushgateway that answers. Received: "
    )
    assert storage.exists(config.output.replace("{date}", DATES[0]) + "/_SUCCESS")
