"""What is told of texts before training has known answers."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thaw.data.encoding import encode_texts
from thaw.data.survey import box, entity_survey, pieces_of, truncation_curve, vocabulary, words_of
from thaw.labels import LabelSet
from thaw.models.encoder import load_tokenizer


def test_words_are_letters_and_digits_and_single_characters_where_no_blanks_are_set() -> None:
    assert words_of("It's 5 o'clock, naïve!") == ["It", "s", "5", "o", "clock", "naïve"]
    assert words_of("abc漢字カナ def") == ["abc", "漢", "字", "カ", "ナ", "def"]
    assert words_of(["New", "York", "."]) == ["New", "York", "."]


def test_box_gives_quantiles() -> None:
    assert box(np.arange(101)) == {"low": 5, "first": 25, "median": 50, "third": 75, "high": 95, "rows": 101}


def test_truncation_curve_counts_texts_and_tokens() -> None:
    lengths = np.array([5, 10, 20, 25])
    curve = truncation_curve(lengths, 512)
    assert curve["max_length"][-1] == 25, "beyond the longest text nothing is cut"
    for max_length, texts, tokens in zip(*curve.values(), strict=True):
        assert texts == pytest.approx((lengths > max_length).mean(), abs=1e-6)
        assert tokens == pytest.approx(np.maximum(lengths - max_length, 0).sum() / lengths.sum(), abs=1e-6)
    assert truncation_curve(lengths, 12)["max_length"][-1] == 12


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta_v3"])
def test_vocabulary_tells_whole_words_from_split_ones(encoders: Callable[[str], Path], architecture: str) -> None:
    tokenizer = load_tokenizer(encoders(architecture), "token")
    words = Counter({"the": 6, "thethethe": 3, "Zx9Qy": 1})
    counts = {word: len(tokenizer([[word]], is_split_into_words=True, add_special_tokens=False).input_ids[0])
              for word in words}  # fmt: skip
    found = vocabulary(words, tokenizer)
    assert (found["running"], found["distinct"]) == (10, 3)
    assert found["pieces"] == pytest.approx(sum(words[word] * counts[word] for word in words) / 10)
    whole = [word for word in words if counts[word] == 1]
    assert found["one_piece"] + found["unknown"] >= sum(words[word] for word in whole) / 10 - 1e-9
    for row in [*found["costly"], *found["longest"]]:
        assert "".join(row["pieces"]).removeprefix("␣") == row["word"]
        assert len(row["pieces"]) == counts[row["word"]] > 1


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta_v3"])
@pytest.mark.parametrize(("max_length", "truncation"), [(6, "end"), (6, "start"), (9, "middle"), (100, "end")])
def test_pieces_are_those_that_training_sees(
    encoders: Callable[[str], Path], architecture: str, max_length: int, truncation: str
) -> None:
    tokenizer = load_tokenizer(encoders(architecture), "sequence")
    text = "Unbelievably good 🎉, isn't it? שלום <b>café</b>"
    pieces = pieces_of(text, tokenizer, max_length, truncation)
    ids, _, lengths = encode_texts([text], tokenizer, max_length, truncation=truncation)
    assert [piece["id"] for piece in pieces if not piece["cut"]] == ids.tolist()
    assert len(pieces) == lengths[0]
    assert [piece["special"] for piece in pieces] == [True, *[False] * (len(pieces) - 2), True]
    for piece in pieces[1:-1]:
        assert 0 <= piece["start"] <= piece["end"] <= len(text)
        if piece["word"] == 0:
            assert text[piece["start"] : piece["end"]].strip() in "Unbelievably"


def test_entities_are_counted_by_type_length_and_form() -> None:
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), (0,) * 5)
    texts = [["New", "York", "and", "Paris"], ["Paris", "met", "Ann"], ["Paris"]]
    found = entity_survey(texts, [[1, 2, 0, 1], [3, 0, 3], [1]], labels)
    assert found["types"]["LOC"] == {
        "count": 3,
        "lengths": [2, 1, 0, 0, 0],
        "distinct": 2,
        "surfaces": [["Paris", 2], ["New York", 1]],
    }
    assert found["ambiguous"] == [{"form": "Paris", "types": {"LOC": 2, "PER": 1}}]


def test_vowel_signs_are_parts_of_words() -> None:
    assert words_of("हिन्दी भाषा, தமிழ்") == ["हिन्दी", "भाषा", "தமிழ்"]
    assert words_of("مُحَمَّد a_b") == ["مُحَمَّد", "a", "b"]
