"""Uploads that nobody would think of: made from the OpenAPI document, by Hypothesis, and by
breaking what it made.
"""

import itertools
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

import httpx
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, SerializationContext
from schemathesis import checks as schema_checks

from api.errors import ErrorBody
from api.schemas import PredictOut
from nrms.data.columns import decoded
from nrms.data.joins import FEW
from tests import thrift
from tests.scale import scaled
from tests.service import RunningService, parquet

pytestmark = pytest.mark.system

SEED = 20230518
BODIES, WARM = scaled(10_000), scaled(2_000)
CLIENTS = 3
EXAMPLES = scaled(200)
MADE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    max_examples=EXAMPLES,
)
BREAKABLE = [
    "POST /predict",
    "POST /predict/json",
    "POST /events",
]  # the others take nothing that could be wrong
OPERATIONS = [*BREAKABLE, "GET /livez", "GET /readyz", "GET /info", "GET /metrics", "GET /example"]
LEFT_OUT = {
    # What the document cannot say, that a file must be Parquet in the contract, is refused too.
    "positive_data_acceptance",
    # Without API_KEY the service asks for none, and takes what the document calls wrong for that
    # reason alone.
    "ignored_auth",
    "negative_data_rejection",
}


@schemathesis.serializer("application/x-ndjson", "application/vnd.apache.parquet")
def events(context: SerializationContext, value: object) -> object:
    """The body of `POST /events`, which the document calls a text or bytes."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        *itertools.product(OPERATIONS, [GenerationMode.POSITIVE]),
        *itertools.product(BREAKABLE, [GenerationMode.NEGATIVE]),
    ],
)
def test_requests_made_from_the_document_are_answered_as_it_says(service, operation, mode):
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    method, path = operation.split()
    left_out = [check for check in schema_checks.CHECKS.get_all() if check.__name__ in LEFT_OUT]

    @settings(MADE, max_examples=scaled(100) if method == "POST" else 10)
    @given(document[path][method].as_strategy(generation_mode=mode))
    def every(case):
        case.call_and_validate(excluded_checks=left_out)

    every()


def test_every_operation_of_the_document_is_tried(service):
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path in paths for method in paths[path]} == set(
        OPERATIONS
    )


class Upload(NamedTuple):
    """Files of one upload, and the rows that they hold."""

    parts: dict[str, bytes]
    rows: list[dict]


INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=20)
KNOWN = st.integers(9_500_000, 9_500_700)
IN_CATALOGUE = 9_500_035
TIMES = st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))
CLICKED = st.none() | st.lists(st.none() | KNOWN, max_size=3)
CLICKS = st.none() | st.lists(st.none() | KNOWN | INTEGERS, max_size=30)


def list_of(draw: st.DrawFn, item: pa.DataType) -> pa.DataType:
    return draw(st.sampled_from([pa.list_, pa.large_list]))(item)


@st.composite
def files(draw: st.DrawFn, columns: dict[str, pa.Array]) -> bytes:
    """The columns in any order, beside others, written in any way."""
    columns = dict(draw(st.permutations(list(columns.items()))))
    rows = len(next(iter(columns.values())))
    if draw(st.booleans()):
        columns[
            draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=9))
        ] = pa.nulls(rows)
    return parquet(
        columns,
        compression=draw(st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"])),
        use_dictionary=draw(st.booleans()),
        data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
        version=draw(st.sampled_from(["1.0", "2.4", "2.6"])),
        write_statistics=draw(st.booleans()),
        row_group_size=draw(st.integers(1, 20)),
        store_schema=draw(st.booleans()),
    )


@st.composite
def ids(draw: st.DrawFn, count: int, unique: bool = False) -> pa.Array:
    """Integers of any width or strings, plain or as a dictionary."""
    values, kinds = draw(
        st.sampled_from(
            [
                (st.integers(0, 127), [pa.int8(), pa.uint8(), pa.int32()]),
                (INTEGERS, [pa.int64()]),
                (TEXTS, [pa.string(), pa.large_string()]),
            ]
        )
    )
    array = pa.array(
        draw(st.lists(values, min_size=count, max_size=count, unique=unique)),
        draw(st.sampled_from(kinds)),
    )
    return array.dictionary_encode() if draw(st.booleans()) else array


@st.composite
def uploads(draw: st.DrawFn) -> Upload:
    """Anything in the contract."""
    count = draw(st.integers(0, 12))

    def lists(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    candidates = lists(st.none() | st.lists(KNOWN | INTEGERS, max_size=12))
    if sum(len(shown or []) for shown in candidates) >= FEW - 1:
        # So many, and not one that the catalogue has, would be refused.
        next(filter(None, candidates)).append(IN_CATALOGUE)
    columns = {
        "impression_id": draw(ids(count)),
        "user_id": draw(ids(count)),
        "article_ids_inview": pa.array(candidates, list_of(draw, pa.int64())),
    }
    rows = [
        {"impression_id": impression, "user_id": user, "article_ids_inview": shown or []}
        for impression, user, shown in zip(
            columns["impression_id"].to_pylist(),
            columns["user_id"].to_pylist(),
            candidates,
            strict=True,
        )
    ]
    if draw(st.booleans()):
        columns["article_ids_clicked"] = pa.array(lists(CLICKED), list_of(draw, pa.int64()))
    if draw(st.booleans()):
        unit = draw(st.sampled_from(["s", "ms", "us"]))
        columns["impression_time"] = pa.array(lists(TIMES), pa.timestamp(unit), safe=False)
    parts = {}
    if draw(st.booleans()):
        columns["article_id_fixed"] = pa.array(lists(CLICKS), list_of(draw, pa.int64()))
    else:
        users = decoded(columns["user_id"]).unique()
        users = users[: draw(st.integers(0, len(users)))]
        clicks = draw(st.lists(CLICKS, min_size=len(users), max_size=len(users)))
        history = {
            "user_id": users,
            "article_id_fixed": pa.array(clicks, list_of(draw, pa.int64())),
        }
        parts["history"] = draw(files(history))
    if draw(st.booleans()):
        new = draw(st.lists(INTEGERS, min_size=1, max_size=5, unique=True))
        titles = draw(st.lists(st.none() | TEXTS, min_size=len(new), max_size=len(new)))
        parts["articles"] = draw(
            files({"article_id": pa.array(new, pa.int64()), "title": pa.array(titles, pa.string())})
        )
    return Upload({"file": draw(files(columns)), **parts}, rows)


def check_scored(answer: httpx.Response, rows: list[dict]) -> None:
    assert answer.status_code == 200, answer.text
    scored = PredictOut.model_validate_json(answer.content)
    assert scored.rows_total == len(rows) == len(scored.rows)
    for row, sent in zip(scored.rows, rows, strict=True):
        assert sent == {name: getattr(row, name) for name in sent}
        assert len(row.scores) == len(row.article_ids_inview)
        assert sorted(row.ranks) == list(range(1, len(row.ranks) + 1))
        ranked = [score for _, score in sorted(zip(row.ranks, row.scores, strict=True))]
        assert ranked == sorted(ranked, reverse=True)
    assert (
        sum(scored.score_histogram.all)
        == scored.counts.candidates
        == sum(len(row.scores) for row in scored.rows)
    )


def test_whatever_keeps_the_contract_is_scored(service, world):
    assert IN_CATALOGUE in world.article_ids

    @settings(MADE)
    @given(uploads())
    def every(upload):
        check_scored(service.predict(**upload.parts), upload.rows)

    every()


def made(count: int) -> list[Upload]:
    """Legal uploads to break."""
    found = []

    @settings(MADE, max_examples=count)
    @given(uploads())
    def collect(upload):
        found.append(upload)

    collect()
    return found


NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    100,
    2**15,
    2**20,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
]


def flip(data: bytes, chance: random.Random, start: int = 0) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        out[chance.randrange(start, len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def flip_in_footer(data: bytes, chance: random.Random) -> bytes:
    return flip(data, chance, thrift.footer_at(data))


def insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.choice([1, 2, 4, 50])) + data[at:]


def delete(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.choice([1, 2, 4, 50]) :]


def overwrite(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice([1, 4, 16, 100])
    return (
        data[:at]
        + chance.choice([bytes(size), b"\xff" * size, chance.randbytes(size)])
        + data[at + size :]
    )


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def structs(value: object) -> list[thrift.Struct]:
    """All structs in a value, itself included."""
    if isinstance(value, dict):
        return [
            value,
            *itertools.chain.from_iterable(structs(inner) for _, inner in value.values()),
        ]
    if isinstance(value, tuple):
        return list(itertools.chain.from_iterable(structs(inner) for inner in value[1]))
    return []


def forge(top: thrift.Struct, chance: random.Random) -> None:
    """Alters some fields anywhere below."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        struct = chance.choice([struct for struct in structs(top) if struct])
        field = chance.choice(list(struct))
        kind, value = struct[field]
        if chance.random() < 0.1:
            del struct[field]
        elif kind in (thrift.I16, thrift.I32, thrift.I64):
            struct[field] = kind, chance.choice([*NUMBERS, value + 1, value - 1, value * 2])
        elif kind == thrift.BINARY:
            struct[field] = (
                kind,
                chance.choice([b"", b"\xff", value[:-1], value * 2, b"user_id", b"x" * 10_000]),
            )
        elif kind == thrift.LIST and value[1]:
            items = list(value[1])
            one = chance.randrange(len(items))
            items = chance.choice(
                [items[:one] + items[one + 1 :], [*items, items[one]], items[::-1], items * 50]
            )
            struct[field] = kind, (value[0], items)


def forge_footer(data: bytes, chance: random.Random) -> bytes:
    return thrift.forged(data, lambda metadata: forge(metadata, chance))


def forge_page(data: bytes, chance: random.Random) -> bytes:
    """The first page of a chunk with another header, the chunk as long as it says."""
    metadata = thrift.footer(data)
    columns = [
        column[thrift.CHUNK_META][1]
        for group in thrift.groups(metadata)
        for column in group[thrift.GROUP_COLUMNS][1][1]
    ]
    chunks = [chunk for chunk in columns if chunk[thrift.COMPRESSED][1]]
    if not chunks:
        return forge_footer(data, chance)
    chunk = chance.choice(chunks)
    # Arrow notes a dictionary at 0 where there is none.
    first = (
        thrift.DICTIONARY_PAGE if chunk.get(thrift.DICTIONARY_PAGE, (0, 0))[1] else thrift.DATA_PAGE
    )
    start, at = chunk[first][1], thrift.footer_at(data)
    header, body = thrift.read(data, start)
    forge(header, chance)
    pages = thrift.write(header) + data[body : start + chunk[thrift.COMPRESSED][1]]
    moved = at - start + len(pages) - chunk[thrift.COMPRESSED][1]
    if first == thrift.DICTIONARY_PAGE:
        thrift.put(chunk, thrift.DATA_PAGE, chunk[thrift.DATA_PAGE][1] + moved)
    thrift.put(chunk, first, at)
    thrift.put(chunk, thrift.COMPRESSED, len(pages))
    return thrift.with_footer(data[:at] + pages + data[at:], thrift.write(metadata))


BREAKS = [
    flip,
    flip_in_footer,
    insert,
    delete,
    overwrite,
    cut,
    forge_footer,
    forge_footer,
    forge_page,
    forge_page,
]


def broken(legal: list[Upload], number: int) -> dict[str, bytes]:
    """The broken upload of this number, always the same."""
    chance = random.Random(SEED + number)
    parts = dict(chance.choice(legal).parts)
    name = chance.choice(["file", "file", *parts])
    if chance.random() < 0.1:
        # The beginning of one file and the end of another, whose offsets then point anywhere.
        other = chance.choice(list(chance.choice(legal).parts.values()))
        parts[name] = (
            parts[name][: chance.randrange(len(parts[name]))]
            + other[chance.randrange(len(other)) :]
        )
    else:
        parts[name] = chance.choice(BREAKS)(parts[name], chance)
    return parts


def test_broken_uploads_are_refused_or_scored_in_flat_memory(world, tmp_path):
    legal = made(60)
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    with RunningService(tmp_path / "log", MODEL_URI=world.models) as service:

        def send(numbers: range) -> None:
            with httpx.Client(base_url=service.url, timeout=60, verify=False) as client:
                for number in numbers:
                    parts = broken(legal, number)
                    answer = client.post(
                        "/predict", files={name: (name, data) for name, data in parts.items()}
                    )
                    assert answer.status_code in (200, 422), (
                        f"seed {SEED}, upload {number}: {answer.status_code} {answer.text}"
                    )
                    form = PredictOut if answer.status_code == 200 else ErrorBody
                    form.model_validate_json(answer.content)
                    with lock:
                        statuses[answer.status_code] += 1

        def send_all(start: int, end: int) -> None:
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(send, [range(start + i, end, CLIENTS) for i in range(CLIENTS)]))

        send_all(0, WARM)
        before = service.memory()
        send_all(WARM, BODIES)
        after = service.memory()
        sizes = f"{before / 2**20:.0f} MiB and then {after / 2**20:.0f} MiB"
        print(f"seed {SEED}: {dict(statuses)}, {sizes}")  # noqa: T201
        assert statuses.total() == BODIES
        assert min(statuses.values()) > BODIES // 50, (
            "either all or none are refused: nothing is tested"
        )
        assert after < before * 1.15 + 30 * 2**20
        assert service.process.poll() is None
        for upload in legal[:10]:
            check_scored(service.predict(**upload.parts), upload.rows)
    assert "Traceback" not in (tmp_path / "log").read_text()
