import json
import random
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest

from nrms.errors import ArtifactError, ConfigError, SchemaError
from nrms.features import tokenizer as tokenizer_module
from nrms.features.tokenizer import PAD, UNK, Tokenizer

TITLES = [
    "Københavns ærlige ÆBLE-øl til 3,5 kr.",
    "Øl & æbler: Ærlige ord om ål!",
    "Trump\u2019s new phone \u2013 is it 'new'?",
    "The new iPhone 15 is here",
    "",
    "  — … 🍏 ",
]


def words_of(title):
    """The definition: runs of Unicode letters and digits of the composed, lower-cased title."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", title).lower())


def test_words_are_lower_cased_unicode_words_by_falling_count_then_code_point():
    counts = Counter(word for title in TITLES for word in words_of(title))
    expected = sorted(
        (word for word in counts if counts[word] >= 2), key=lambda word: (-counts[word], word)
    )
    tokenizer = Tokenizer.train(TITLES, min_count=2)
    assert (
        tokenizer.words
        == ["[PAD]", "[UNK]", *expected]
        == ["[PAD]", "[UNK]", "new", "is", "ærlige", "øl"]
    )
    assert len(tokenizer) == 6
    assert Tokenizer.train(TITLES, min_count=1).words[2:] == sorted(
        counts, key=lambda word: (-counts[word], word)
    )


def test_the_order_of_titles_does_not_matter():
    titles = TITLES * 3
    expected = Tokenizer.train(titles, min_count=1).words
    for seed in range(3):
        random.Random(seed).shuffle(titles)
        assert Tokenizer.train(iter(titles), min_count=1).words == expected


@pytest.mark.parametrize("title_size", [1, 3, 30])
def test_encode_equals_looking_each_word_up(title_size, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_CHUNK", 4)
    tokenizer = Tokenizer.train(TITLES, min_count=2)
    titles = [*TITLES, "is is is is is is is", "Is NEW is unseen", "æ\u0301", "ÅL", "A\u030aL"]
    expected = np.full((len(titles), title_size), PAD)
    for row, title in zip(expected, titles, strict=True):
        ids = [
            tokenizer.words.index(word) if word in tokenizer.words else UNK
            for word in words_of(title)
        ]
        row[: len(ids)] = ids[:title_size]
    encoded = tokenizer.encode(titles, title_size)
    assert encoded.dtype == np.int32
    assert encoded.tolist() == expected.tolist()


def test_composed_and_decomposed_letters_are_one_word():
    tokenizer = Tokenizer.train(["ål"], min_count=1)
    assert tokenizer.encode(["a\u030al", "A\u030aL", "Ål"], 1).tolist() == [[2], [2], [2]]


def test_titles_that_spell_the_special_words_are_plain_words():
    tokenizer = Tokenizer.train(["[PAD] [UNK]"], min_count=1)
    assert tokenizer.words == ["[PAD]", "[UNK]", "pad", "unk"]
    assert tokenizer.encode(["[UNK] [PAD]", "[pad]"], 2).tolist() == [[3, 2], [2, PAD]]


def test_no_titles_encode_to_no_rows():
    assert Tokenizer.train(["a"], min_count=1).encode([], 7).shape == (0, 7)


def test_saved_and_loaded_it_encodes_the_same_and_writes_the_same_bytes(tmp_path):
    tokenizer = Tokenizer.train(TITLES, min_count=1)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.words == tokenizer.words
    assert loaded.encode(TITLES, 9).tolist() == tokenizer.encode(TITLES, 9).tolist()
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_vocabulary_without_words_is_refused():
    with pytest.raises(ConfigError, match=r"`min_count` = 3 and no such word"):
        Tokenizer.train(["a a", "b"], min_count=3)


def refused(path):
    with pytest.raises(ArtifactError) as error:
        Tokenizer.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_or_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "tokenizer.json"
    refused(path)
    Tokenizer.train(TITLES, min_count=1).save(path)
    whole = path.read_bytes()
    for content in (b"", b"{}", b"[]", b"\xff\xfe", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        refused(path)


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (lambda model: model["vocab"].update({"[PAD]": 1, "[UNK]": 0}), "first words"),
        (lambda model: model["vocab"].pop("[PAD]"), "first words"),
        (lambda model: model["vocab"].update(øl=99), "gaps"),
        (lambda model: model["vocab"].update(øl=2), "gaps"),
        (lambda model: model.update(unk_token="øl"), "WordLevel model"),
        (lambda model: model.update(type="BPE", merges=[]), "BPE model"),
    ],
)
def test_a_tokenizer_of_another_make_is_refused(change, received, tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(TITLES, min_count=1).save(path)
    content = json.loads(path.read_text("utf-8"))
    change(content["model"])
    path.write_text(json.dumps(content), "utf-8")
    assert received in refused(path)


@pytest.mark.parametrize(
    "titles", [[""] * 1_200, ["", " — ", "🍏"], []], ids=["null or empty", "no letter", "none"]
)
@pytest.mark.parametrize("min_count", [1, 3])
def test_titles_without_a_word_are_blamed_and_not_the_flag(titles, min_count):
    with pytest.raises(SchemaError) as caught:
        Tokenizer.train(iter(titles), min_count)
    assert str(caught.value).startswith(
        f"Column `title` must hold words. Received: {len(titles):,} titles, all of them null, "
        f"empty or without a letter"
    )
    assert "min_word_count" not in str(caught.value)


def test_words_are_counted_whole_and_unknown_ones_among_them():
    tokenizer = Tokenizer.train(TITLES, min_count=2)
    titles = ["is NEW is unseen", "", "ÆRLIGE ord"]
    words = [word for title in titles for word in words_of(title)]
    assert (
        tokenizer.count(titles)
        == (len(words), sum(word not in tokenizer.words for word in words))
        == (6, 2)
    )
    assert tokenizer.count([]) == (0, 0)


@pytest.mark.parametrize("min_count", [1, 2, 3])
def test_the_share_of_unseen_words_is_that_of_a_vocabulary_learned_without_each_title(min_count):
    titles = ["a b c", "a b d", "a e", "a b", "a f"]
    tokenizer = Tokenizer.train(titles, min_count)
    unseen = total = 0
    for i, title in enumerate(titles):
        others = Counter(word for other in titles[:i] + titles[i + 1 :] for word in other.split())
        unseen += sum(others[word] < min_count for word in title.split())
        total += len(title.split())
    assert tokenizer.unseen_share(titles, min_count) == pytest.approx(unseen / total)
