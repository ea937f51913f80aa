"""Entity figures against seqeval, also where there is nothing to find."""

from typing import Any

import numpy as np
import pytest
from seqeval import metrics
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2

from thaw.labels import LabelSet
from thaw.metrics.entities import entity_counts, entity_metrics, spans, surfaces
from thaw.reporting.entity_errors import by_surface, error_matrix
from thaw.reporting.predictions import length_bins

NAMES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
LABELS = LabelSet("token", NAMES, (1,) * 5)


def random_tags(seed: int, sentences: int = 40) -> tuple[list[list[str]], list[list[str]]]:
    """True and predicted tags, ill-formed ones too, equal for two words of three."""
    generator = np.random.default_rng(seed)
    gold = [[NAMES[i] for i in generator.integers(0, 5, generator.integers(1, 12))] for _ in range(sentences)]
    predicted = [[tag if generator.random() < 2 / 3 else str(generator.choice(NAMES)) for tag in row] for row in gold]
    return gold, predicted


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_entity_figures_are_those_of_seqeval(seed: int, strict: bool) -> None:
    gold, predicted = random_tags(seed)
    options: dict[str, Any] = {"mode": "strict", "scheme": IOB2} if strict else {}
    expected = {
        "f1": metrics.f1_score(gold, predicted, **options),
        "precision": metrics.precision_score(gold, predicted, **options),
        "recall": metrics.recall_score(gold, predicted, **options),
        "f1_macro": metrics.f1_score(gold, predicted, average="macro", **options),
        "accuracy": metrics.accuracy_score(gold, predicted),
    }
    for name, score in (
        ("f1", metrics.f1_score),
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
    ):
        by_type = score(gold, predicted, average=None, **options)
        expected |= {f"{name}/LOC": by_type[0], f"{name}/PER": by_type[1]}
    assert entity_metrics(predicted, gold, LABELS, strict) == pytest.approx(expected)


def test_strict_refuses_an_entity_that_begins_with_inside() -> None:
    gold, predicted = [["B-LOC", "I-LOC", "O"]], [["I-LOC", "I-LOC", "O"]]
    assert entity_metrics(predicted, gold, LABELS)["f1"] == 1.0
    assert entity_metrics(predicted, gold, LABELS, strict=True)["f1"] == 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("gold", "predicted", "right"),
    [
        (["O", "O"], ["O", "O"], 1.0),
        (["O", "O"], ["O", "I-LOC"], 0.5),
        (["O", "B-PER"], ["O", "O"], 0.5),
        (["I-PER", "O"], ["O", "I-PER"], 0.0),
    ],
)
def test_without_any_hit_the_figures_are_zero(
    gold: list[str], predicted: list[str], right: float, strict: bool
) -> None:
    """No entities at all, none predicted, none well-formed: never a nan, an error or a warning."""
    found = entity_metrics([predicted], [gold], LABELS, strict)
    assert found.pop("accuracy") == right
    assert set(found) == {
        "f1", "precision", "recall", "f1_macro", "f1/LOC", "f1/PER", "precision/LOC", "precision/PER", "recall/LOC",
        "recall/PER",
    }  # fmt: skip
    assert set(found.values()) == {0.0}


def test_a_type_that_is_never_predicted_scores_zero() -> None:
    found = entity_metrics([["B-LOC", "O"]], [["B-LOC", "B-PER"]], LABELS)
    assert (found["f1/LOC"], found["f1/PER"], found["precision/PER"], found["recall/PER"]) == (1.0, 0.0, 0.0, 0.0)
    assert (found["precision"], found["recall"], found["f1_macro"]) == (1.0, 0.5, 0.5)


@pytest.mark.parametrize("strict", [False, True])
def test_tags_that_are_no_part_of_an_entity_count_for_the_accuracy_only(strict: bool) -> None:
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC", "PAD"), (1,) * 4)
    gold, predicted = [["O", "PAD", "O", "B-LOC"]], [["O", "PAD", "PAD", "O"]]
    found = entity_metrics(predicted, gold, labels, strict)
    assert (found["f1"], found["f1_macro"], found["accuracy"]) == (0.0, 0.0, 0.5)
    assert entity_counts(predicted, gold, labels, strict).tolist() == [[[0, 1, 0]]]
    found = entity_metrics(gold, gold, labels, strict)
    assert found["f1"] == found["f1/LOC"] == found["f1_macro"] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_spans_are_the_entities_of_seqeval(seed: int) -> None:
    for tags in random_tags(seed)[0]:
        assert spans(tags) == [(kind, first, last + 1) for kind, first, last in get_entities(tags)]


def test_surface_forms_are_whole_entities() -> None:
    """By them a run tells entities that it knows from training."""
    texts = [["to", "New", "York"], ["Rome", "and", "New", "York"]]
    assert surfaces(texts, [[0, 1, 2], [3, 0, 1, 2]], LABELS) == ["New York", "Rome"]


@pytest.mark.parametrize("strict", [False, True])
def test_tables_of_a_page_count_the_entities_of_its_figures(strict: bool) -> None:
    gold, predicted = random_tags(3)
    rows = [{"words": ["w"] * len(own), "label": own, "predicted": other, "scores": []}
            for own, other in zip(gold, predicted, strict=True)]  # fmt: skip
    right, true, given = entity_counts(predicted, gold, LABELS, strict).sum(axis=(0, 1))
    shares = by_surface(rows, {"w"}, strict)
    assert [sum(one[key] for one in shares) for key in ("found", "true", "predicted")] == [right, true, given]
    counts, *_ = error_matrix(rows, ["LOC", "PER"], strict)
    assert (np.trace(counts[:2, :2]), counts[:2].sum()) == (right, true)
    found = [(one["score"], range(one["from"], one["to"] + 1)) for one in length_bins(rows, LABELS, strict)]
    true_of = [(len(spans(row["label"], strict)), len(row["words"])) for row in rows]
    hits = [score * sum(count for count, length in true_of if length in lengths) for score, lengths in found]
    assert sum(hits) == pytest.approx(right)
