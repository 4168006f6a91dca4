"""Uploads made to break the service: each is refused in four parts, and the next honest one is
answered as ever.
"""

import base64
import json
import re
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from tests import thrift
from tests.service import RunningService, parquet

pytestmark = pytest.mark.system

SECRET = "s3cr3t-reader"
NAN = float("nan")
ROWS = {
    "impression_id": [1, 2],
    "user_id": [SECRET, "b"],
    "article_ids_inview": [[10, 20], [30]],
    "article_id_fixed": [[10], [20, 30]],
}
PLAIN = {name: values for name, values in ROWS.items() if name != "article_id_fixed"}
HISTORY = {"user_id": [SECRET], "article_id_fixed": [[10, 20]]}
ARTICLES = {"article_id": [10**9, 10**9 + 1], "title": ["one", "two"]}
GOOD = parquet(ROWS)
ONE = parquet({name: values[:1] for name, values in ROWS.items()})
BARE = parquet(ROWS, use_dictionary=False)
LIST = pa.list_(pa.int64())
# Whole columns without levels, so that a page is its values.
FLAT = parquet(
    pa.table(
        [pa.array([1, 2]), pa.array([7, 8]), *(pa.array(ROWS[name]) for name in list(ROWS)[2:])],
        pa.schema(
            [pa.field("impression_id", pa.int64(), False), pa.field("user_id", pa.int64(), False)]
            + [pa.field(name, LIST) for name in list(ROWS)[2:]]
        ),
    )
)


class Case(NamedTuple):
    """A hostile upload: what makes its parts, the status, and some words of the rule."""

    parts: Callable[[], dict[str, bytes]]
    rule: str = ""
    status: int = 422


def file(make: Callable[[], bytes] | bytes, rule: str = "whole Parquet", status: int = 422) -> Case:
    return Case(lambda: {"file": make() if callable(make) else make}, rule, status)


def rows(rule: str, status: int = 422, **columns: object) -> Case:
    """The good rows with other columns; None leaves one out."""
    table = {name: values for name, values in {**ROWS, **columns}.items() if values is not None}
    return file(lambda: parquet(table), rule, status)


def with_history(rule: str, status: int = 422, **columns: object) -> Case:
    table = {name: values for name, values in {**HISTORY, **columns}.items() if values is not None}
    return Case(lambda: {"file": parquet(PLAIN), "history": parquet(table)}, rule, status)


def with_articles(rule: str, status: int = 422, **columns: object) -> Case:
    table = {name: values for name, values in {**ARTICLES, **columns}.items() if values is not None}
    return Case(lambda: {"file": GOOD, "articles": parquet(table)}, rule, status)


def encrypted(plaintext_footer: bool) -> bytes:
    class Kms(pe.KmsClient):
        def wrap_key(self, key, master):
            return base64.b64encode(key)

        def unwrap_key(self, key, master):
            return base64.b64decode(key)

    options = pe.EncryptionConfiguration(
        "k",
        column_keys={"k": ["impression_id"]},
        plaintext_footer=plaintext_footer,
        double_wrapping=False,
    )
    properties = pe.CryptoFactory(lambda _: Kms()).file_encryption_properties(
        pe.KmsConnectionConfig(), options
    )
    sink = pa.BufferOutputStream()
    table = pa.table(ROWS)
    with pq.ParquetWriter(sink, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def nested(depth: int) -> bytes:
    """`article_ids_inview` as a list of lists of lists, which no writer would make that deep."""

    def change(metadata: thrift.Struct) -> None:
        (kind, elements) = metadata[thrift.SCHEMA][1]
        at = next(i for i, element in enumerate(elements) if element[4][1] == b"article_ids_inview")
        levels = [dict(elements[at]), dict(elements[at + 1])] * depth
        thrift.put(metadata, thrift.SCHEMA, (kind, elements[:at] + levels + elements[at:]))

    return thrift.forged(GOOD, change)


def children(count: int) -> Callable[[thrift.Struct], None]:
    def change(metadata: thrift.Struct) -> None:
        metadata[thrift.SCHEMA][1][1][0][5] = thrift.I32, count

    return change


def forged_chunk(field: int, value: int, column: int = 0) -> bytes:
    return thrift.forged(
        BARE, lambda metadata: thrift.put(thrift.chunk(metadata, column), field, value)
    )


def bomb(codec: str, size: int, says: int | None = None) -> bytes:
    """A page of zeros, far larger than its file."""
    body = thrift.zeros(size, codec)
    return thrift.with_pages(
        FLAT, 0, thrift.page(body, size // 8, size=says or size), size // 8, codec=codec
    )


def repeated(count: int) -> bytes:
    """A column of so many equal ids, in a dozen bytes."""
    page = thrift.page(b"\1" + thrift.run(0, count), count, thrift.RLE_DICTIONARY)
    data = thrift.with_pages(FLAT, 0, page, count, thrift.page(bytes(8), 1, dictionary=True))
    return thrift.forged(data, thrift.all_rows(count))


def renamed(name: bytes) -> bytes:
    """The good file with another name for `user_id`, even one that no writer accepts."""

    def change(metadata: thrift.Struct) -> None:
        for element in metadata[thrift.SCHEMA][1][1]:
            if element[4][1] == b"user_id":
                thrift.put(element, 4, name)
        metadata.pop(thrift.KEY_VALUE, None)  # in which Arrow keeps its own idea of the schema

    return thrift.forged(GOOD, change)


def key_values(count: int, size: int) -> bytes:
    table = pa.table(ROWS).replace_schema_metadata({f"k{i}": "v" * size for i in range(count)})
    return parquet(table)


def twice(name: str) -> bytes:
    table = pa.table(ROWS)
    return parquet(table.append_column(name, table[name]))


ARRAYS = {
    "floats": [1.5, 2.5],
    "nan": [NAN, 1.0],
    "booleans": [True, False],
    "bytes": [b"x", b"y"],
    "decimals": pa.array([1, 2], pa.decimal128(9)),
    "structs": [{"a": 1}, {"a": 2}],
    "maps": pa.array([[(1, 2)], []], pa.map_(pa.int64(), pa.int64())),
    "dates": pa.array([1, 2], pa.date32()),
}
WRONG = {
    "impression_id": {**ARRAYS, "lists": [[1], [2]]},
    "user_id": {**ARRAYS, "lists": [[1], [2]]},
    **{
        name: {
            **ARRAYS,
            "integers": [1, 2],
            "lists of floats": [[1.5], [NAN]],
            "lists of lists": [[[1]], [[2]]],
            "lists of structs": [[{"a": 1}], []],
            "lists of booleans": [[True], []],
        }
        for name in ("article_ids_inview", "article_ids_clicked", "article_id_fixed")
    },
    "impression_time": {"integers": [1, 2], "text": ["2023", "2024"], "dates": ARRAYS["dates"]},
    "impression_time_fixed": {"lists of integers": [[1], [2, 3]], "text": ["a", "b"]},
    "device_type": {"text": ["a", "b"], "floats": [1.0, 2.0]},
}

UPLOADS: dict[str, Case] = {
    # Not Parquet.
    "an empty file": file(b""),
    "text": file(b"impression_id,user_id\n1,2\n" * 100),
    "one byte": file(b"P"),
    "only the magic": file(b"PAR1"),
    "the magic twice": file(b"PAR1PAR1"),
    "a PNG": file(b"\x89PNG\r\n\x1a\n" + bytes(500)),
    "gzip of a good file": file(lambda: pa.compress(GOOD, "gzip", asbytes=True)),
    "an Arrow file": file(b"ARROW1\0\0" + GOOD[8:-6] + b"ARROW1"),
    "zeros": file(bytes(100_000)),
    # Cut, altered, encrypted.
    **{
        f"cut after {part:.0%}": file(GOOD[: int(len(GOOD) * part)])
        for part in (0.01, 0.3, 0.6, 0.9, 0.99)
    },
    "cut by its last byte": file(GOOD[:-1]),
    "without its first half": file(GOOD[len(GOOD) // 2 :]),
    "another magic at the end": file(GOOD[:-4] + b"PAR2"),
    "a footer said to be encrypted": file(GOOD[:-4] + b"PARE", "must not be encrypted"),
    "an encrypted footer": file(lambda: encrypted(False), "must not be encrypted"),
    "encrypted columns": file(lambda: encrypted(True), "must not be encrypted"),
    "a footer longer than the file": file(GOOD[:-8] + b"\xff\xff\xff\x7fPAR1"),
    "a footer of negative length": file(GOOD[:-8] + b"\xff\xff\xff\xffPAR1"),
    "a footer of no length": file(GOOD[:-8] + b"\0\0\0\0PAR1"),
    "a footer that begins with the file": file(
        GOOD[:-8] + (len(GOOD) - 8).to_bytes(4, "little") + b"PAR1"
    ),
    "a footer of noise": file(lambda: thrift.with_footer(GOOD, bytes(range(256)) * 40)),
    "a footer of nested Thrift lists": file(lambda: thrift.with_footer(GOOD, b"\x19" * 100_000)),
    # Columns.
    **{
        f"no {name}": rows(rf"Column `{name}`", **{name: None})
        for name in ROWS
        if name != "article_id_fixed"
    },
    "no history at all": rows("Histories must come in one way", article_id_fixed=None),
    "two histories": Case(
        lambda: {"file": GOOD, "history": parquet(HISTORY)}, "Histories must come in one way"
    ),
    "a history without its list": with_history("Column `article_id_fixed`", article_id_fixed=None),
    "a history without users": with_history("Column `user_id`", user_id=None),
    "articles without titles": with_articles("Column `title`", title=None),
    "articles without ids": with_articles("Column `article_id`", article_id=None),
    "articles whose titles are numbers": with_articles("Column `title`", title=[1, 2]),
    **{
        f"{name} of {kind}": rows(f"Column `{name}`", **{name: v})
        for name in WRONG
        for kind, v in WRONG[name].items()
    },
    **{
        f"{name} twice": file(lambda name=name: twice(name), f"Column `{name}` must be there once")
        for name in ROWS
    },
    "no columns": file(lambda: parquet(pa.table({})), "is required"),
    "100,000 columns": file(
        lambda: parquet(pa.table([pa.array([1])] * 100_000, [f"c{i}" for i in range(100_000)])),
        "is required",
    ),
    "a column name of 1 MB": file(lambda: renamed(b"n" * 10**6), "Column `user_id`"),
    "a column name of 1 MB of words": file(lambda: renamed(b"a-b " * 250_000), "Column `user_id`"),
    "a column name of control characters": file(
        lambda: renamed(b"\n\r\0\x1b[31m\x7f\xe2\x80\xa8x"), "Column `user_id`"
    ),
    "a column name that is not UTF-8": file(lambda: renamed(b"\xff\xfe"), ""),
    "metadata of 20 MB": file(lambda: key_values(1, 20 * 2**20), "", 200),
    "100,000 pairs of metadata": file(lambda: key_values(100_000, 1), "", 200),
    # Values.
    "null impression_id": rows("`impression_id` must not be null", impression_id=[1, None]),
    "null user_id": rows("`user_id` must not be null", user_id=[None, "b"]),
    "user_id of nulls only": rows("`user_id` must not be null", user_id=pa.nulls(2)),
    "a null candidate": rows("must not hold nulls", article_ids_inview=[[10, None], [20]]),
    "text that is not UTF-8": rows(
        "readable values", user_id=pa.array([b"\xff\xfe", b"b"]).view(pa.string())
    ),
    "ids beyond int64": rows(
        "integers below 2^63", article_ids_inview=pa.array([[2**64 - 1], []], pa.list_(pa.uint64()))
    ),
    "a device beyond int32": rows("", 200, device_type=[2**40, 1]),
    "a time beyond microseconds": rows(
        "fit in microseconds", impression_time=pa.array([2**60, 1], pa.timestamp("ms"))
    ),
    "an id of 1 MB": rows("may have 200 characters", user_id=["u" * 10**6, "b"]),
    "articles of another type": rows(
        "article ids of the same type", article_ids_inview=[["a"], ["b"]]
    ),
    "clicks of another type": rows(
        "article ids of the same type", article_ids_clicked=[["a"], ["b"]]
    ),
    "histories of another type": rows(
        "article ids of the same type", article_id_fixed=[["a"], ["b"]]
    ),
    "users of another type than the history's": with_history(
        "user ids of the same type", user_id=[7]
    ),
    "a user twice": with_history(
        "one history row", user_id=[SECRET] * 2, article_id_fixed=[[1], [2]]
    ),
    "a null user in the history": with_history(
        "must not be null", user_id=pa.array([None], pa.string())
    ),
    "times of another number": with_history(
        "one time for each entry",
        impression_time_fixed=pa.array([[1]], pa.list_(pa.timestamp("us"))),
    ),
    "an article twice": with_articles("must be unique", article_id=[5, 5]),
    "a null article": with_articles("must not be null", article_id=[5, None]),
    "articles of text": with_articles("same type as the catalogue", article_id=["a", "b"]),
    "no articles": with_articles(
        "at least one article", article_id=pa.array([], pa.int64()), title=pa.array([], "string")
    ),
    "a title of 10 MB": with_articles("may have 2,000 characters", title=["a " * 5_000_000, "b"]),
    "articles that are not Parquet": Case(
        lambda: {"file": GOOD, "articles": b"x" * 1000}, "whole Parquet"
    ),
    "a history that is not Parquet": Case(
        lambda: {"file": parquet(PLAIN), "history": GOOD[:-9]}, "whole Parquet"
    ),
    # More than it seems.
    "too many rows": rows(
        "may hold 500,000 impressions", **{n: pa.array([v[0]] * 500_001) for n, v in ROWS.items()}
    ),
    "too many articles": with_articles(
        "may hold 100,000 articles",
        article_id=pa.array(range(100_001)),
        title=pa.array(["t"] * 100_001),
    ),
    "5 million candidates in a row": file(
        lambda: thrift.long_list(ONE, 2, 5_000_000, 10), "10,000 candidates"
    ),
    "a thousand million candidates in a row": file(
        lambda: thrift.long_list(ONE, 2, 10**9, 10), "bytes when it is read"
    ),
    "20 million clicks of a reader": file(
        lambda: thrift.long_list(ONE, 3, 20_000_000, 10), "history entries"
    ),
    "a thousand million clicks of a reader": file(
        lambda: thrift.long_list(ONE, 3, 10**9, 10), "bytes when it is read"
    ),
    "a thousand million equal ids": file(lambda: repeated(10**9), "may hold 500,000 impressions"),
    "half a million ids beside two lists": file(lambda: repeated(400_000)),
    "zstd of 1.5 GiB of zeros": file(lambda: bomb("zstd", 3 * 2**29), "bytes when it is read"),
    "zstd of more zeros than it says": file(lambda: bomb("zstd", 2**28, says=16)),
    "snappy of more zeros than it says": file(lambda: bomb("snappy", 2**26, says=16)),
    "gzip of more zeros than it says": file(lambda: bomb("gzip", 2**26, says=16)),
    "lists nested 200 deep": file(lambda: nested(200), ""),
    "lists nested 100,000 deep": file(lambda: nested(100_000), ""),
    # Forged counts.
    **{
        f"{n} rows": file(lambda n=n: thrift.forged(GOOD, thrift.all_rows(n)), "")
        for n in (-1, 10**6, 2**31, 2**62)
    },
    **{
        f"{n} children of the schema": file(lambda n=n: thrift.forged(GOOD, children(n)))
        for n in (-1, 2, 10**6, 2**31 - 1)
    },
    **{
        f"{name} {value}": file(lambda field=field, value=value: forged_chunk(field, value), "")
        for name, field in (("a page at", thrift.DATA_PAGE), ("a chunk of", thrift.COMPRESSED))
        for value in (-1, 10**4, 2**31, 2**62)
    },
    "an unknown codec": file(lambda: forged_chunk(thrift.CODEC, 99), "encodings and codecs"),
    "a page of another codec": file(lambda: forged_chunk(thrift.CODEC, thrift.CODECS["zstd"])),
    "a page of 2 GiB in 8 bytes": file(
        lambda: thrift.with_pages(
            FLAT, 0, thrift.page(bytes(8), 2, size=2**31 - 1), 2, codec="snappy"
        ),
        "",
    ),
    "a page of negative size": file(
        lambda: thrift.with_pages(FLAT, 0, thrift.page(bytes(16), 2, size=-5), 2)
    ),
    "a page of too few values": file(
        lambda: thrift.with_pages(FLAT, 0, thrift.page(bytes(8), 1), 1)
    ),
    "a page of 2**31 values in 16 bytes": file(
        lambda: thrift.with_pages(FLAT, 0, thrift.page(bytes(16), 2**31 - 1), 2), "", 200
    ),
    "a dictionary of 2**31 values in 8 bytes": file(
        lambda: thrift.with_pages(
            FLAT,
            0,
            thrift.page(b"\1" + thrift.run(0, 2), 2, thrift.RLE_DICTIONARY),
            2,
            thrift.page(bytes(8), 2**31 - 1, dictionary=True),
        ),
        "bytes when it is read",
    ),
    "an index beyond its dictionary": file(
        lambda: thrift.with_pages(
            FLAT,
            0,
            thrift.page(b"\1" + thrift.run(1, 2), 2, thrift.RLE_DICTIONARY),
            2,
            thrift.page(bytes(8), 1, dictionary=True),
        )
    ),
    # Unusual and legal.
    "dictionaries": rows("", 200, user_id=pa.array([SECRET, "b"]).dictionary_encode()),
    "lists of fixed size": rows(
        "", 200, article_ids_inview=pa.array([[10, 20], [30, 40]], pa.list_(pa.int64(), 2))
    ),
    "large lists": rows(
        "", 200, article_ids_inview=pa.array([[10, 20], [30]], pa.large_list(pa.int16()))
    ),
    "views of strings": rows("", 200, user_id=pa.array([SECRET, "b"], pa.string_view())),
    "lists of nulls": rows("", 200, article_ids_inview=[[], []], article_ids_clicked=pa.nulls(2)),
    "no rows": rows(
        "", 200, **{name: pa.array(values).slice(0, 0) for name, values in ROWS.items()}
    ),
    "columns of no use": rows("", 200, other=[NAN, None], **{"an other": [{"a": [[]]}, None]}),
    "a candidate twice": rows("", 200, article_ids_inview=[[10, 10], [20]]),
    "an impression twice": rows("", 200, impression_id=[1, 1]),
    "a small zstd file": file(
        lambda: parquet(ROWS, compression="zstd", data_page_version="2.0"), "", 200
    ),
}


def check_error(answer: httpx.Response, status: int, rule: str = "") -> None:
    assert answer.status_code == status, answer.text[:1000]
    error = answer.json()["error"]
    assert set(error) == {"rule", "received", "where", "todo"}
    assert rule in error["rule"]
    for text in error.values():
        assert text.strip()
        assert text.isprintable()
        assert len(text) <= 1_000
        assert tempfile.gettempdir() not in text
        assert not re.search(r"nrms-\d", text)
        assert "behaviors" not in text
    return error


def check_well(service: RunningService) -> None:
    answer = service.predict(GOOD)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["rows"]
    assert (first["user_id"], second["article_ids_inview"]) == (SECRET, [30])
    assert (len(first["scores"]), sorted(first["ranks"]), second["ranks"]) == (2, [1, 2], [1])


@pytest.mark.parametrize("name", UPLOADS)
def test_a_hostile_upload_is_answered_in_words_and_the_next_as_ever(service, name):
    case = UPLOADS[name]
    answer = service.predict(**case.parts())
    if case.status == 200:
        assert answer.status_code == 200, answer.text
    else:
        assert check_error(answer, case.status, case.rule)["where"] in (
            "file",
            "history",
            "articles",
        )
    check_well(service)


def form(*parts: bytes, boundary: bytes = b"x") -> bytes:
    return (
        b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
        + b"--"
        + boundary
        + b"--\r\n"
    )


def field(name: bytes = b'name="file"; filename="a"', content: bytes = GOOD) -> bytes:
    return b"Content-Disposition: form-data; " + name + b"\r\n\r\n" + content


def row(**changes: object) -> bytes:
    impression = {
        "impression_id": 1,
        "user_id": SECRET,
        "article_ids_inview": [10],
        "article_id_fixed": [10],
    }
    return json.dumps({"impressions": [{**impression, **changes}]}).encode()


FORM, JSON = "multipart/form-data; boundary=x", "application/json"
BODIES: dict[str, tuple[int, str, str, bytes]] = {
    "no file": (422, "/predict", FORM, form(field(b'name="other"; filename="a"'))),
    "a file without a name": (422, "/predict", FORM, form(field(b'name="file"', b"abc"))),
    "two files of which the last is bad": (
        422,
        "/predict",
        FORM,
        form(field(), field(content=b"no")),
    ),
    "no form": (422, "/predict", FORM, b""),
    "no boundary": (400, "/predict", "multipart/form-data", form(field())),
    "an empty boundary": (400, "/predict", "multipart/form-data; boundary=", form(field())),
    "another boundary": (400, "/predict", "multipart/form-data; boundary=y", form(field())),
    "a boundary of 10 kB": (
        400,
        "/predict",
        f"multipart/form-data; boundary={'y' * 10_000}",
        form(field()),
    ),
    "a form cut in its header": (422, "/predict", FORM, form(field())[:30]),
    "a header that cannot be read": (
        400,
        "/predict",
        FORM,
        form(b"Content-Disposition form-data\r\n\r\nabc"),
    ),
    "a header of 1 MB": (400, "/predict", FORM, form(field(b'name="' + b"a" * 10**6 + b'"'))),
    "a file name of 1 MB": (
        400,
        "/predict",
        FORM,
        form(field(b'name="file"; filename="' + b"n" * 10**6 + b'"')),
    ),
    "a field of 3 MB": (400, "/predict", FORM, form(field(b'name="file"', b"a" * 3_000_000))),
    "2,000 fields": (400, "/predict", FORM, form(*[field(b'name="f"', b"")] * 2_000)),
    "2,000 files": (400, "/predict", FORM, form(*[field(content=b"")] * 2_000)),
    "a form as text": (422, "/predict", "text/plain", form(field())),
    "a form as JSON": (422, "/predict", JSON, form(field())),
    "a form as another form": (422, "/predict", "application/x-www-form-urlencoded", b"file=abc"),
    "Parquet without a form": (422, "/predict", "application/vnd.apache.parquet", GOOD),
    "no JSON": (422, "/predict/json", JSON, b""),
    "JSON that is cut short": (422, "/predict/json", JSON, b"{"),
    "JSON and more": (422, "/predict/json", JSON, row() + b"x"),
    "JSON not in UTF-8": (400, "/predict/json", JSON, b'{"impressions": "\xff"}'),
    "JSON as text": (422, "/predict/json", "text/plain", row()),
    "JSON as nothing readable": (422, "/predict/json", "\x7f;=;", row()),
    "a form instead of JSON": (422, "/predict/json", FORM, form(field())),
    "null": (422, "/predict/json", JSON, b"null"),
    "a list": (422, "/predict/json", JSON, b"[]"),
    "no impressions": (422, "/predict/json", JSON, b'{"impressions": []}'),
    "1,001 impressions": (
        422,
        "/predict/json",
        JSON,
        json.dumps({"impressions": [{}] * 1_001}).encode(),
    ),
    "a million open brackets": (400, "/predict/json", JSON, b"[" * 10**6),
    "a million brackets": (400, "/predict/json", JSON, b"[" * 10**6 + b"]" * 10**6),
    "a million braces": (400, "/predict/json", JSON, b'{"a":' * 500_000 + b"1" + b"}" * 500_000),
    "a number of 5,000 digits": (
        400,
        "/predict/json",
        JSON,
        b'{"impressions": ' + b"9" * 5_000 + b"}",
    ),
    "a million empty objects": (
        422,
        "/predict/json",
        JSON,
        b'{"impressions": [' + b"{}," * 10**6 + b"{}]}",
    ),
    "more JSON than 4 MiB": (413, "/predict/json", JSON, row() + b" " * 2**22),
    "NaN": (422, "/predict/json", JSON, row(impression_id=NAN)),
    "Infinity": (422, "/predict/json", JSON, row(article_ids_inview=[float("inf")])),
    "an id beyond int64": (422, "/predict/json", JSON, row(impression_id=2**63)),
    "an id of 201 characters": (422, "/predict/json", JSON, row(user_id="u" * 201)),
    "an id that is true": (422, "/predict/json", JSON, row(impression_id=True)),
    "an id that is 1.0": (422, "/predict/json", JSON, row(impression_id=1.0)),
    "an id that is null": (422, "/predict/json", JSON, row(impression_id=None)),
    "half a character": (422, "/predict/json", JSON, row(user_id="\ud800")),
    "half a character as a key": (422, "/predict/json", JSON, row(**{"\ud800\n": 1})),
    "a key of 1 MB": (422, "/predict/json", JSON, row(**{"k\n" * 500_000: 1})),
    "candidates that are an object": (422, "/predict/json", JSON, row(article_ids_inview={"a": 1})),
    "candidates in lists": (422, "/predict/json", JSON, row(article_ids_inview=[[10]])),
    "10,001 candidates": (422, "/predict/json", JSON, row(article_ids_inview=[1] * 10_001)),
    "ids of two types": (422, "/predict/json", JSON, row(article_ids_inview=[1, "a"])),
    "ids of another type than the catalogue's": (
        422,
        "/predict/json",
        JSON,
        row(article_ids_inview=["a"]),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_answered_in_words_and_the_next_as_ever(service, name):
    status, path, content_type, body = BODIES[name]
    answer = service.client.post(path, content=body, headers={"Content-Type": content_type})
    check_error(answer, status)
    assert SECRET not in answer.text or path.endswith("json")
    check_well(service)


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (404, "GET", "/nothing%0a%00%ff%1b"),
        (404, "POST", "/nothing"),
        (404, "GET", "/" + "a" * 20_000),
        (404, "GET", "/../../etc/passwd"),
        (405, "GET", "/predict"),
        (405, "DELETE", "/predict"),
        (405, "POST", "/info"),
        (405, "TRACE", "/livez"),
        (422, "POST", "/predict?max_rows=-1"),
        (422, "POST", "/predict?max_rows=" + "9" * 5_000),
        (422, "POST", "/predict?max_rows=NaN"),
        (422, "POST", "/predict?format=%00%ff"),
        (422, "POST", "/predict?titles=%F0%9F%98%80"),
        (422, "POST", "/predict?" + "x" * 5_000 + "=%00%ff"),
    ],
)
def test_a_hostile_address_is_answered_in_words(service, status, method, path):
    files = {"file": ("a", GOOD)} if path.startswith("/predict?") else None
    check_error(service.client.request(method, path, files=files), status)


def test_a_host_header_that_cannot_be_read_harms_nothing(service):
    answer = service.client.get("/nothing", headers={"Host": "["})
    check_error(answer, 404)
    assert (
        service.client.post(
            "/predict", files={"file": ("a", GOOD)}, headers={"Host": "[x"}
        ).status_code
        == 200
    )


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "x\0y",
        "n" * 3_000,
        "\r\n\x1b[31m",
        "con",
        "😀",
        "..",
        "history",
    ],
)
def test_file_names_are_never_used(service, name):
    parts = {
        part: (name, data)
        for part, data in (("file", parquet(PLAIN)), ("history", parquet(HISTORY)))
    }
    assert service.client.post("/predict", files=parts).status_code == 200
    error = check_error(service.client.post("/predict", files={"file": (name, GOOD[:-1])}), 422)
    assert name not in " ".join(error.values()) or name == "history"


def test_a_body_that_stops_short_harms_nothing(service):
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    for declared in (
        b"Content-Length: 100000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffff\r\n",
    ):
        with socket.create_connection(service.url.removeprefix("http://").split(":")) as connection:
            connection.sendall(head + declared + form(field())[:500])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1_000):
                pass
    check_well(service)


def test_the_largest_answer_holds_no_more_rows_than_it_can(service, world):
    table = {name: [values[0]] * 1_000 for name, values in ROWS.items()}
    table["article_ids_inview"] = [[world.article_ids[0]] * 1_000] * 1_000
    answer = service.predict(parquet(table), max_rows=10_000, titles=True).json()
    assert (len(answer["rows"]), answer["rows_total"], answer["truncated"]) == (200, 1_000, True)


def test_a_body_beyond_the_limit_is_413_with_the_limit(world, tmp_path):
    with RunningService(tmp_path / "log", MODEL_URI=world.models, MAX_BODY_BYTES=50_000) as service:
        whole = {"file": ("a", bytes(60_000))}
        declared = service.client.post("/predict", files=whole)

        def chunks():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(100):
                yield bytes(1_000)

        chunked = service.client.post("/predict", content=chunks(), headers={"Content-Type": FORM})
        for answer in (declared, chunked):
            error = check_error(answer, 413, "50,000 bytes")
            assert error["where"] == "body"
        check_well(service)


def test_nothing_of_an_upload_is_logged_or_kept(world, tmp_path):
    with RunningService(tmp_path / "log", MODEL_URI=world.models) as service:
        for name in (
            "an encrypted footer",
            "a thousand million candidates in a row",
            "lists nested 100,000 deep",
        ):
            service.client.post(
                "/predict", files={"file": (f"{SECRET}.parquet", UPLOADS[name].parts()["file"])}
            )
        service.client.post(
            "/predict/json", content=row(impression_id=NAN), headers={"Content-Type": JSON}
        )
        service.client.post("/predict/json", content=row(), headers={"Content-Type": JSON})
        check_well(service)
        (scratch,) = Path(tempfile.gettempdir()).glob(f"nrms-{service.process.pid}-*")
        assert [path.name for path in scratch.iterdir()] == ["cache"]
        assert SECRET.encode() not in b"".join(
            path.read_bytes() for path in scratch.rglob("*") if path.is_file()
        )
    assert not scratch.exists()
    log = (tmp_path / "log").read_text()
    assert SECRET not in log
    assert "Traceback" not in log
