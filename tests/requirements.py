"""Requirements files and locks, read; distributions that are installed, put into reach of another
environment.
"""

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.small_training import REPOSITORY

# each is made of the requirements file of its name
LOCKS = sorted(REPOSITORY.glob("requirements*.lock"))


def requirements(path: Path) -> list[Requirement]:
    """The requirements in a file and in the files that it includes, or in a lock."""
    lines = (re.split(r" #|^#| \\$|^ +--hash", line)[0] for line in path.read_text().splitlines())
    found: list[Requirement] = []
    for line in filter(None, map(str.strip, lines)):
        found += (
            requirements(path.parent / line[3:]) if line.startswith("-r ") else [Requirement(line)]
        )
    return found


def pins(lock: Path) -> dict[str, Requirement]:
    """The requirements in a lock, by canonical name."""
    return {canonicalize_name(locked.name): locked for locked in requirements(lock)}


def installed(wanted: Iterable[Requirement]) -> list[Distribution]:
    """The installed distributions among those that this system should have, of any version, because
    an environment made by ranges has other versions than the lock.
    """
    found = []
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                found.append(distribution(requirement.name))
            except PackageNotFoundError:
                continue
    return found


def link(found: Distribution, site: Path) -> None:
    """Puts the distribution's files into another environment's site-packages."""
    for file in found.files or []:
        if file.parts[0] != ".." and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).symlink_to(file.locate())
