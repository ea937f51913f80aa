"""Wrong labels that were planted are found before any training."""

import numpy as np
import pytest

from thaw.exploration.features import linear_probe, projections
from thaw.labels import LabelSet
from thaw.metrics.label_noise import doubted, suspicious_labels

WORDS = {"joy": "happy glad cheerful", "anger": "angry mad furious"}


def rows(count: int) -> tuple[list[str], list[int]]:
    names = list(WORDS)
    texts = [f"row {i % 7} and i am {WORDS[names[i % 2]].split()[i // 2 % 3]} today" for i in range(count)]
    return texts, [i % 2 for i in range(count)]


def test_flipped_labels_come_first() -> None:
    texts, gold = rows(120)
    for i in (10, 33, 77):
        gold[i] = 1 - gold[i]
    found = suspicious_labels(texts, gold, LabelSet("sequence", ("joy", "anger"), (60, 60), "", 120))
    assert {one["row"] for one in found[:3]} == {10, 33, 77}
    assert all(one["sure"] > one["own"] and one["label"] != one["suggested"] for one in found)


def test_the_label_that_puts_a_row_in_doubt_is_the_one_suggested() -> None:
    """C reaches what rows of C have on average; B is likelier, but far from what rows of B have."""
    scores = np.array([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05], *[[0.02, 0.97, 0.01]] * 2, [0.4, 0.3, 0.3]])
    found = doubted(scores, [0, 0, 1, 1, 2], LabelSet("sequence", ("A", "B", "C"), (2, 2, 1), rows=5))
    assert found == [{"row": 0, "label": "A", "suggested": "C", "own": 0.1, "sure": 0.4}]


def test_a_label_that_comes_every_fifth_row_is_learnt_for_all_of_them() -> None:
    """Rows are dealt by their label: dealt as they come, a fold would hold every row of it."""
    gold = [int(i % 5 == 0) for i in range(100)]
    texts = [f"row {i % 7} {list(WORDS)[label]}" for i, label in enumerate(gold)]
    gold[10] = 0
    (found,) = suspicious_labels(texts, gold, LabelSet("sequence", tuple(WORDS), (81, 19), "", 100))
    assert (found["row"], found["suggested"]) == (10, "anger")


def test_labels_that_are_missing_or_too_many_are_found() -> None:
    texts, gold = rows(120)
    several = [[label] for label in gold]
    several[10], several[33] = [], [0, 1]
    found = suspicious_labels(texts, several, LabelSet("multi_label", ("joy", "anger"), (60, 60), "", 120))
    assert [(one["row"], one["label"], one["suggested"]) for one in sorted(found[:2], key=lambda one: one["row"])] == [
        (10, "without joy", "joy"),
        (33, "joy", "without joy"),
    ]
    several[11] = []
    several = [[1 - label for label in own] for own in several]
    found = suspicious_labels(texts, several, LabelSet("multi_label", ("anger", "joy"), (60, 60), "", 120))
    assert {one["row"] for one in found} == {10, 11, 33}
    assert [one["own"] for one in found] == sorted(one["own"] for one in found)


def test_a_word_with_an_unusual_tag_is_found() -> None:
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC"), (80, 40, 0), "", 40)
    texts, tags = [["in", "Paris", f"x{i}"] for i in range(40)], [[0, 1, 0] for _ in range(40)]
    tags[7][1] = 0
    (found,) = suspicious_labels(texts, tags, labels)
    assert (found["row"], found["word"], found["label"], found["suggested"]) == (7, 1, "O", "B-LOC")


@pytest.mark.parametrize("count", [2, 6])
def test_too_little_data_has_no_suspects(count: int) -> None:
    texts, gold = rows(count)
    assert suspicious_labels(texts, gold, LabelSet("sequence", ("joy", "anger"), (1, 1), "", count)) == []


def test_labels_of_one_row_each_have_no_suspects() -> None:
    labels = LabelSet("sequence", tuple("abcdefghijkl"), (1,) * 12, "", 12)
    assert suspicious_labels(rows(12)[0], list(range(12)), labels) == []


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_sentences_have_no_suspects(count: int) -> None:
    tags = [[1], [1], [1], [0]][-count:]
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC"), (1, 3, 0), "", count)
    assert suspicious_labels([["Paris"]] * count, tags, labels) == []


def test_linear_probe_tells_apart_what_lies_apart() -> None:
    generator = np.random.default_rng(0)
    gold = np.arange(300) % 3
    vectors = generator.normal(size=(300, 8)) + 6 * np.eye(8)[gold]
    labels = LabelSet("sequence", ("a", "b", "c", "never"), (100, 100, 100, 0), "", 300)
    scores = linear_probe(vectors[:200], gold[:200], vectors[200:], labels)
    assert scores.shape == (100, 4)
    assert (scores.argmax(-1) == gold[200:]).mean() > 0.98
    found = projections(vectors[:120])
    assert {name: own.shape for name, own in found.items()} == {"PCA": (120, 2), "t-SNE": (120, 2)}
    assert list(projections(vectors[:5])) == ["PCA"]
    assert projections(vectors[:1]) == {}
