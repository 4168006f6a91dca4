"""Log lines of jobs and the service: text for people on a terminal, JSON for programs everywhere
else.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


def to_stderr() -> None:
    """Sends this process' log to standard error: INFO and above of this project, WARNING and above
    of other packages.
    """
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(lines if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)  # otherwise they would be lines that are not JSON
    for name in ("nrms", "api"):
        logging.getLogger(name).setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """Formats each record as a line of JSON, for programs that collect logs: `time` (ISO 8601,
    UTC), `level`, `logger`, `message`, and `exception` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().strip(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
