import gzip

import numpy as np
import pytest

from nrms.errors import ConfigError, SchemaError
from nrms.features.word_vectors import read_word_vectors

WORDS = ["[PAD]", "[UNK]", "new", "øl", "trump", "phone", "ål"]
GLOVE = ["the 9 9", "new 1 2", "at name 7 7", "øl -3.5 4e-1", "phone 5 6"]
FASTTEXT = ["5 2", *(line + " " for line in GLOVE)]


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture(params=["glove.txt", "fasttext.vec", "glove.txt.gz", "fasttext.vec.gz"])
def vectors_file(request, tmp_path):
    lines = FASTTEXT if ".vec" in request.param else GLOVE
    path = write(tmp_path / request.param.removesuffix(".gz"), lines)
    if request.param.endswith(".gz"):
        path = tmp_path / request.param
        path.write_bytes(gzip.compress((tmp_path / request.param.removesuffix(".gz")).read_bytes()))
    return path


def test_words_get_their_vectors_pad_zeros_and_coverage_counts_real_words(vectors_file):
    matrix, coverage = read_word_vectors(vectors_file, WORDS, word_dim=2, seed=0)
    assert matrix.dtype == np.float32
    assert matrix.shape == (7, 2)
    np.testing.assert_array_equal(
        matrix[[0, 2, 3, 5]], np.float32([[0, 0], [1, 2], [-3.5, 0.4], [5, 6]])
    )
    assert coverage == 3 / 5


def test_an_exact_word_goes_before_a_lower_cased_one_and_the_first_before_later_ones(tmp_path):
    lines = [
        "TRUMP 1 1",
        "Trump 2 2",
        "trump 3 3",
        "trump 4 4",
        "TRUMP 5 5",
        "Phone 6 6",
        "PHONE 7 7",
        "A\u030aL 8 8",
    ]
    matrix, coverage = read_word_vectors(write(tmp_path / "v.txt", lines), WORDS, 2, 0)
    assert matrix[[4, 5, 6]].tolist() == [[3, 3], [6, 6], [8, 8]]
    assert coverage == 3 / 5


def test_words_with_spaces_match_nothing(tmp_path):
    lines = ["the 0 0", "new york 1 1", "phone 5 5 5", ". . . 2 2"]
    assert read_word_vectors(write(tmp_path / "v.txt", lines), WORDS, 2, 0)[1] == 0


def test_words_not_covered_are_drawn_from_the_seed_with_the_spread_of_those_found(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        f"w{i} " + " ".join(f"{x:.6f}" for x in 0.3 * rng.standard_normal(50)) for i in range(40)
    ]
    words = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(80))]
    path = write(tmp_path / "v.txt", lines)
    matrix, coverage = read_word_vectors(path, words, 50, seed=1)
    assert coverage == 0.5
    assert matrix[42:].std() == pytest.approx(0.3, rel=0.1)
    assert matrix[1].any()
    assert not matrix[0].any()
    assert read_word_vectors(path, words, 50, seed=1)[0].tolist() == matrix.tolist()
    other = read_word_vectors(path, words, 50, seed=2)[0]
    assert other[2:42].tolist() == matrix[2:42].tolist()
    assert (other[42:] != matrix[42:]).all()


def test_special_words_in_the_file_are_not_taken(tmp_path):
    path = write(tmp_path / "v.txt", ["[PAD] 1 1", "[UNK] 2 2"])
    matrix, coverage = read_word_vectors(path, WORDS, 2, 0)
    assert matrix[0].tolist() == [0, 0]
    assert matrix[1].tolist() != [2, 2]
    assert coverage == 0


@pytest.mark.parametrize(
    ("name", "lines", "line"),
    [
        ("v.txt", ["the 1 1", "new 1"], "line 2"),
        ("v.txt", ["the 1 1", "unwanted 1"], "line 2"),
        ("v.txt", ["the 1 1", ""], "line 2"),
        ("v.txt", ["the 1 1", "new 1 x"], "line 2"),
        ("v.txt", ["the 1 1", "new nan 1"], "line 2"),
        ("v.txt", ["the 1 1", "new 1e39 1"], "line 2"),
        ("v.vec", ["2 2", "the 1 1", "new 1 -inf"], "line 3"),
        ("v.vec", ["3 2", "the 1 1", "new 1 1"], "3 promised, 2 there"),
        ("v.vec", ["1 2", "the 1 1", "new 1 1"], "1 promised, 2 there"),
        ("v.txt", [], "no line"),
    ],
)
def test_damaged_files_are_refused_with_their_line(name, lines, line, tmp_path):
    path = write(tmp_path / name, lines)
    with pytest.raises(SchemaError, match=line) as error:
        read_word_vectors(path, WORDS, 2, 0)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "lines"), [("v.txt", GLOVE), ("v.vec", FASTTEXT)])
def test_vectors_of_another_size_are_refused(name, lines, tmp_path):
    path = write(tmp_path / name, lines)
    with pytest.raises(
        ConfigError, match=r"`word_dim` = 3, and vectors of 2 in .*Set `word_dim` to 2"
    ):
        read_word_vectors(path, WORDS, 3, 0)


@pytest.mark.parametrize(("name", "lines"), [("v.txt", GLOVE), ("v.vec", FASTTEXT)])
def test_a_byte_order_mark_is_no_part_of_the_first_word(name, lines, tmp_path):
    plain = read_word_vectors(write(tmp_path / name, lines), WORDS, 2, 0)
    marked = read_word_vectors(
        write(tmp_path / f"marked-{name}", ["\ufeff" + lines[0], *lines[1:]]), WORDS, 2, 0
    )
    assert marked[0].tolist() == plain[0].tolist()
    assert marked[1] == plain[1]


def test_missing_files_folders_and_other_formats_are_refused(tmp_path):
    (tmp_path / "folder.vec").mkdir()
    for path in (tmp_path / "none.vec", tmp_path / "folder.vec", tmp_path / "cc.da.300.bin"):
        with pytest.raises(ConfigError, match=str(path)):
            read_word_vectors(path, WORDS, 2, 0)


def test_a_gzip_file_cut_short_or_of_other_content_is_refused(tmp_path):
    whole = gzip.compress("\n".join(GLOVE * 50).encode(), mtime=0)
    path = tmp_path / "v.txt.gz"
    for content in (whole[:-20], b"no gzip", whole[:12] + bytes(20) + whole[32:]):
        path.write_bytes(content)
        with pytest.raises(SchemaError, match=str(path)):
            read_word_vectors(path, WORDS, 2, 0)
