"""Files that do not belong together, given to each job: said aloud, or refused with
the file named.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import nightly, prepare, score, train
from jobs.cli import run
from nrms import bundles, storage
from nrms.nights.config import NightlyConfig, ScoreConfig
from nrms.nights.schedule import look_after, registry
from nrms.training.config import TrainConfig
from tests.small_training import SMALL, write_demo

BY = 1_000_000


def shifted(table: pa.Table, name: str) -> pa.Table:
    """The table with other ids in a column."""
    values = [
        row + BY if isinstance(row, int) else [one + BY for one in row]
        for row in table[name].to_pylist()
    ]
    return replaced(table, name, pa.array(values, table.schema.field(name).type))


def replaced(table: pa.Table, name: str, array: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, array)


def masked(table: pa.Table) -> pa.Table:
    """The table with 0/1 masks of the candidates in the place of the clicks."""
    rows = zip(
        table["article_ids_inview"].to_pylist(),
        table["article_ids_clicked"].to_pylist(),
        strict=True,
    )
    masks = [[int(article in clicked) for article in in_view] for in_view, clicked in rows]
    return replaced(
        table,
        "article_ids_clicked",
        pa.array(masks, table.schema.field("article_ids_clicked").type),
    )


CHANGES = {
    "ids_shifted": {"articles": lambda table: shifted(table, "article_id")},
    "readers_shifted": {"history": lambda table: shifted(table, "user_id")},
    "clicks_as_masks": {"behaviors": masked},
    "clicks_shifted": {"behaviors": lambda table: shifted(table, "article_ids_clicked")},
    "half_unknown": {"articles": lambda table: table.take(list(range(0, len(table), 2)))},
    "another_language": {
        "articles": lambda table: replaced(
            table, "title", pa.array([f"Foreign {i}" for i in range(len(table))])
        )
    },
    "as it is": {},
}


def write(source: str, target: Path, case: str) -> str:
    """The data set at `source` with this case's changes."""
    for info in storage.list_files(source, ".parquet"):
        name = str(Path(info.uri).relative_to(source))
        stem = Path(name).name.partition("-")[0].removesuffix(".parquet")
        table = CHANGES[case].get(stem, lambda table: table)(pq.read_table(info.uri))
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target / name)
    return str(target)


FINAL = ("nrms.jobs", "WARNING")


def of_joins(warnings: list[str]) -> list[str]:
    """Without those that the model, which was never trained, ranks no better than chance."""
    return [line for line in warnings if " rank better than " not in line]


def call(job, config_class, capsys, caplog, *flags):
    """Exit code, stdout, the `error:` line, and the log's warnings."""
    caplog.clear()
    with pytest.raises(SystemExit) as ended:
        run(job.main, config_class, "p", "d", list(flags))
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    warnings = [
        record.getMessage() for record in caplog.records if (record.name, record.levelname) == FINAL
    ]
    return ended.value.code, out, errors[0] if errors else None, warnings


@pytest.fixture
def night(world, tmp_path, capsys, caplog):
    """Scores a case, and gives what `call` gives and the folder of the predictions."""

    def night(case: str, *flags: str):
        data, output = write(world.data, tmp_path / case / "data", case), tmp_path / case / "out"
        where = [f"--model={world.version}", f"--data={data}", f"--output={output}"]
        kept = [
            f"--article-vectors={tmp_path / 'vectors'}",
            "--runtime=onnx",
            "--wandb-mode=disabled",
        ]
        return *call(score, ScoreConfig, capsys, caplog, *where, *kept, *flags), output

    return night


def test_data_that_belongs_together_has_shares_and_no_warning(night):
    code, _, _, warnings, output = night("as it is")
    assert (code, of_joins(warnings)) == (0, [])
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["warnings"] == warnings
    assert metrics["joins"]["unknown_candidates"] == metrics["joins"]["unknown_words"] == 0
    assert set(metrics["joins"]) > {"unknown_history", "unknown_clicks", "readers_without_history"}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "half_unknown",
            "of the candidates are not in articles.parquet. Most likely articles.parquet is older "
            "than",
        ),
        ("readers_shifted", "no impression's reader has a history row: readers begin "),
        ("clicks_shifted", "no click is on an article of articles.parquet: clicks begin "),
        (
            "another_language",
            "no word of the titles in view is in the model's vocabulary. Most likely the titles "
            "are ",
        ),
    ],
)
def test_a_night_that_does_not_join_is_scored_and_warns_everywhere(night, case, said):
    code, _, _, warnings, output = night(case)
    assert code == 0
    assert [line for line in warnings if said in line]
    assert json.loads((output / "metrics.json").read_text())["warnings"] == warnings
    report = (output / "report.html").read_text()
    assert report.index("<h2>Warnings</h2>") < report.index(
        "<h2>AUC</h2>" if "<h2>AUC" in report else "<h2>Run</h2>"
    )
    assert report.count("<li>") >= len(warnings)


def test_half_of_the_articles_missing_is_said_with_the_share(night):
    _, _, _, warnings, output = night("half_unknown")
    share = json.loads((output / "metrics.json").read_text())["joins"]["unknown_candidates"]
    assert 0.1 < share < 1
    assert any(f"validation: {share:.1%} of the candidates" in line for line in warnings)


def test_max_unknown_says_what_is_no_warning(night):
    assert of_joins(night("half_unknown", "--max-unknown=1")[3]) == []


@pytest.mark.parametrize(
    ("case", "where", "said"),
    [
        (
            "ids_shifted",
            "data/articles.parquet. Give",
            "; nor are those of the histories, which begin ",
        ),
        (
            "clicks_as_masks",
            "behaviors-00000.parquet. Write",
            "Column `article_ids_clicked` must hold the ids of the clicked articles. ",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_file_that_is_wrong(night, case, where, said):
    code, _, error, _, output = night(case)
    assert code == 1
    assert said in error
    assert where in error
    assert not (output / "_SUCCESS").exists()


def test_the_first_ids_of_both_sides_are_shown(night, world):
    _, _, error, _, _ = night("ids_shifted")
    candidate = world.behaviors(1)["article_ids_inview"][0][0].as_py()
    article = pq.read_table(world.articles)["article_id"][0].as_py() + BY
    assert f"candidates begin {candidate}, " in error
    assert f"articles begin {article}, " in error


def test_a_night_that_warns_says_so_in_the_jobs_lines_and_to_prometheus(
    world, tmp_path, capsys, caplog
):
    write(world.data, tmp_path / "2026-11-25", "half_unknown")
    flags = [
        f"--model={world.version}",
        f"--data={tmp_path}/{{date}}",
        f"--output={tmp_path}/out/{{date}}",
    ]
    kept = [f"--article-vectors={tmp_path / 'vectors'}", "--runtime=onnx", "--wandb-mode=disabled"]
    days = ["--date=2026-11-25", "--days=1"]
    code, out, _, warnings = call(nightly, NightlyConfig, capsys, caplog, *flags, *kept, *days)
    assert code == 0
    assert warnings
    assert out.splitlines()[-1].endswith(f"impressions, {len(warnings)} warnings")
    config = NightlyConfig(
        model=world.version, data=flags[1][7:], output=flags[2][9:], date="2026-11-25", days=1
    )
    gauges = registry(look_after(config, None))
    labels = {"date": "2026-11-25"}
    assert gauges.get_sample_value("nrms_night_warnings", labels) == len(warnings)
    assert 0.1 < gauges.get_sample_value("nrms_night_unknown_candidates_ratio", labels) < 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(str(tmp_path_factory.mktemp("demo")))


def trained(demo, case, tmp_path, capsys, caplog):
    data, output = write(demo, tmp_path / "data", case), str(tmp_path / "models")
    small = [
        f"--{name.replace('_', '-')}={value}" for name, value in ({**SMALL, "epochs": 1}).items()
    ]
    return *call(
        train, TrainConfig, capsys, caplog, f"--data={data}", f"--output={output}", *small
    ), output


@pytest.mark.system
def test_a_training_whose_readers_have_no_history_warns_of_both_splits(
    demo, tmp_path, capsys, caplog
):
    _, _, _, warnings, models = trained(demo, "readers_shifted", tmp_path, capsys, caplog)
    readers = [
        line
        for line in warnings
        if "no impression's reader has a history row: readers begin " in line
    ]
    # validation has no more of them than training
    assert [line.partition(":")[0] for line in readers] == ["train"]
    version = next(path.parent for path in Path(models).glob("*/meta.json"))
    bundle = bundles.load(str(version), tmp_path)
    assert bundle.joins["readers_without_history"] == 1
    assert bundle.meta["metrics"]["joins"]["readers_without_history"] == 1
    assert set(readers) <= set(bundle.meta["metrics"]["warnings"])


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("ids_shifted", "articles.parquet. Give the articles that both are of"),
        ("clicks_as_masks", "0/1 masks, as long as the candidates, in "),
        ("clicks_shifted", "must hold a click beside a non-click. Received: 1,"),
    ],
)
def test_a_training_is_refused_with_the_file_that_is_wrong(
    demo, tmp_path, capsys, caplog, case, said
):
    code, _, error, _, models = trained(demo, case, tmp_path, capsys, caplog)
    assert code == 1
    assert said in error
    assert not list(Path(models).glob("*/meta.json"))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("ids_shifted", "articles.parquet. Give the articles that both are of"),
        ("clicks_as_masks", "0/1 masks, as long as the candidates, in "),
    ],
)
def test_prepare_refuses_what_training_would(demo, tmp_path, capsys, caplog, case, said):
    source = write(demo, tmp_path / "source", case)
    flags = ["--source=ebnerd", f"--input={source}", f"--output={tmp_path / 'data'}"]
    code, _, error, _ = call(prepare, prepare.PrepareConfig, capsys, caplog, *flags)
    assert code == 1
    assert said in error
    assert not (tmp_path / "data").exists()


def test_prepare_takes_what_belongs_together(demo, tmp_path, capsys, caplog):
    source = write(demo, tmp_path / "source", "readers_shifted")
    flags = ["--source=ebnerd", f"--input={source}", f"--output={tmp_path / 'data'}"]
    assert call(prepare, prepare.PrepareConfig, capsys, caplog, *flags)[0] == 0
