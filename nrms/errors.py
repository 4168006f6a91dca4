"""Every error a user can meet. A job prints the message as one line and exits; the API answers
4xx/503::

    NrmsError
    ├── ConfigError            a flag, a configuration file or an environment variable is wrong
    ├── SchemaError            data that breaks the Parquet contract
    ├── StorageError           a file or bucket could not be read or written
    │   ├── ObjectNotFound     no such file, object or bucket
    │   ├── AccessDenied       the credentials may not do this
    │   └── PreconditionFailed somebody else wrote the object first
    ├── ArtifactError          a model bundle is incomplete, altered or of another format
    ├── NotPromoted            a model was trained and written, but is not to be served
    └── TrainingError          training cannot go on (NaN loss, no samples, ...)
        └── Interrupted        SIGTERM or SIGINT arrived; a checkpoint was written
"""


class NrmsError(Exception):
    """Base of all errors that this package raises on purpose. The message is one line: the rule,
    what arrived and where, what to do.
    """


class ConfigError(NrmsError):
    """A flag, a configuration file or an environment variable is wrong."""


class SchemaError(NrmsError):
    """Data that breaks the Parquet contract.

    Attributes:
        parts: the parts of the message, `rule`, `received`, `where` and `todo`; empty for a message
            without these parts.
    """

    def __init__(self, message: str, parts: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.parts = parts or {}


class StorageError(NrmsError):
    """A file or bucket could not be read or written."""


class ObjectNotFound(StorageError):
    """No such file, object or bucket."""


class AccessDenied(StorageError):
    """The credentials may not do this."""


class PreconditionFailed(StorageError):
    """The object is not in the state that the write asked for: somebody else wrote it first."""


class ArtifactError(NrmsError):
    """A model bundle is incomplete, altered or of another format."""


class NotPromoted(NrmsError):
    """A model was trained and written, but is no better than chance, so `latest.json` does not name
    it.
    """


class TrainingError(NrmsError):
    """Training cannot go on."""


class Interrupted(TrainingError):
    """A signal asked the run to stop; its checkpoint was written."""


def shown(name: str) -> str:
    """A name for messages, logs and manifests, with `\\xe9` for a byte that is not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
