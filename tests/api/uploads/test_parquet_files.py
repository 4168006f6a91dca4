"""Which file of an upload is taken for what."""

import pytest

from tests.service import parquet

NEW = 10**9


def test_files_in_each_others_place_are_taken_by_their_columns_and_the_answer_says_so(
    service, world
):
    behaviors, history = parquet(world.behaviors(20)), parquet(world.history())
    articles = parquet({"article_id": [NEW], "title": ["a"]})
    expected = service.predict(behaviors, history)
    assert "taken" not in expected.json()
    assert "X-Taken" not in expected.headers
    for parts in (
        {"file": history, "history": behaviors},
        {"file": articles, "history": behaviors, "articles": history},
        {"file": history, "articles": behaviors},
    ):
        kinds = {behaviors: "file", history: "history", articles: "articles"}
        taken = {name: kinds[data] for name, data in parts.items() if kinds[data] != name}
        answer = service.predict(**parts)
        assert answer.json()["taken"] == taken
        assert answer.json()["rows"] == expected.json()["rows"]
        whole = service.predict(**parts, format="parquet")
        assert whole.headers["X-Taken"] == ", ".join(
            f"{name}={kind}" for name, kind in taken.items()
        )


@pytest.mark.parametrize(
    ("parts", "where", "rule", "received", "todo"),
    [
        (
            {"file": "history"},
            "file",
            "a behaviours file",
            "a history file",
            "Send it as `history`, and a behaviours",
        ),
        (
            {"file": "articles"},
            "file",
            "a behaviours file",
            "an articles file",
            "Send it as `articles`",
        ),
        (
            {"file": "history", "history": "history"},
            "file",
            "a behaviours file",
            "a history file",
            "behaviours file",
        ),
        (
            {"file": "file", "history": "file"},
            "history",
            "a history file",
            "a behaviours file",
            "Send a history file",
        ),
        (
            {"file": "file", "articles": "file"},
            "articles",
            "an articles file",
            "a behaviours file",
            "leave it out",
        ),
    ],
)
def test_a_file_that_can_be_nothing_else_is_called_what_it_is(
    service, world, parts, where, rule, received, todo
):
    files = {
        "file": parquet(world.behaviors(20)),
        "history": parquet(world.history()),
        "articles": parquet({"article_id": [NEW], "title": ["a"]}),
    }
    answer = service.predict(
        **{"file": None, **{name: files[kind] for name, kind in parts.items()}}
    )
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["where"] == where
    for text, part in ((rule, "rule"), (received, "received"), (todo, "todo")):
        assert text in error[part]


@pytest.mark.parametrize(
    ("data", "received", "todo"),
    [
        (
            b"1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0\n" * 9,
            "look like TSV",
            "jobs.prepare --source mind",
        ),
        (("brugerå,artikelø\n" * 9).encode(), "look like CSV", "jobs.prepare --source mind"),
        (b"PK\3\4" + bytes(90), "look like a zip or Excel file", "Unpack it"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_seems_to_be(service, data, received, todo):
    error = service.predict(data).json()["error"]
    assert error["rule"] == "A file must be whole Parquet with readable values."
    assert received in error["received"]
    assert todo in error["todo"]
