"""The shards of a split in the order of time, for a model whose scores depend on what happened
before an impression.
"""

from itertools import pairwise

from nrms.data.schema import schema_error
from nrms.data.split import Split
from nrms.storage import parent


def shards_in_time_order(split: Split) -> list[int]:
    """The numbers of the good shards, the earliest first: no impression of a shard is later than
    one of a shard after it.

    The times are those that were read when the split was opened, and not the statistics of footers,
    which not every tool writes. Shards that meet at one moment do not overlap. Shards without any
    time come last, in the order of their names.

    Raises:
        SchemaError: two shards overlap in time.
    """
    good = [i for i, info in enumerate(split.shards) if info.uri not in split.bad]
    times = {i: split.shard_times.get(split.shards[i].uri) for i in good}
    timed = sorted((bounds, i) for i, bounds in times.items() if bounds is not None)
    for ((first, last), before), ((start, end), after) in pairwise(timed):
        # Where no two neighbours overlap, `last` is the latest time so far.
        if start < last:
            names = {info.uri: path for path, info in split.files.items()}
            one, other = (names[split.shards[i].uri] for i in (before, after))
            raise schema_error(
                "The files of a split must not overlap in time for a model that reads what "
                "happened before an impression.",
                f"{one} from {first} to {last}, {other} from {start} to {end}",
                split.uri,
                "Write them in time order: `python -m jobs.prepare --source ebnerd --input "
                f"{parent(split.uri)} --output FOLDER`; or, where jobs.prepare made them, its "
                "command again with --overwrite.",
            )
    return [i for _, i in timed] + [i for i in good if times[i] is None]
