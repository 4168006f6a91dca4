"""The answer to a scored upload: figures and first rows as JSON, or all rows as Parquet."""

from __future__ import annotations

from typing import Any

from api.answers.bounded_file import AnswerFile, FileAnswer
from api.answers.rows import write_json, write_parquet
from api.answers.summary import Summary
from api.schemas import AnswerOptions
from api.served_model import Scored
from nrms.bundles import Bundle


def respond(
    file: AnswerFile,
    request_id: str,
    model: Bundle,
    taken: dict[str, str],
    scored: Scored,
    summary: Summary,
    options: AnswerOptions,
    why: dict[str, Any] | None = None,
) -> FileAnswer:
    """Writes the answer and gives it as the response that sends it.

    Args:
        file: takes it; closed when the answer has been sent, or cannot be written.
        request_id: for X-Request-Id.
        model: the version that scored.
        taken: see `api.uploads.contract.Decoded`.
        scored: the upload.
        summary: its figures.
        options: what the client asked for.
        why: see `api.answers.why`.

    Raises:
        Refusal: the answer has more bytes than it may have.
        OSError: there is no room for it.
    """
    headers = {"X-Model-Version": model.version, "X-Request-Id": request_id}
    if scored.context is not None:
        headers["X-Context"] = scored.context
    if taken:
        headers["X-Taken"] = ", ".join(f"{name}={kind}" for name, kind in taken.items())
    try:
        if options.format == "parquet":
            write_parquet(file, scored)
            headers["Content-Disposition"] = 'attachment; filename="predictions.parquet"'
            return FileAnswer(file, "application/vnd.apache.parquet", headers)
        parts = {
            "model": {"version": model.version, "sha256": model.sha256},
            "counts": summary.counts,
            **({} if summary.metrics is None else {"metrics": summary.metrics}),
            "joins": scored.joins.shares,
            **({"warnings": scored.joins.warnings} if scored.joins.warnings else {}),
            **({} if scored.context is None else {"context": scored.context}),
            **({"score_histogram": summary.histogram} if options.summary else {}),
            **({} if why is None else {"why": why}),
            **({"taken": taken} if taken else {}),
        }
        write_json(file, parts, scored, options.max_rows, options.titles)
        return FileAnswer(file, "application/json", headers)
    except BaseException:
        file.close()
        raise
