"""The bundle on both storages: published whole, pointed to by compare-and-swap, refused when it is
not what it was.
"""

import json
import threading

import numpy as np
import pytest

from nrms import bundles, storage
from nrms.errors import ArtifactError, StorageError


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.system)])
def models(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "models")
    return storage.join(request.getfixturevalue("bucket"), "models")


@pytest.fixture
def folder(tmp_path):
    """What `publish` needs; it does not look inside the files."""
    folder = tmp_path / "bundle"
    (folder / "plots").mkdir(parents=True)
    for name in (*bundles.FIRST_RELEASE, bundles.PRIOR, "plots/curve.png"):
        (folder / name).write_bytes(np.random.default_rng(len(name)).bytes(5000))
    return folder


def read(models, cache):
    cache.mkdir(exist_ok=True)
    return bundles.load(models, cache)


def test_what_is_published_is_what_is_loaded(models, folder, tmp_path):
    uri = bundles.publish(models, folder, {"metrics": {"auc": 0.75}})
    for where in (models, uri):
        bundle = read(where, tmp_path / "cache")
        assert bundle.uri == uri
        assert uri.endswith(bundle.version)
        assert bundle.meta["metrics"] == {"auc": 0.75}
        assert {name: path.read_bytes() for name, path in bundle.files.items()} == {
            name: (folder / name).read_bytes() for name in (*bundles.FIRST_RELEASE, bundles.PRIOR)
        }
    assert (
        storage.read_bytes(storage.join(uri, "plots/curve.png"))
        == (folder / "plots/curve.png").read_bytes()
    )


@pytest.mark.parametrize("name", [*bundles.FIRST_RELEASE, bundles.PRIOR])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:99] + b"X" + data[100:]]
)
def test_a_file_cut_short_or_altered_is_refused_by_name(models, folder, tmp_path, name, damage):
    uri = storage.join(bundles.publish(models, folder, {}), name)
    storage.write_bytes(damage(storage.read_bytes(uri)), uri)
    with pytest.raises(ArtifactError, match=f"{name}: was cut short or altered"):
        read(models, tmp_path / "cache")


@pytest.mark.parametrize("name", [*bundles.FIRST_RELEASE, bundles.PRIOR])
def test_a_missing_file_is_refused_by_name(models, folder, tmp_path, name):
    storage.delete(storage.join(bundles.publish(models, folder, {}), name))
    with pytest.raises(ArtifactError, match=f"{name}: is missing"):
        read(models, tmp_path / "cache")


def test_a_forged_meta_is_refused_when_latest_points_to_it(models, folder, tmp_path):
    uri = storage.join(bundles.publish(models, folder, {}), "meta.json")
    meta = json.loads(storage.read_bytes(uri))
    storage.write_bytes(json.dumps(meta | {"metrics": {"auc": 0.99}}).encode(), uri)
    with pytest.raises(ArtifactError, match=r"meta\.json: was cut short or altered"):
        read(models, tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a JSON object"),
        (b"[1]", "must be a JSON object"),
        (b'{"version": "../../etc", "sha256": "0"}', "must name a version and its sha256"),
        (b'{"version": "20260101T000000Z-00000000"}', "must name a version and its sha256"),
    ],
)
def test_a_broken_pointer_is_refused(models, folder, tmp_path, content, message):
    bundles.publish(models, folder, {})
    storage.write_bytes(content, storage.join(models, "latest.json"))
    with pytest.raises(ArtifactError, match=message):
        read(models, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 99, "release": "7.1.0"},
            r"must be of format 1 or 2 for nrms .* Received: format 99\. Install nrms 7\.1\.0, or",
        ),
        ({"format": 99, "release": "7; evil"}, "Install the release that wrote it, or train"),
        ({"format": "9" * 500}, "Received: format .{1,60} Install"),
        ({"files": {}}, "must give the sha256"),
        ({"files": 3}, "must give the"),
    ],
)
def test_a_meta_of_another_format_is_refused(models, folder, tmp_path, change, message):
    version = bundles.publish(models, folder, {})
    uri = storage.join(version, "meta.json")
    storage.write_bytes(json.dumps(json.loads(storage.read_bytes(uri)) | change).encode(), uri)
    with pytest.raises(ArtifactError, match=message):
        read(version, tmp_path / "cache")


DEEP = "[" * 100_000 + "]" * 100_000


def with_meta(version, change):
    uri = storage.join(version, "meta.json")
    content = change(json.loads(storage.read_bytes(uri)))
    storage.write_bytes(
        content.encode() if isinstance(content, str) else json.dumps(content).encode(), uri
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta | {"config": None}, "must give config as an object. Received: None"),
        (lambda meta: meta | {"config": [1]}, "must give config as an object"),
        (lambda meta: meta | {"data": None}, "must give data as an object"),
        (lambda meta: meta | {"metrics": 0.7}, "must give metrics as an object"),
        *(
            (
                lambda meta, size=size: meta | {"config": {"history_size": size}},
                "must give history_size .* a whole number",
            )
            for size in (True, 1e9, 10**9, 0, -1, None, "50", [50], 1.5, {"deep": [1] * 1000})
        ),
        (
            lambda meta: meta | {"config": {"title_size": 10**12}},
            "must give title_size .* whole number .* Received: 1000000000000",
        ),
        (lambda meta: DEEP, "must be a JSON object"),
        (lambda meta: json.dumps(meta)[:-1] + f', "x": {DEEP}}}', "must be a JSON object"),
    ],
)
def test_a_meta_that_would_harm_whoever_reads_it_is_one_line(
    models, folder, tmp_path, change, message
):
    version = bundles.publish(models, folder, {"config": {"history_size": 50, "title_size": 30}})
    with_meta(version, change)
    with pytest.raises(ArtifactError, match=message) as caught:
        read(version, tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_pointer_of_brackets_in_brackets_is_one_line_and_replaced(models, folder, tmp_path):
    storage.write_bytes(DEEP.encode(), storage.join(models, "latest.json"))
    with pytest.raises(ArtifactError, match="must be a JSON object"):
        read(models, tmp_path / "cache")
    uri = bundles.publish(models, folder, {})
    assert read(models, tmp_path / "cache").uri == uri


def test_where_no_model_is_the_error_says_so(models, tmp_path, request):
    with pytest.raises(ArtifactError, match="is no model"):
        read(storage.join(models, "nothing"), tmp_path / "cache")


def test_a_file_given_as_a_model_is_called_a_file_and_its_folder_named(models, folder, tmp_path):
    uri = bundles.publish(models, folder, {})
    for given, parent in (
        (storage.join(models, "latest.json"), models),
        (storage.join(uri, "model.keras"), uri),
    ):
        with pytest.raises(ArtifactError) as error:
            read(given, tmp_path / "cache")
        assert (
            str(error.value)
            == f"{given}: is no model but a file. Name the folder that it is in: {parent}"
        )


def test_a_missing_folder_given_as_a_model_is_called_missing(tmp_path):
    with pytest.raises(ArtifactError, match="is no model: there is no such folder"):
        read(str(tmp_path / "nothing"), tmp_path / "cache")


def test_of_a_model_root_without_a_promoted_version_the_versions_are_named(
    models, folder, tmp_path
):
    uri = bundles.publish(models, folder, {}, promote=False)
    with pytest.raises(
        ArtifactError,
        match=f"none of its 1 versions was promoted. Name one of them, such as {uri}, or",
    ):
        read(models, tmp_path / "cache")


def test_publishing_an_incomplete_folder_writes_nothing(models, folder):
    (folder / "model.keras").unlink()
    with pytest.raises(ArtifactError, match=r"model\.keras"):
        bundles.publish(models, folder, {})
    assert storage.list_files(models) == []


def test_a_failed_publication_leaves_latest_where_it_was(models, folder, tmp_path, monkeypatch):
    first = bundles.publish(models, folder, {})

    def full(*args, **kwargs):
        raise StorageError("no space left")

    monkeypatch.setattr(storage, "write_bytes", full)
    with pytest.raises(StorageError):
        bundles.publish(models, folder, {})
    assert read(models, tmp_path / "cache").uri == first


def test_trainings_that_finish_together_all_publish_and_latest_is_one_of_them_whole(
    models, folder, tmp_path
):
    published, failed = [], []

    def publish():
        try:
            published.append(bundles.publish(models, folder, {}))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=publish) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(published)) == 6
    for uri in published:
        read(uri, tmp_path / "cache")
    assert read(models, tmp_path / "cache").uri in published


OLDER, OLD, NEW, FUTURE = (f"{year}0101T000000Z-00000000" for year in (2019, 2020, 2026, 2099))
SHA256 = "0" * 64


def pointed(models):
    return json.loads(storage.read_bytes(storage.join(models, "latest.json")))


def test_a_pointer_dated_in_the_future_is_replaced_with_a_warning(models, folder, tmp_path, caplog):
    bundles.point(models, FUTURE, SHA256)
    assert caplog.messages == []
    uri = bundles.publish(models, folder, {})
    (warning,) = caplog.messages
    assert read(models, tmp_path / "cache").uri == uri
    assert (
        f"moves from {FUTURE} to {storage.name(uri)}, whose name is of an earlier time" in warning
    )
    after = bundles.publish(models, folder, {})
    assert read(models, tmp_path / "cache").uri == after
    assert pointed(models)["number"] == 3


@pytest.mark.parametrize("number", [None, True, "3", -1, 1e9])
def test_a_pointer_without_a_number_is_replaced(models, number):
    """The first release wrote none, and no release writes the other values."""
    pointer = {"version": FUTURE, "sha256": SHA256} | ({} if number is None else {"number": number})
    storage.write_bytes(json.dumps(pointer).encode(), storage.join(models, "latest.json"))
    assert bundles.latest_version(models) == FUTURE
    bundles.point(models, OLD, SHA256)
    assert bundles.latest_version(models) == OLD


@pytest.fixture
def meanwhile(monkeypatch, models):
    """Moves the pointer after another training has read it and before it writes."""
    write = storage.write_bytes
    waiting = []

    def wait(*args, **kwargs):
        while waiting:
            waiting.pop()()
        return write(*args, **kwargs)

    monkeypatch.setattr(storage, "write_bytes", wait)
    return lambda *versions: waiting.append(
        lambda: [bundles.point(models, v, SHA256) for v in versions]
    )


@pytest.mark.parametrize(
    "before", [[], [OLDER], [FUTURE]], ids=["first", "after old", "after future"]
)
@pytest.mark.parametrize("first", [OLD, NEW])
def test_of_two_that_set_out_to_replace_the_same_pointer_the_one_that_sorts_later_stays(
    models, meanwhile, before, first
):
    for version in before:
        bundles.point(models, version, SHA256)
    second = {OLD: NEW, NEW: OLD}[first]
    meanwhile(second)
    bundles.point(models, first, SHA256)
    assert bundles.latest_version(models) == NEW


def test_a_training_that_began_to_point_earlier_does_not_overwrite_a_later_one(models, meanwhile):
    meanwhile(OLD, NEW)  # NEW sees OLD's pointer
    bundles.point(models, FUTURE, SHA256)
    assert bundles.latest_version(models) == NEW
    bundles.point(models, OLD, SHA256)  # a later one all the same, whatever its clock
    assert bundles.latest_version(models) == OLD


def test_a_version_that_is_not_promoted_is_whole_and_latest_stays(models, folder, tmp_path):
    only = bundles.publish(models, folder, {}, promote=False)
    assert bundles.latest_version(models) is None
    first = bundles.publish(models, folder, {})
    other = bundles.publish(models, folder, {}, promote=False)
    assert read(models, tmp_path / "cache").uri == first
    for uri in (only, other):
        assert read(uri, tmp_path / "cache").uri == uri


def test_a_version_of_the_first_release_has_no_prior(models, folder, tmp_path):
    (folder / bundles.PRIOR).unlink()
    bundles.publish(models, folder, {})
    assert read(models, tmp_path / "cache").prior() is None


@pytest.mark.parametrize(
    "vector",
    [
        np.ones((2, 3), np.float32),
        np.ones(3),
        np.array([1, np.nan], np.float32),
        np.array([{}], object),
        None,
    ],
    ids=["two dimensions", "float64", "nan", "pickled", "no array"],
)
def test_a_prior_that_is_no_vector_is_refused_by_name(models, folder, tmp_path, vector):
    if vector is not None:
        np.save(folder / bundles.PRIOR, vector)
    bundles.publish(models, folder, {})
    with pytest.raises(
        ArtifactError, match=r"prior\.npy must hold one vector of finite float32\. Received: "
    ):
        read(models, tmp_path / "cache").prior()


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04xxxx",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': "
        b"(100000000000000,), }",
    ],
    ids=["an archive", "a length of its own"],
)
def test_a_prior_that_is_made_to_harm_is_refused_by_name(models, folder, tmp_path, content):
    (folder / bundles.PRIOR).write_bytes(
        content.ljust(128) + b"\n" if content[0] == 0x93 else content
    )
    bundles.publish(models, folder, {})
    with pytest.raises(
        ArtifactError, match=r"prior\.npy must hold one vector of finite float32\. Received: "
    ):
        read(models, tmp_path / "cache").prior()


@pytest.mark.parametrize("share", [float("nan"), float("inf"), 5.0, "x"])
def test_shares_that_would_silence_every_warning_are_refused(models, folder, tmp_path, share):
    bundles.publish(models, folder, {"joins": {"unknown_words": share}})
    with pytest.raises(
        ArtifactError, match="must give the joins of the training split, each from 0 to 1"
    ):
        _ = read(models, tmp_path / "cache").joins


def test_a_prior_comes_back_as_it_was_published(models, folder, tmp_path):
    vector = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    np.save(folder / bundles.PRIOR, vector)
    bundles.publish(models, folder, {})
    assert read(models, tmp_path / "cache").prior().tolist() == vector.tolist()


KEY = "0123456789abcdef"


def tries(models):
    return bundles.Tries(storage.join(models, "checkpoints"), KEY)


def versions(models):
    names = [
        info.uri.removeprefix(storage.join(models, "x")[:-1]).partition("/")[0]
        for info in storage.list_files(models)
    ]
    return sorted(set(names) - {"latest.json"})


def test_what_a_killed_try_left_unfinished_is_removed_by_the_next_when_it_is_done(models, folder):
    begun = "20260101T000000Z-00000000"
    tries(models).begin(begun)
    storage.write_bytes(b"half", storage.join(models, begun, "plots/curve.png"))
    this = tries(models)
    uri = bundles.publish(models, folder, {"metrics": {"auc": 0.7}}, tries=this)
    assert versions(models) == sorted([begun, "checkpoints", storage.name(uri)])
    this.end(models)
    assert versions(models) == [storage.name(uri)]


def test_what_a_try_finished_before_it_was_killed_is_not_written_a_second_time(models, folder):
    first = bundles.publish(
        models, folder, {"metrics": {"auc": 0.7}}, promote=False, tries=tries(models)
    )
    other = bundles.publish(models, folder, {"metrics": {"auc": 0.8}}, tries=tries(models))
    this = tries(models)
    assert bundles.publish(models, folder, {"metrics": {"auc": 0.7}}, tries=this) == first
    this.end(models)
    assert versions(models) == sorted([storage.name(first), storage.name(other)])
    assert bundles.latest_version(models) == storage.name(first)


def test_two_of_the_same_training_at_once_both_publish(models, folder):
    one, two = tries(models), tries(models)
    uris = [bundles.publish(models, folder, {}, tries=each) for each in (one, two)]
    one.end(models)
    two.end(models)
    assert versions(models) == sorted(storage.name(uri) for uri in uris)
