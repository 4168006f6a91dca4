"""What each feature says of a candidate, in words for people."""

from __future__ import annotations

from nrms.features.context.features import NAMES
from nrms.features.text_scores import TEXT

_LATELY = {"30min": "the last half hour", "4h": "the last hours", "24h": "the last day"}
_EACH = {
    "win_mean": "how often it was clicked rather than the others of this list, {}",
    "win_least": "how often it was clicked rather than its strongest rival here, {}",
    "log_odds": "its clicks against those of the others where they stood together, {}",
    "log_ratio": "its click rate against that of the others where they stood together, {}",
    "shown": "how often it was shown, {}",
    "clicked": "how often it was clicked, {}",
    "rate": "its click rate, {}",
    "with_mean": "how often the others of this list stood beside it, {}",
    "with_others": "how often it stood beside the others of this list, {}",
    "with_difference": "whether it needs the others of this list more than they need it, {}",
    "with_least": "how often the one that was least beside it was there, {}",
    "missing": "how many of its usual neighbours are missing here, {}",
    "depth": "how far readers scrolled where it was shown, {}",
    "depth_difference": "how far down it usually stands, beside the length of this list, {}",
}
_OTHERS = {
    "since_first": "how long ago it was first shown",
    "since_last": "how long ago it was last shown",
    "since_published": "how long ago it was published",
    "newer_ids": "how many articles are newer",
    "reader_shown": "how often this reader was shown it",
    "reader_clicked": "how often this reader clicked on it",
    "reader_since": "how long ago this reader was last shown it",
    "in_session": "whether this reader saw it in this visit",
    "in_list_before": "whether this reader saw or clicked it in the list before",
    "in_history": "whether this reader has read it",
    "is_page": "whether it is the article of this page",
    "page_clicked": "how often it was clicked on this page",
    "page_rate": "its click rate on this page",
    "after_click": "how often it stands beside what this reader clicked last",
    "ln_length": "the length of this list",
    "length_difference": "the length of this list beside this reader's others",
    "front_page": "whether this is the front page",
    "device_1": "whether the reader is at a desktop",
    "device_2": "whether the reader is at a mobile phone",
    "device_3": "whether the reader is at a tablet",
    "hour_sine": "the hour of the day, morning or evening",
    "hour_cosine": "the hour of the day, night or noon",
    "ln_history": "how much this reader has read",
    "reader_lists": "how many lists this reader was shown",
    "share_before": "how much of this list this reader saw before",
    "since_list": "how long ago this reader was last here",
    "activity": "how active this reader was in the last day",
    "compared": "whether it was compared with the others, in a long list",
    TEXT: "how well its text fits what this reader has read",
}


def _phrase(name: str) -> str:
    if name in _OTHERS:
        return _OTHERS[name]
    kind, _, label = name.rpartition("_")
    return _EACH[kind].format(_LATELY[label])


# By the name of the feature, and of the text model's score.
WORDS: dict[str, str] = {name: _phrase(name) for name in (*NAMES, TEXT)}
