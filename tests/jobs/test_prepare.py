"""What every source shares: shards, manifest, `_SUCCESS`, and what stands in the way; and the job
itself.
"""

import json
import signal
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import google_crc32c
import polars as pl
import pyarrow.parquet as pq
import pytest

from jobs.prepare import PrepareConfig, main
from nrms import storage
from nrms.config import parse
from nrms.data.dataset import Dataset
from nrms.errors import ConfigError
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.storage.commit import fingerprint

SIZE = {"articles": 500, "users": 60, "impressions": 250, "validation_impressions": 60}
FLAGS = [
    "--articles",
    "500",
    "--users",
    "60",
    "--impressions",
    "250",
    "--validation-impressions",
    "60",
]


def write(
    output: Path | str, seed: int = 0, shard_rows: int = 100, overwrite: bool = False
) -> list[str]:
    site = DemoSite(seed=seed, **SIZE)
    return write_dataset(
        site,
        str(output),
        shard_rows=shard_rows,
        overwrite=overwrite,
        progress=lambda split, rows: None,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_manifest_describes_every_file(tmp_path):
    write(tmp_path)

    manifest = json.loads((tmp_path / "train/manifest.json").read_bytes())
    assert manifest["source"] == "demo"
    impressions = {"train": 250, "validation": 60}
    site = {"seed": 0, "articles": 500, "users": 60, "impressions": impressions, "site": 3}
    assert manifest["parameters"] == {**site, "shard_rows": 100}
    assert manifest["rows"] == 250
    assert [file["name"] for file in manifest["files"]] == [
        "behaviors-00000.parquet",
        "behaviors-00001.parquet",
        "behaviors-00002.parquet",
        "history.parquet",
    ]
    assert [file["rows"] for file in manifest["files"][:3]] == [100, 100, 50]
    for file in manifest["files"]:
        data = (tmp_path / "train" / file["name"]).read_bytes()
        assert file["size"] == len(data)
        assert file["crc32c"] == b64encode(google_crc32c.Checksum(data).digest()).decode()
        assert file["rows"] == len(pl.read_parquet(data))


def test_what_is_written_reads_as_a_data_set(tmp_path):
    write(tmp_path)
    dataset = Dataset.open(str(tmp_path), tmp_path)
    train = dataset.split("train", history_size=20)

    assert (len(dataset.articles), len(train), train.rows) == (500, 3, 250)
    assert [len(train.read(i).offsets) - 1 for i in range(3)] == [100, 100, 50]
    assert not {"late_history", "unknown_candidate", "click_not_in_view"} & set(
        train.report.as_dict()
    )


def test_writing_again_changes_nothing(tmp_path):
    assert write(tmp_path) == ["train", "validation"]
    before = storage.list_files(tmp_path)
    assert write(tmp_path) == []
    assert storage.list_files(tmp_path) == before


def test_only_what_is_missing_is_written_again(tmp_path):
    write(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "validation/_SUCCESS").unlink()
    assert write(tmp_path) == ["validation"]
    (tmp_path / "articles.parquet").unlink()
    assert write(tmp_path) == ["train", "validation"]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "field"),
    [({"seed": 1}, "seed is 0 and not 1"), ({"shard_rows": 99}, "shard_rows is 100 and not 99")],
)
def test_other_parameters_are_refused_and_overwritten_on_demand(tmp_path, change, field):
    output = tmp_path / "out"
    write(output)
    before = contents(output)
    with pytest.raises(
        ConfigError, match=rf"--output must be empty .*/train, whose {field}\. .* --overwrite"
    ):
        write(output, **change)
    assert contents(output) == before

    assert write(output, **change, overwrite=True) == ["train", "validation"]
    write(tmp_path / "fresh", **change)
    assert contents(output) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    "name", ["articles.parquet", "train/behaviors.parquet", "test/history/part-0.parquet"]
)
def test_data_that_nobody_signed_is_refused_and_overwritten_on_demand(tmp_path, name):
    output = tmp_path / "out"
    storage.write_bytes(b"mine", output / name)
    storage.write_bytes(b"mine", output / "train/notes.txt")
    with pytest.raises(ConfigError, match=f"{name.partition('/')[0]}, which holds other files"):
        write(output)
    assert contents(output) == {name: b"mine", "train/notes.txt": b"mine"}

    write(output, overwrite=True)
    assert contents(output)["train/notes.txt"] == b"mine"
    (output / "train/notes.txt").unlink()
    write(tmp_path / "fresh")
    assert contents(output) == contents(tmp_path / "fresh")


def test_what_lies_behind_a_link_is_never_deleted(tmp_path):
    theirs, output = tmp_path / "theirs", tmp_path / "out"
    storage.write_bytes(b"theirs", theirs / "part-0.parquet")
    (output / "train").mkdir(parents=True)
    (output / "train/behaviors").symlink_to(theirs)
    with pytest.raises(
        ConfigError,
        match=r"--output must hold no link .* Received: .*/train/behaviors, which leads to",
    ):
        write(output, overwrite=True)
    assert contents(theirs) == {"part-0.parquet": b"theirs"}
    assert contents(output) == {}


def test_what_lies_behind_a_link_in_an_unfinished_split_is_never_deleted(tmp_path):
    theirs, output = tmp_path / "theirs", tmp_path / "out"
    storage.write_bytes(b"theirs", theirs / "part-0.parquet")
    write(output)
    (output / "train/_SUCCESS").unlink()
    (output / "train/behaviors").symlink_to(theirs)
    with pytest.raises(ConfigError, match=r"--output must hold no link "):
        write(output)
    assert contents(theirs) == {"part-0.parquet": b"theirs"}


@pytest.mark.parametrize("where", ["folder", pytest.param("bucket", marks=pytest.mark.system)])
@pytest.mark.parametrize(
    "damage", [None, lambda data: data[:100], lambda data: data[:200] + b"X" + data[201:]]
)
def test_a_file_that_is_missing_or_damaged_makes_its_split_anew(tmp_path, where, damage, request):
    output = request.getfixturevalue("bucket") if where == "bucket" else str(tmp_path)
    write(output)
    before = {info.uri: storage.read_bytes(info) for info in storage.list_files(output)}
    wanted = {
        "train/behaviors-00001.parquet": ["train"],
        "validation/history.parquet": ["validation"],
        "articles.parquet": ["train", "validation"],
    }
    for name, splits in wanted.items():
        uri = storage.join(output, name)
        if damage is None:
            storage.delete(uri)
        else:
            storage.write_bytes(damage(storage.read_bytes(uri)), uri)
        assert write(output) == splits
        assert {info.uri: storage.read_bytes(info) for info in storage.list_files(output)} == before
    assert write(output) == []


def test_articles_that_are_lost_are_lost_to_every_split(tmp_path):
    train, validation = (DemoSite(seed=0, **SIZE) for _ in range(2))
    train.parameters, validation.parameters = (
        {name: train.parameters[name]} for name in ("train", "validation")
    )
    for part in (train, validation):
        write_dataset(
            part, str(tmp_path), shard_rows=100, overwrite=False, progress=lambda split, rows: None
        )
    before = contents(tmp_path)
    (tmp_path / "articles.parquet").write_bytes(b"PAR1")
    write_dataset(
        train, str(tmp_path), shard_rows=100, overwrite=False, progress=lambda split, rows: None
    )
    assert not (tmp_path / "validation/_SUCCESS").exists()
    write_dataset(
        validation,
        str(tmp_path),
        shard_rows=100,
        overwrite=False,
        progress=lambda split, rows: None,
    )
    assert contents(tmp_path) == before


def test_a_data_set_of_the_first_release_is_complete(tmp_path):
    write(tmp_path)
    for path in tmp_path.rglob("*.parquet"):  # with neither checksum, of page or of file
        pq.write_table(pq.read_table(path).replace_schema_metadata(), path, compression="zstd")
    for split in ("train", "validation"):
        manifest = json.loads((tmp_path / split / "manifest.json").read_bytes())
        for file in manifest["files"]:
            file |= fingerprint(storage.stat(tmp_path / split / file["name"]), tmp_path)
        (tmp_path / split / "manifest.json").write_text(json.dumps(manifest))
    assert write(tmp_path) == []


@pytest.mark.system
def test_a_kill_between_shards_leaves_nothing_valid_and_the_same_command_goes_on(tmp_path):
    script = (
        "import os, signal\n"
        "from nrms.sources.demo import DemoSite\n"
        "from nrms.sources.writer import write_dataset\n"
        f"write_dataset(DemoSite(seed=0, **{SIZE}), {str(tmp_path / 'out')!r}, shard_rows=100, "
        f"overwrite=False,\n"
        "              progress=lambda split, rows: rows and os.kill(os.getpid(), "
        "signal.SIGKILL))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert set(contents(tmp_path / "out")) == {
        "articles.parquet",
        "train/behaviors-00000.parquet",
        "train/manifest.json",
        "validation/manifest.json",
    }
    assert "files" not in json.loads((tmp_path / "out/train/manifest.json").read_bytes())

    assert write(tmp_path / "out") == ["train", "validation"]
    write(tmp_path / "unbroken")
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


def test_a_bucket_gets_the_same_files_as_a_folder(bucket, tmp_path):
    write(f"{bucket}/demo")
    assert write(f"{bucket}/demo") == []

    write(tmp_path)
    prefix = len(f"{bucket}/demo/")
    there = {
        info.uri[prefix:]: storage.read_bytes(info) for info in storage.list_files(f"{bucket}/demo")
    }
    assert there == contents(tmp_path)


def prepare(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.prepare", *flags]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.system
def test_the_job_writes_shows_progress_and_says_when_there_is_nothing_to_do(tmp_path):
    flags = [
        "--source",
        "demo",
        *FLAGS,
        "--seed",
        "0",
        "--shard-rows",
        "100",
        "--output",
        str(tmp_path / "job"),
    ]
    first, second = prepare(*flags), prepare(*flags)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "train: 250 impressions" in first.stdout
    assert "250/250" in first.stderr
    assert "train: complete already" in second.stdout
    write(tmp_path / "library")
    assert contents(tmp_path / "job") == contents(tmp_path / "library")


@pytest.mark.system
@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--source", "ebnerd"], "--input must be given with --source ebnerd"),
        (["--source", "mind", "--input", "x"], "--split-name must be given"),
        (
            ["--source", "demo", "--articles", "499"],
            "--articles must be a whole number >= 500. Received: '499'",
        ),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(tmp_path, flags, error):
    done = prepare(*flags, "--output", str(tmp_path / "out"))
    assert done.returncode == 2
    assert error in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.system
def test_other_data_in_the_output_is_one_line_and_exit_code_2(tmp_path):
    write(tmp_path)
    done = prepare("--source", "demo", *FLAGS, "--seed", "1", "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Choose another --output or pass --overwrite" in done.stderr


def test_the_example_configuration_is_the_default():
    argv = ["--config", "configs/prepare.toml", "--output", "x"]
    default = parse(PrepareConfig, ["--source", "demo", "--output", "x"], "prepare", "")
    assert (
        replace(parse(PrepareConfig, argv, "prepare", ""), validation_impressions=None) == default
    )


def test_a_date_gives_that_day_of_the_same_site_and_another_date_another_day(tmp_path):
    for date in ("2026-11-25", "2026-11-24"):
        flags = ["--source", "demo", *FLAGS, "--output", str(tmp_path / "{date}"), "--date", date]
        main(parse(PrepareConfig, flags, "p", "d"))
    write(tmp_path / "site", seed=42)

    days = [
        pl.read_parquet(tmp_path / day / "validation/behaviors-*.parquet")
        for day in ("2026-11-25", "2026-11-24")
    ]
    assert [
        sorted(p.name for p in (tmp_path / day).iterdir()) for day in ("2026-11-25", "2026-11-24")
    ] == [["articles.parquet", "validation"]] * 2
    assert [set(day["impression_time"].dt.date().cast(pl.Utf8)) for day in days] == [
        {"2026-11-25"},
        {"2026-11-24"},
    ]
    assert days[0]["user_id"].to_list() != days[1]["user_id"].to_list()
    site = pl.read_parquet(tmp_path / "site/articles.parquet")
    for day in ("2026-11-25", "2026-11-24"):
        articles = pl.read_parquet(tmp_path / day / "articles.parquet")
        assert articles.drop("published_time").equals(site.drop("published_time"))
    counts = (
        Dataset.open(str(tmp_path / "2026-11-25"), tmp_path)
        .split("validation", 20)
        .report.as_dict()
    )
    assert not {"late_history", "unknown_candidate", "click_not_in_view"} & set(counts)
