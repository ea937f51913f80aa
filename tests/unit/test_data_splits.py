"""Hold-outs and subsets: the rows of the tutorials, each label in proportion, the same on every call."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from thaw.data.rows import dataset_of
from thaw.data.splits import (
    check_size,
    divide,
    duplicated,
    places_fingerprint,
    repeated,
    rows_fingerprint,
    shared,
    subset,
    text_keys,
)
from thaw.data.stratified import hold_out, stratified_folds
from thaw.errors import UserError
from thaw.labels import LabelSet


def held_out(
    labels: Sequence[str], size: float, seed: int, again: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A hold-out of rows whose texts all differ."""
    again = np.zeros(len(labels), dtype=bool) if again is None else again
    return hold_out(labels, size, seed, np.arange(len(labels)), again, np.arange(len(labels)))


def test_rows_stay_where_they_are_when_others_change() -> None:
    """But for a few, since each label gives its share of what is held out."""
    labels = [f"label {i % 7 % 3}" for i in range(400)]
    held = {*held_out(labels, 0.15, 1)[1].tolist()}
    corrected = {*held_out([labels[0], "label 1", *labels[2:]], 0.15, 1)[1].tolist()}
    grown = {*held_out([*labels, *labels[:20]], 0.15, 1)[1].tolist()}
    assert len(held - corrected) <= 2
    assert len(held - grown) <= 4
    other = {*held_out(labels, 0.15, 2)[1].tolist()}
    assert 3 <= len(held & other) <= 20, "another seed draws anew"


@pytest.mark.parametrize("size", [1, 7, 30, 0.1, 0.35, 1.0])
def test_subsets_are_those_of_the_tutorials(size: float) -> None:
    data = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(30)]})
    count = size if isinstance(size, int) else round(size * 30)
    expected = data.shuffle(seed=42).select(range(count))["text"][:]
    assert subset(data, size, "data.train_size")["text"][:] == expected
    assert subset(data, None, "data.train_size")["text"][:] == data["text"][:]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (31, "data.train_size=31, but there are 30 rows. Give 1 to 30"),
        (0, "data.train_size=0, but there are 30 rows"),
        (-5, "data.train_size=-5, but there are 30 rows"),
    ],
)
def test_sizes_that_cannot_be_are_errors(size: float, said: str) -> None:
    with pytest.raises(UserError) as raised:
        check_size(size, 30, "data.train_size")
    assert str(raised.value).startswith(said)


def test_a_small_fraction_is_at_least_one_row() -> None:
    assert check_size(0.001, 30, "data.train_size") == 1


@pytest.mark.parametrize("size", [10, 33, 0.15, 0.35, 0.5])
def test_a_hold_out_has_each_label_in_proportion(size: float) -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 57, 20, 3])
    np.random.default_rng(0).shuffle(labels)
    kept, held = held_out(labels.tolist(), size, seed=1)
    wanted = size if isinstance(size, int) else round(len(labels) * size)
    assert len(held) == wanted
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label, total in Counter(labels.tolist()).items():
        assert abs((labels[held] == label).sum() - total * wanted / len(labels)) < 1
    assert np.array_equal(held, held_out(labels.tolist(), size, seed=1)[1])
    assert not np.array_equal(held, held_out(labels.tolist(), size, seed=2)[1])


@pytest.mark.parametrize(("size", "expected"), [(0.15, 150), (30, 30), (999, 699)])
def test_where_rare_labels_keep_their_rows_common_ones_give_more(size: float, expected: int) -> None:
    labels = ["common"] * 700 + [f"rare {i}" for i in range(300)]
    kept, held = held_out(labels, size, seed=0)
    assert (len(kept), len(held)) == (1_000 - expected, expected)
    assert {labels[row] for row in held} == {"common"}


@pytest.mark.parametrize("size", [4, 5])
def test_the_last_row_of_a_label_is_not_held_out(size: int) -> None:
    kept, held = held_out(["a", "a", "a", "b", "c"], size, seed=0)
    assert {3, 4} <= set(kept.tolist())
    assert len(held) == 2


def test_texts_that_occur_again_are_not_held_out_while_there_are_others() -> None:
    labels, again = ["a", "b"] * 50, np.arange(100) % 10 < 6
    kept, held = held_out(labels, 20, seed=0, again=again)
    assert (len(kept), len(held), sum(labels[i] == "a" for i in held)) == (80, 20, 10)
    assert not again[held].any()
    assert again[held_out(labels, 50, seed=0, again=again)[1]].sum() == 10
    plain = held_out(labels, 20, seed=0)[1]
    assert np.array_equal(held_out(labels, 20, seed=0, again=np.zeros(100, dtype=bool))[1], plain)
    swapped = np.isin(np.arange(100), plain[:2])
    assert len(np.intersect1d(held_out(labels, 20, seed=0, again=swapped)[1], plain)) == 18, "the others stay"


@pytest.mark.parametrize("copies", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_on_both_sides_where_a_label_has_nothing_but_repeats(copies: int, seed: int) -> None:
    texts = np.concatenate([np.arange(150), np.repeat(np.arange(150, 210), copies)])
    labels = ["a"] * 150 + ["b"] * 60 * copies
    kept, held = hold_out(labels, 0.15, seed, texts, duplicated(texts), np.arange(len(texts)))
    assert not np.intersect1d(texts[kept], texts[held]).size
    assert sorted([*kept, *held]) == list(range(len(texts)))
    wanted = 0.15 * 60 * copies
    assert abs(sum(labels[row] == "b" for row in held) - wanted) <= max(1, copies / 2)


@pytest.mark.parametrize("size", [2, 8, 50, 0.15])
@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_on_both_sides_whatever_its_labels(size: float, seed: int) -> None:
    """Each text was labelled by five people, who differ; one label is never anybody's first."""
    texts = np.repeat(np.arange(60), 5)
    labels = np.random.default_rng(seed).choice(["a", "b"], len(texts))
    labels[4::100] = "c"
    kept, held = hold_out(labels.tolist(), size, seed, texts, duplicated(texts), np.arange(len(texts)))
    assert not np.intersect1d(texts[kept], texts[held]).size
    assert sorted([*kept, *held]) == list(range(len(texts)))
    assert {*labels[kept]} == {"a", "b", "c"}
    wanted = size if isinstance(size, int) else size * len(texts)
    assert 0 < len(held) <= wanted + 5


def test_a_label_with_a_single_text_stays_in_training() -> None:
    texts = np.array([*range(10), *[10] * 10])
    kept, held = hold_out(["a"] * 10 + ["b"] * 10, 0.3, 0, texts, duplicated(texts), np.arange(20))
    assert set(range(10, 20)) <= set(kept.tolist())
    assert len(held) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"validation_size": 12},
        {"validation_size": 0.12},
        {"files": True},
        {"files": True, "train_size": 40, "validation_size": 20},
        {"files": True, "train_size": 100, "validation_size": 20},
        {"files": True, "train_size": 0.5, "validation_size": 20},
    ],
    ids=["a file", "a number", "a fraction", "a train split", "a subset of it", "all of it", "a share of it"],
)
def test_nothing_that_is_held_out_is_trained_on(settings: dict[str, Any]) -> None:
    texts = [f"text {i // 2 if i < 40 else i}" for i in range(100)]  # 20 of them twice
    rows = rows_of(texts)
    data: dict[str, Any] = {"split_seed": 42, "validation_size": None, **settings}
    files = data.pop("files", False)
    parts = divide({"train" if files else "all": rows}, LabelSet("sequence", ("a", "b"), (50, 50)), data, "here")
    keys = {name: text_keys(part["text"][:]) for name, part in parts.items()}
    size = settings.get("validation_size", 0.1 if files else 0.15)
    assert len(parts["validation"]) == (size if isinstance(size, int) else round(size * 100))
    assert all(shared(keys[name], keys["train"]) == 0 for name in parts if name != "train")


def rows_of(texts: Sequence[str], **columns: Sequence[Any]) -> Any:
    stand = {"label": [i % 2 for i in range(len(texts))], "file": [0] * len(texts), "line": list(range(len(texts)))}
    return dataset_of(pa.table({"text": texts, **stand, **columns}))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"test_size": 0}, {"train": 85, "validation": 15}),
        ({"test_size": 0, "validation_size": 5}, {"train": 95, "validation": 5}),
        ({"test_size": 0, "eval_size": 5, "train_size": 20}, {"train": 20, "validation": 5}),
        ({"test_size": 0.0}, {"train": 85, "validation": 15}),
        ({"test_size": 0.4}, {"train": 45, "validation": 15, "test": 40}),
        ({"test_size": 7, "validation_size": 9}, {"train": 84, "validation": 9, "test": 7}),
        ({"files": "train"}, {"train": 90, "validation": 10}),
        ({"files": "train", "test_size": 0}, {"train": 90, "validation": 10}),
        ({"files": "train", "test_size": 20}, {"train": 72, "validation": 8, "test": 20}),
        ({"files": "train", "test_size": 0.2, "train_size": 0.5}, {"train": 36, "validation": 8, "test": 20}),
        ({"files": "train validation", "test_size": 20}, {"train": 80, "validation": 100, "test": 20}),
        ({"files": "train test", "test_size": 20}, {"train": 90, "validation": 10, "test": 100}),
        ({"test_size": 0, "fold": 1, "folds": 5}, {"train": 72, "validation": 8, "test": 20}),
        ({"test_size": 50, "fold": 1, "folds": 5}, {"train": 72, "validation": 8, "test": 20}),
    ],
)
def test_test_has_as_many_rows_as_it_is_to_have(settings: dict[str, Any], expected: dict[str, int]) -> None:
    data: dict[str, Any] = {"split_seed": 42, "validation_size": None, **settings}
    found = {}
    for name in data.pop("files", "all").split():
        found[name] = rows_of([f"{name} {i}" for i in range(100)])
    parts = divide(found, LabelSet("sequence", ("a", "b"), (50, 50)), data, "here")
    assert {name: len(part) for name, part in parts.items()} == expected
    texts = [text for part in parts.values() for text in part["text"][:]]
    assert len(texts) == len({*texts})


def test_a_test_of_more_rows_than_there_are_is_an_error() -> None:
    for name in ("all", "train"):
        data = {"split_seed": 42, "validation_size": None, "test_size": 101}
        with pytest.raises(UserError, match=r"data\.test_size=101, but there are 100 rows"):
            divide({name: rows_of([str(i) for i in range(100)])}, LabelSet("sequence", ("a", "b"), (9, 9)), data, "")


@pytest.mark.parametrize(
    ("name", "test", "validation"), [("all", 0.3, 0.8), ("all", 10, 100), ("all", 100, None), ("train", 100, None)]
)
def test_sizes_that_leave_nothing_to_train_on_are_errors(name: str, test: Any, validation: Any) -> None:
    data = {"split_seed": 42, "validation_size": validation, "test_size": test}
    with pytest.raises(UserError, match="none is left to train on"):
        divide({name: rows_of([str(i) for i in range(100)])}, LabelSet("sequence", ("a", "b"), (9, 9)), data, "")


def test_rows_of_several_labels_are_divided_too() -> None:
    rows = rows_of([f"text {i}" for i in range(100)], label=[[i % 2, 2] for i in range(100)])
    labels = LabelSet("multi_label", ("a", "b", "c"), (50, 50, 100))
    parts = divide({"all": rows}, labels, {"split_seed": 42, "validation_size": None}, "here")
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "validation": 15, "test": 15}


def test_folds_have_each_label_in_proportion_and_no_text_in_common() -> None:
    labels = np.repeat([0, 1, 2], [100, 57, 23])
    keys = np.arange(180)
    keys[[3, 50, 120]] = 3  # a text that occurs again, also with another label
    folds = stratified_folds(labels.tolist(), 5, 1, keys)
    assert Counter(folds.tolist()).keys() == set(range(5))
    assert max(Counter(folds.tolist()).values()) - min(Counter(folds.tolist()).values()) <= 3
    for label, total in Counter(labels.tolist()).items():
        assert all(abs((labels[folds == fold] == label).sum() - total / 5) <= 2 for fold in range(5))
    assert len({*folds[[3, 50, 120]]}) == 1
    other = -1000 * keys  # as of another process, where texts have other hashes
    assert np.array_equal(folds, stratified_folds(labels.tolist(), 5, 1, other))
    assert not np.array_equal(folds, stratified_folds(labels.tolist(), 5, 2, keys))


@pytest.mark.parametrize("split", ["all", "train"])
def test_each_row_is_tested_on_once(split: str) -> None:
    texts = [f"text {i // 2 if i < 40 else i}" for i in range(100)]
    rows = rows_of(texts)
    labels = LabelSet("sequence", ("a", "b"), (50, 50))
    tested = []
    for fold in range(1, 5):
        data = {"split_seed": 42, "validation_size": None, "fold": fold, "folds": 4}
        parts = divide({split: rows}, labels, data, "here")
        keys = {name: text_keys(part["text"][:]) for name, part in parts.items()}
        assert all(shared(keys[name], keys["train"]) == 0 for name in ("validation", "test"))
        assert len(parts["validation"]) == round(0.1 * (100 - len(parts["test"])))
        tested += parts["test"]["text"][:]
    assert sorted(tested) == sorted(texts)
    for own, said in (
        ({"fold": 3, "folds": 2}, "data.fold=3, but data.folds=2"),
        ({"folds": 90}, "there are 80 different texts"),
    ):
        with pytest.raises(UserError, match=said):
            divide({split: rows}, labels, {"split_seed": 42, "validation_size": None, "fold": 1, **own}, "here")


def test_folds_are_about_as_large_where_some_texts_occur_often() -> None:
    keys = np.concatenate([np.repeat(np.arange(30), 10), np.arange(30, 330)])
    assert Counter(stratified_folds([0] * 600, 5, 42, keys).tolist()) == dict.fromkeys(range(5), 120)


def test_shares_of_train_are_validated_on_the_same_rows() -> None:
    rows = rows_of([f"text {i}" for i in range(1000)])
    labels = LabelSet("sequence", ("a", "b"), (500, 500))
    found = [
        divide({"train": rows}, labels, {"split_seed": 42, "validation_size": None, "train_size": size}, "here")
        for size in (0.1, 0.7, 1.0)
    ]
    assert [len(parts["train"]) for parts in found] == [90, 630, 900]
    assert len({tuple(parts["validation"]["text"][:]) for parts in found}) == 1
    assert set(found[0]["train"]["text"][:]) < set(found[1]["train"]["text"][:]) < set(found[2]["train"]["text"][:])


def test_repeated_and_shared_texts_are_counted() -> None:
    assert repeated(["a", "b", "a", "a"]) == 2
    assert shared(["a", "a", "b", "c"], ["a", "c", "d"]) == 3


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["b", "a"], [2, 1]),
        (["a", "b"], [1, 3]),
        (["a", "b "], [1, 2]),
        (["a1\nb"], [2]),
        (["a 1\nb"], [2]),
        (["a", "b\ud800"], [1, 2]),
        (["a", "b", "b"], [1, 2, 2]),
    ],
    ids=["order", "label", "text", "what looks like two rows", "and so", "half of a surrogate pair", "one more"],
)
def test_a_fingerprint_is_of_every_text_and_label_in_their_order(texts: list[str], labels: list[int]) -> None:
    """By it a run knows that its data has changed."""
    assert rows_fingerprint(texts, labels) != rows_fingerprint(["a", "b"], [1, 2])
    assert rows_fingerprint(texts, labels) == rows_fingerprint(iter(texts), iter(labels))


def test_rows_of_the_same_places_are_known_whatever_their_texts_and_order() -> None:
    rows, other = (rows_of("abcd", file=files, line=[1, 2, 1, 3]) for files in ([0, 0, 1, 1], [0, 0, 0, 1]))
    cleaned = rows_of("efgh", file=[1, 0, 0, 1], line=[3, 1, 2, 1])
    assert places_fingerprint(rows) == places_fingerprint(cleaned)
    keys = {places_fingerprint(own) for own in (rows, other, rows.select(range(3)), rows.select([0, 1, 2, 2]))}
    assert len(keys) == 4


def test_words_are_not_the_text_that_they_make() -> None:
    assert len(set(text_keys([["a", "b"], ["ab"], ["a b"], ["a", "", "b"]]))) == 4
