"""What a run of Weights & Biases that was recorded offline left in its folder."""

import json

_BLOCK, _HEADER = 32768, 7


def records(folder):
    """What the run file holds. It is a LevelDB log: blocks of chunks, each with checksum, length
    and type, of which type 1 is a whole record, and 2, 3, 4 are its first, middle and last part.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # takes half a second

    (path,) = folder.glob("*.wandb")
    data, position, record, found = path.read_bytes(), _HEADER, b"", []
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        record += data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):
            found.append(Record.FromString(record))
            record = b""
    return found


def history(folder):
    rows = (record.history.item for record in records(folder) if record.HasField("history"))
    return [{".".join(item.nested_key): item.value_json for item in row} for row in rows]


def summary(folder):
    """What the run's page shows as its results: what the records of the run come to
    in their order.
    """
    found = {}
    for record in records(folder):
        for item in record.summary.update:
            found[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def started(folder):
    return next(record.run for record in records(folder) if record.HasField("run"))


def artifacts(folder):
    return [record.artifact for record in records(folder) if record.HasField("artifact")]


def console(folder):
    return "".join(
        record.output_raw.line for record in records(folder) if record.HasField("output_raw")
    )
