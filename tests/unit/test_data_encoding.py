"""Token ids are those of the tokenizer, labels stand where they belong, and the cache never gives anything else."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thaw.cache import cache_folder
from thaw.data import encoding, tokenizing
from thaw.data.encoding import (
    Encoded,
    align,
    cached_split,
    encode_split,
    encode_texts,
    encode_words,
    encoding_key,
)
from thaw.errors import UserError
from thaw.labels import IGNORED, LabelSet
from thaw.models.encoder import load_tokenizer

FAMILIES = ["bert", "bert_cased", "roberta", "xlm_roberta", "albert", "deberta_v3", "mpnet", "modernbert"]
TEXTS = [
    "I am so happy that Maria came home today!",
    "",
    "   blanks  around\tand\nwithin   ",
    "emoji 😀 👩‍👩‍👧, שלום, naïve, a\x85b, \u200b, \x00, \ufffd",
    "[CLS] it is [MASK] [SEP] <s> <mask> </s>",
    "incomprehensibilities" * 5,
    "word " * 100,
]
SENTENCES = [
    ["Maria", "came", "home", "!"],
    ["\u200b", "so", "\u00ad"],
    ["10\u00a0000", "New York", "😀", "שלום", "[SEP]", "<mask>", "a"],
    ["\u200b"],
    ["incomprehensibilities"] * 20,
]
TAGS = LabelSet("token", ("O", "B-PER", "I-PER"), (1, 1, 1))


def rows(flat: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [flat[start:end].tolist() for start, end in pairwise(offsets)]


@pytest.fixture
def tokenizer(encoders: Callable[[str], Path]) -> Any:
    return load_tokenizer(encoders("bert"), "token")


@pytest.mark.parametrize("max_length", [3, 5, 16, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_encoded_as_the_tokenizer_does(
    family: str, max_length: int, encoders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(encoders(family), "sequence")
    monkeypatch.setattr(encoding, "CHUNK", 3)  # several chunks
    ids, offsets, lengths = encode_texts(iter(TEXTS), tokenizer, max_length)
    assert rows(ids, offsets) == tokenizer(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert lengths.tolist() == [len(row) for row in tokenizer(TEXTS, verbose=False)["input_ids"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_is_cut_as_the_tokenizer_does(family: str, encoders: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(encoders(family), "sequence")
    ids, offsets, _ = encode_texts(TEXTS, tokenizer, 16, truncation="start")
    tokenizer.truncation_side = "left"
    assert rows(ids, offsets) == tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]


def test_the_middle_is_cut_after_a_quarter_of_what_is_kept(tokenizer: Any) -> None:
    text = " ".join(str(i) for i in range(10))
    whole = tokenizer(text)["input_ids"]
    ids, _, lengths = encode_texts([text], tokenizer, 10, truncation="middle")
    assert ids.tolist() == [*whole[:3], *whole[-7:]]
    assert lengths.tolist() == [12]
    assert encode_texts([text], tokenizer, 12, truncation="middle")[0].tolist() == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_encoded_as_the_tokenizer_does(family: str, encoders: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(encoders(family), "token")
    ids, offsets, words = encode_words(SENTENCES, tokenizer)
    expected = tokenizer(SENTENCES, is_split_into_words=True, verbose=False)
    assert rows(ids, offsets) == expected["input_ids"]
    own = [[-1 if word is None else word for word in expected.word_ids(i)] for i in range(len(SENTENCES))]
    assert rows(words, offsets) == own


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_byte_level_words_begin_with_a_blank_as_in_a_text(family: str, encoders: Callable[[str], Path]) -> None:
    """Without it a word would be encoded as the inside of another, and say nothing of it."""
    tokenizer = load_tokenizer(encoders(family), "token")
    ids, *_ = encode_words([["Maria", "came", "home"]], tokenizer)
    assert ids.tolist() == tokenizer(" Maria came home")["input_ids"]


def test_saved_truncation_and_padding_of_a_tokenizer_do_not_matter(tokenizer: Any) -> None:
    expected = tokenizer(TEXTS)["input_ids"]
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    ids, offsets, _ = encode_texts(TEXTS, tokenizer, 10_000)
    assert rows(ids, offsets) == expected


@pytest.mark.parametrize(
    ("subwords", "expected"),
    [
        ("first", [IGNORED, 1, IGNORED, 0, IGNORED, 2, IGNORED, 1, IGNORED]),
        ("all", [IGNORED, 1, 2, 0, 0, 2, 2, 1, IGNORED]),
    ],
)
def test_labels_stand_at_the_first_or_at_all_subtokens(subwords: str, expected: list[int]) -> None:
    words = np.array([-1, 0, 0, 1, 1, 3, 3, 4, -1])  # word 2 vanished in tokenisation
    labels, starts = align([1, 0, 1, 2, 1], words, TAGS, subwords)
    assert labels.tolist() == expected
    assert words[starts].tolist() == [0, 1, 3, 4]


def test_tags_that_mark_no_spans_stand_at_all_subtokens_unchanged() -> None:
    parts = LabelSet("token", ("NN", "VB"), (1, 1))
    labels, _ = align([1, 0], np.array([-1, 0, 0, 1, -1]), parts, "all")
    assert labels.tolist() == [IGNORED, 1, 1, 0, IGNORED]


def test_every_labelled_subtoken_can_be_scored_as_a_word(tokenizer: Any) -> None:
    tags = [[1, 2, 2, 0][: len(sentence)] + [0] * max(len(sentence) - 4, 0) for sentence in SENTENCES]
    plain = encode_split(SENTENCES, tags, TAGS, tokenizer, 16, "all")
    scored = encode_split(SENTENCES, tags, TAGS, tokenizer, 16, "all", score_subwords=True)
    assert scored.labels.tolist() == plain.labels.tolist()
    assert scored.tags.tolist() == plain.labels[plain.labels != IGNORED].tolist()
    gold = rows(scored.tags, scored.tag_offsets)
    for sentence, words, own in zip(
        scored.sentences, rows(scored.words, scored.offsets), rows(plain.labels, plain.offsets), strict=True
    ):
        assert [gold[sentence][word] for word in words if word >= 0] == [label for label in own if label != IGNORED]


@pytest.mark.parametrize("subwords", ["first", "all"])
def test_every_tag_is_kept_also_of_words_without_tokens(subwords: str, tokenizer: Any) -> None:
    """What vanishes in tokenisation still counts in the evaluation."""
    tags = [[1, 2, 2, 0][: len(sentence)] + [0] * max(len(sentence) - 4, 0) for sentence in SENTENCES]
    encoded = encode_split(SENTENCES, tags, TAGS, tokenizer, 64, subwords)
    assert rows(encoded.tags, encoded.tag_offsets) == tags
    words = [[word for word in row if word >= 0] for row in rows(encoded.words, encoded.offsets)]
    assert words[:2] == [[0, 1, 2, 3], [1]]  # each word once, at its first sub-token
    assert words[3] == []
    assert_learnt(encoded, tags, subwords)


@pytest.mark.parametrize("subwords", ["first", "all"])
@pytest.mark.parametrize("max_length", [3, 5, 16])
def test_every_word_of_a_long_sentence_is_learnt_once(subwords: str, max_length: int, tokenizer: Any) -> None:
    tags = [[1, 2, 2, 0][: len(sentence)] + [0] * max(len(sentence) - 4, 0) for sentence in SENTENCES]
    whole = encode_split(SENTENCES, tags, TAGS, tokenizer, 10_000, subwords)
    encoded = encode_split(SENTENCES, tags, TAGS, tokenizer, max_length, subwords)
    assert encoded.kept.max() == max_length
    assert encoded.lengths.tolist() == whole.kept.tolist()
    assert encoded.too_long == (whole.kept > max_length).mean()
    assert whole.too_long == 0
    assert encoded.tags.tolist() == whole.tags.tolist()
    for flat in ("labels", "words"):
        nothing = IGNORED if flat == "labels" else -1
        own, expected = getattr(encoded, flat), getattr(whole, flat)
        assert own[own != nothing].tolist() == expected[expected != nothing].tolist()
    assert_learnt(encoded, tags, subwords)


def assert_learnt(encoded: Encoded, tags: list[list[int]], subwords: str) -> None:
    """At the first sub-token of each word stands its tag; with ``first`` nowhere else."""
    at = encoded.words >= 0
    sentences = np.repeat(encoded.sentences, encoded.kept)[at]
    gold = [tags[sentence][word] for sentence, word in zip(sentences, encoded.words[at], strict=True)]
    assert encoded.labels[at].tolist() == gold
    if subwords == "first":
        assert set(encoded.labels[~at]) == {IGNORED}


def test_targets_of_texts(tokenizer: Any) -> None:
    single = LabelSet("sequence", ("a", "b", "c"), (1, 1, 1))
    assert encode_split(["x", "y"], [2, 0], single, tokenizer, 8, "first").labels.tolist() == [2, 0]
    several = LabelSet("multi_label", ("a", "b", "c"), (1, 1, 1))
    targets = encode_split(["x", "y", "z"], [[2, 0], [], [1]], several, tokenizer, 8, "first").labels
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_key_changes_with_all_that_matters(encoders: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(encoders("bert"), "sequence")
    cased = load_tokenizer(encoders("bert_cased"), "sequence")

    def key(texts: Sequence[Any], labels: Sequence[Any], tokenizer: Any = tokenizer, **options: Any) -> str:
        return encoding_key(texts, labels, tokenizer, options)

    keys = [
        key(["a", "b"], [0, 1]),
        key(["a", "c"], [0, 1]),
        key(["b", "a"], [0, 1]),
        key(["a", "b"], [0, 0]),
        key(["a"], [0]),
        key([["a", "b"]], [[0, 1]]),
        key(["a", "b"], [0, 1], max_length=8),
        key(["a", "b"], [0, 1], max_length=9),
        key(["a", "b"], [0, 1], cased),
    ]
    assert len(set(keys)) == len(keys)
    assert key(["a", "b"], [0, 1]) == keys[0]
    tokenizer.add_tokens(["newword"])
    assert key(["a", "b"], [0, 1]) not in keys


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    return tmp_path


def some_encoded() -> Encoded:
    empty = np.empty(0, dtype=np.int64)
    return Encoded(np.arange(1000), np.array([0, 600, 1000]), np.array([600, 400]), np.array([1, 0]), *[empty] * 4)


def test_the_same_key_is_made_once(empty_cache: Path) -> None:
    made = []

    def make() -> Encoded:
        made.append(1)
        return some_encoded()

    first, second = cached_split("key", make), cached_split("key", make)
    assert len(made) == 1
    for encoded in (first, second):
        assert encoded.ids.tolist() == list(range(1000))
        assert encoded.labels.tolist() == [1, 0]
        assert len(encoded.words) == 0
    cached_split("other", make)
    assert len(made) == 2


def test_processes_that_want_the_same_key_wait_for_the_first(empty_cache: Path) -> None:
    code = """
import sys, time
import numpy as np
from thaw.data.encoding import Encoded, cached_split
def make():
    with open(sys.argv[1], "a") as file:
        file.write("made\\n")
    time.sleep(0.5)
    return Encoded(*[np.arange(100)] * 8)
print(cached_split("key", make).ids.sum())
"""
    log = empty_cache / "log"
    command = [sys.executable, "-c", code, str(log)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["4950\n", "4950\n"]
    assert log.read_text() == "made\n"


def test_a_folder_that_was_half_written_is_never_seen(empty_cache: Path) -> None:
    code = """
import os
import numpy as np
from thaw.cache import cache_folder
from thaw.data import encoding
from thaw.data.encoding import Encoded, cached_split
save, saved = np.save, []
def dies(path, array):
    if len(saved) == 3:
        os._exit(9)
    saved.append(save(path, array))
np.save = dies
cached_split("key", lambda: Encoded(*[np.arange(100)] * 8))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert not (cache_folder() / "encoded" / "key").exists()
    assert cached_split("key", some_encoded).ids.tolist() == list(range(1000))


@pytest.mark.parametrize("size", [0, 100, 1_000])
def test_what_is_damaged_is_made_anew(size: int, empty_cache: Path) -> None:
    cached_split("key", some_encoded)
    for path in (cache_folder() / "encoded" / "key").iterdir():
        path.write_bytes(path.read_bytes()[:size])
    assert cached_split("key", some_encoded).ids.tolist() == list(range(1000))
    assert cached_split("key", lambda: pytest.fail("made anew")).ids.tolist() == list(range(1000))


def test_a_failure_leaves_nothing_behind(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(UserError, match=r"the cache cannot be written: No space left on device\. Set THAW_CACHE"):
            cached_split("key", some_encoded)
    assert [path.name for path in (empty_cache / "encoded").iterdir()] in ([], ["key.lock"])
    assert len(cached_split("key", some_encoded)) == 2


def test_long_texts_are_read_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "CHUNK_CHARACTERS", 10)
    texts: list[Any] = ["a" * 6, "b" * 6, "c", ["dd", "ee"], "f" * 30]
    assert [len(chunk) for chunk in tokenizing.chunks(texts, 3)] == [2, 3]
    assert [text for chunk in tokenizing.chunks(texts, 2) for text in chunk] == texts


@pytest.mark.parametrize("task", ["sequence", "multi_label"])
def test_long_texts_are_read_in_windows_that_all_have_their_label(tokenizer: Any, task: Any) -> None:
    labels = LabelSet(task, ("a", "b"), (1, 1), rows=3)
    texts, given = ["ab", "one two three four five six seven eight " * 4, "cd"], [0, 1, 0]
    whole, offsets, _ = encode_texts(texts, tokenizer, 100)
    encoded = encode_split(texts, given if task == "sequence" else [[i] for i in given], labels, tokenizer, 16, "first",
                           truncation="windows")  # fmt: skip
    numbers = encoded.sentences.tolist()
    assert numbers == sorted(numbers)
    assert numbers.count(0) == numbers.count(2) == 1 < numbers.count(1)
    assert set(rows(encoded.ids, encoded.offsets)[numbers.index(1)]) < set(rows(whole, offsets)[1])
    assert encoded.kept.max() <= 16
    of_rows = encoded.labels if task == "sequence" else encoded.labels.argmax(-1)
    assert of_rows.tolist() == [given[number] for number in numbers]
    assert encoded.lengths.tolist() == np.diff(offsets).tolist()
    assert encoded.too_long == pytest.approx(1 / 3)


def test_texts_that_fit_need_no_windows(tokenizer: Any) -> None:
    labels = LabelSet("sequence", ("a", "b"), (1, 1), rows=2)
    plain, windows = (
        encode_split(["one", "two three"], [0, 1], labels, tokenizer, 16, "first", truncation=truncation)
        for truncation in ("end", "windows")
    )
    assert plain.ids.tolist() == windows.ids.tolist()
    assert not len(windows.sentences)
