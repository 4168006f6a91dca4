"""The packages that a program needs, looked for before any of them is imported."""

import importlib.util
import sys


def require(packages: tuple[str, ...], what: str, todo: str) -> None:
    """Ends the process with one line where packages are missing, because a traceback about one of
    them does not help a user who forgot to activate the environment.

    Args:
        packages: the names under which they are imported.
        what: the program's name, for the line.
        todo: how to run the program, for the line.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201  as every job does
            f"error: {what} must run in the environment that holds its packages. Received: "
            f"{sys.executable}, without {', '.join(missing)}. {todo}",
            file=sys.stderr,
        )
        sys.exit(2)
