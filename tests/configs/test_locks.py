"""The locks: what images and CI install is what the requirements files allow, byte for byte."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.requirements import LOCKS, pins, requirements
from tests.small_training import REPOSITORY


def test_each_requirements_file_has_its_lock():
    files = {path.stem for path in REPOSITORY.glob("requirements*.txt")}
    assert {path.stem for path in LOCKS} == files
    assert files == {"requirements", "requirements_api", "requirements_gpu", "requirements_dev"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_satisfies_its_requirements(lock):
    locked = pins(lock)
    for requirement in requirements(lock.with_suffix(".txt")):
        pin = locked[canonicalize_name(requirement.name)]
        (version,) = pin.specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), f"{requirement}: make lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_everything_in_a_lock_is_pinned_by_hashes_and_no_host_is_named(lock):
    text = lock.read_text()
    packages = re.split(r"\n(?=\S)", re.sub(r"^(#.*\n)+", "", text))
    for package in packages:
        assert re.match(
            r"[\w.\[\],-]+==\S+( ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", package
        )
    assert len(packages) == len(requirements(lock))
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


def test_the_locks_agree():
    everything = pins(REPOSITORY / "requirements_dev.lock")
    for lock in LOCKS:
        for name, pin in pins(lock).items():
            if name in everything:
                assert pin.specifier == everything[name].specifier, f"{name} in {lock.name}"
            else:
                assert lock.name == "requirements_gpu.lock"
                assert name.startswith("nvidia-"), name


def test_the_locks_fit_every_python_and_system():
    # TensorFlow would pull what its GPU variant alone needs into the others, were they one.
    for lock in LOCKS:
        names = set(pins(lock))
        assert any(name.startswith("nvidia-") for name in names) == ("gpu" in lock.name)
        assert ("tensorflow" in names) == ("api" not in lock.name)


def test_ranges_of_a_package_stand_once_each():
    """A package that is named in several of requirements.txt, requirements_api.txt and the extras
    has the same range in all.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        extra: set(map(Requirement, lines))
        for extra, lines in project["optional-dependencies"].items()
    }
    base = requirements(REPOSITORY / "requirements.txt")
    service = requirements(REPOSITORY / "requirements_api.txt")
    everything = requirements(REPOSITORY / "requirements_dev.txt")
    ranges: dict[str, set[Requirement]] = {}
    for requirement in {*base, *service, *everything}.union(*extras.values()):
        ranges.setdefault(requirement.name, set()).add(requirement)
    assert [found for found in ranges.values() if len(found) > 1] == []
    assert set(extras) == {"api", "ray", "drift", "docs"}
    assert extras["api"] == set(service) - set(base)
    assert extras["docs"] < set(everything)
