"""Log lines of jobs and service: for people where they go to a terminal, for programs everywhere
else.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


def to_stderr() -> None:
    """Sends this process' log there: from INFO on what is ours, from WARNING on what others say."""
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(lines if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)  # Python's own would be lines that are no JSON
    for name in ("nrms", "api"):
        logging.getLogger(name).setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """A JSON object for each line, for what collects logs: `time` (ISO 8601, UTC), `level`,
    `logger`, `message`.
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
