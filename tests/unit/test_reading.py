"""What pages and the terminal say of rows and data."""

from typing import Any

import pytest

from thaw.labels import LabelSet
from thaw.reporting.reading import marked
from thaw.reporting.summary import advice, left_out, notes

ENTITIES = LabelSet("token", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), (1,) * 5)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ("B-PER I-PER O", "B-PER I-PER O", [("Ann Lee", "right", "PER"), ("won", "", "")]),
        ("B-PER I-PER O", "B-PER B-PER O", [("Ann", "wrong", "PER, wrong boundary"),
                                            ("Lee", "wrong", "PER, wrong boundary"), ("won", "", "")]),
        ("B-PER I-PER O", "B-PER O O", [("Ann", "wrong", "PER, wrong boundary"), ("Lee", "wrong", "PER → O"),
                                        ("won", "", "")]),
        ("B-PER B-PER O", "B-LOC B-PER O", [("Ann", "wrong", "PER → LOC"), ("Lee", "right", "PER"), ("won", "", "")]),
    ],
)  # fmt: skip
def test_a_word_is_right_when_its_whole_entity_is(
    true: str, predicted: str, expected: list[tuple[str, str, str]]
) -> None:
    row = {"words": ["Ann", "Lee", "won"], "label": true.split(), "predicted": predicted.split()}
    assert [(part["text"], part["kind"], part["label"]) for part in marked(row, ENTITIES)] == expected


def data_of(counts: dict[str, dict[str, int]], task: str = "sequence", **shared: Any) -> dict[str, Any]:
    splits = {name: {"labels": own} for name, own in counts.items()}
    return {"task": task, "labels": list(counts["train"]), "splits": splits, "shared": [], **shared}


def test_what_is_odd_about_the_data_is_noted() -> None:
    train = {"billing": 5, "Billing": 1, "bill ing": 1, "other": 2}
    found = notes(
        data_of(
            {"train": train, "validation": {"billing": 1, "Billing": 0, "bill ing": 0, "other": 1}},
            shared=[{"in": "validation", "also_in": "train", "rows": 1_200}],
        )
    )
    assert found == [
        "texts of validation that are also in train: 1,200",
        "labels that differ only in case or blanks: billing and Billing and bill ing",
        "labels without a row in validation: Billing, bill ing",
    ]


def test_labels_that_may_stand_for_a_missing_one_are_noted() -> None:
    found = notes(data_of({"train": {"NaN": 3, "None": 1, "none": 2, "other": 2}}))
    assert "labels that may stand for a missing one: NaN, None" in found


def test_many_names_are_counted_and_tags_may_be_absent() -> None:
    names = [f"label {i}" for i in range(9)]
    train = dict.fromkeys(names, 1)
    assert notes(data_of({"train": train, "test": dict.fromkeys(names, 0)})) == [
        "labels without a row in test: label 0, label 1, label 2, label 3, label 4 and 4 more"
    ]
    assert not notes(data_of({"train": train, "test": dict.fromkeys(names, 0)}, "token"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["O", "B-X", "I-X"], []),
        (["NOUN", "VERB"], []),
        (
            ["O", "ERROR", "B-X", "I-X"],
            ["tags that are neither O nor begin with B- or I-, and so mark no entity: ERROR"],
        ),
        (["0", "1"], ["the tags are numbers and mark no entities; their names: data.label_names=[O,B-PER,I-PER,...]"]),
    ],
)
def test_odd_tags_are_noted(names: list[str], said: list[str]) -> None:
    assert notes(data_of({"train": dict.fromkeys(names, 1)}, "token")) == said


def test_a_separator_that_no_label_holds_is_noted() -> None:
    splits = {"train": {"labels": {"a": 2, "b": 1}, "rows": 4, "unlabelled": 1}}
    data = {"task": "multi_label", "labels": ["a", "b"], "splits": splits, "shared": []}
    assert notes(data) == ["no text has more than one label: is data.label_separator, or data.task, as it should be?"]
    splits["train"]["labels"]["a"] = 3
    assert not notes(data)


def test_a_run_that_a_bag_of_words_beats_is_told_what_to_try() -> None:
    metrics = {
        "test/f1": 0.4, "test/recall/a": 0.5, "test/recall/b": 0.0, "test/recall/c": 0.0,
        "baselines": {"test": {"majority": {"f1": 0.2}, "TF-IDF": {"f1": 0.61}, "before": {"f1": None}}},
    }  # fmt: skip
    counts = {"a": 5, "b": 2, "c": 0}
    assert advice(metrics, "test", counts) == [
        "TF-IDF has the higher F1 (0.610, this run 0.400). More data.epochs or another optimizer.lr may help.",
        "Never found: b. More data.epochs, another optimizer.lr, or loss=balanced may help.",
    ]
    assert not advice({**metrics, "test/f1": 0.7, "test/recall/b": 0.1}, "test", counts)


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_label_that_is_given_far_too_often_is_named(absent: float | None) -> None:
    """As the threshold with the best F1 gives a rare one, where the run hardly tells it from the others."""
    metrics = {
        "test/f1": 0.8, "test/recall/fraud": 1.0, "test/precision/fraud": 1 / 33, "test/recall/legal": 0.5,
        "test/precision/legal": 0.25, "test/recall/absent": absent, "test/precision/absent": absent, "baselines": {},
    }  # fmt: skip
    assert advice(metrics, "test", {"fraud": 1, "legal": 4, "absent": 0}) == [
        "Given far too often: fraud (33 for 1). More data.epochs, or more rows with them, may help."
    ]


def test_rows_that_were_left_out_and_are_not_listed_are_counted() -> None:
    assert left_out({"skipped": {"train": 1_200, "test": 2}, "skipped_rows": ["a.csv:7: no label"]}) == [
        "a.csv:7: no label", "1,201 more rows",
    ]  # fmt: skip
    assert left_out({"skipped": {"all": 1}, "skipped_rows": ["a.csv:7: no label"]}) == ["a.csv:7: no label"]
    assert not left_out({"skipped": {}, "skipped_rows": []})
