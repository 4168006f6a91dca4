"""What lies in a folder after a run: all of it, so that nothing temporary stays unseen."""

from pathlib import Path


def listing(folder: str | Path) -> list[str]:
    """Sorted paths of every file, folder and link below, hidden ones too; none where there is no
    such folder.
    """
    folder = Path(folder)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
