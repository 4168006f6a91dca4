"""Why a candidate of a scored upload has its score."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from api.errors import ErrorDetail, Refusal
from api.schemas import AnswerOptions
from api.served_model import Scored, ServedModel
from nrms.inference.explanation import reasons

# The list is scored once for each feature.
_CANDIDATES = 256


def why(model: ServedModel, scored: Scored, options: AnswerOptions) -> dict[str, Any] | None:
    """The part of a JSON answer that explains a score; None where nobody asked.

    Raises:
        Refusal: there is no such candidate, its list is too long, or the model reads no past.
    """
    row, candidate = options.explain_row, options.explain_candidate
    if row is None and candidate is None:
        return None
    past, offsets = model.model.inputs.past, scored.impressions.offsets
    if past is None:
        raise _refusal(
            "A score can be explained of a model that reads what happened before.",
            "a model that reads texts alone",
            "Leave out explain_row and explain_candidate.",
        )
    if row is None or candidate is None or row >= len(scored.impressions):
        raise _refusal(
            "explain_row and explain_candidate must name a row of the upload and a candidate in "
            f"it, from 0; it has {len(scored.impressions):,} rows.",
            f"explain_row={row}, explain_candidate={candidate}",
            "Give both.",
        )
    size = int(offsets[row + 1] - offsets[row])
    if candidate >= size or size > _CANDIDATES:
        raise _refusal(
            f"explain_candidate must be one of a list of at most {_CANDIDATES} candidates, from 0.",
            f"{candidate} in a list of {size:,}",
            "Ask for one that is there, in a shorter list.",
        )
    found = reasons(scored.scorer, scored.impressions, past.name, row, candidate)
    return {"row": row, "candidate": candidate, "reasons": [asdict(one) for one in found]}


def _refusal(rule: str, received: str, todo: str) -> Refusal:
    detail = ErrorDetail(rule=rule, received=received, where="query", todo=todo)
    return Refusal(422, "parameters", detail)
