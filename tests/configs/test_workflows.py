"""GitHub's files, and others of a public form, checked as far as that goes without GitHub."""

import re

import pytest
import yaml

from tests.small_training import REPOSITORY
from tests.tools import checked, tool

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


@pytest.mark.system
def test_actionlint_finds_nothing():
    assert checked(tool("actionlint"), *WORKFLOWS) == ""


@pytest.mark.system
@pytest.mark.parametrize(
    ("schema", "file"),
    [
        *(("vendor.github-workflows", path) for path in WORKFLOWS),
        ("vendor.dependabot", REPOSITORY / ".github/dependabot.yml"),
        ("vendor.compose-spec", REPOSITORY / "docker-compose.yaml"),
        ("vendor.citation-file-format", REPOSITORY / "CITATION.cff"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_files_keep_their_schema(schema, file):
    checked(tool("check-jsonschema"), "--builtin-schema", schema, file)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_names_a_version_and_no_job_may_more_than_it_says(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            assert re.fullmatch(r"[\w./-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", step.get("uses", "a@v1"))


def test_the_release_holds_no_key():
    text = (REPOSITORY / ".github/workflows/release.yml").read_text()
    assert "secrets." not in text
    assert "credentials_json" not in text
    steps = yaml.safe_load(text)["jobs"]["image"]["steps"]
    (auth,) = [
        step for step in steps if step.get("uses", "").startswith("google-github-actions/auth@")
    ]
    assert "workload_identity_provider" in auth["with"]


def test_the_release_builds_targets_that_exist():
    stages = re.findall(
        r"^FROM \S+ AS (\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE
    )
    matrix = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text())["jobs"][
        "image"
    ]["strategy"]
    assert (
        {entry["target"] for entry in matrix["matrix"]["include"]}
        == {"api", "train"}
        <= set(stages)
    )


def test_tests_run_on_three_systems_and_two_versions_with_cache_and_coverage():
    job = yaml.safe_load((REPOSITORY / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert len(matrix["python"]) == 2
    (python,) = [
        step["with"]
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/setup-python@")
    ]
    assert python["cache"] == "pip"
    assert any("--cov" in step.get("run", "") for step in job["steps"])


def test_the_docs_that_are_published_are_those_that_make_builds():
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/docs.yml").read_text())["jobs"]
    assert {"run": "make docs"} in jobs["build"]["steps"]
    (upload,) = [step for step in jobs["build"]["steps"] if "upload-pages" in step.get("uses", "")]
    assert upload["with"] == {"path": "docs/_build"}
    assert "permissions" not in jobs["build"]
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}


def test_tools_are_named_in_one_version():
    script = (REPOSITORY / ".ci/run").read_text()
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    (rev,) = [hook["rev"] for hook in hooks if hook["repo"].endswith("/actionlint")]
    assert f"actionlint@{rev}" in script
