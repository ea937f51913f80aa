"""Figures against scikit-learn and torchmetrics on random predictions."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from thaw.labels import LabelSet
from thaw.metrics.calibration import expected_calibration_error
from thaw.metrics.classification import (
    best_thresholds,
    multi_label_metrics,
    one_against_rest_auc,
    sequence_metrics,
    tag_metrics,
)
from thaw.metrics.probabilities import sigmoid, softmax

NAMES = ("joy", "anger", "fear", "love")
LABELS = LabelSet("sequence", NAMES, (1,) * 4, rows=4)
SEVERAL = LabelSet("multi_label", NAMES, (1,) * 4, rows=4)


def random_rows(labels: int, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right about half of the time, and true ids; every label occurs."""
    generator = np.random.default_rng(seed)
    gold = generator.permutation(np.arange(rows) % labels)
    logits = generator.normal(size=(rows, labels)) + np.eye(labels)[gold]
    return softmax(logits), gold


def average(kind: str, gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    options = {"average": kind, "zero_division": 0.0}
    return {
        f"f1_{kind}": metrics.f1_score(gold, predicted, **options),
        f"precision_{kind}": metrics.precision_score(gold, predicted, **options),
        f"recall_{kind}": metrics.recall_score(gold, predicted, **options),
    }


def by_label(gold: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    report = metrics.classification_report(
        gold, predicted, labels=range(len(names)), target_names=names, output_dict=True, zero_division=0.0
    )
    kinds = {"f1": "f1-score", "precision": "precision", "recall": "recall"}
    return {f"{kind}/{name}": report[name][column] for kind, column in kinds.items() for name in names}


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_single_label_figures_are_those_of_scikit_learn(labels: int, seed: int) -> None:
    probabilities, gold = random_rows(labels, seed=seed)
    predicted, names = probabilities.argmax(-1), NAMES[:labels]
    auc = {"multi_class": "ovr", "average": "macro"} if labels > 2 else {}
    expected = {
        "accuracy": metrics.accuracy_score(gold, predicted),
        "f1": metrics.f1_score(gold, predicted, average="macro"),
        "auc": metrics.roc_auc_score(gold, probabilities if labels > 2 else probabilities[:, 1], **auc),
        "mcc": metrics.matthews_corrcoef(gold, predicted),
        "ece": float(multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(gold), labels, 15)),
        **average("macro", gold, predicted),
        **average("weighted", gold, predicted),
        **by_label(gold, predicted, names),
    }
    found = sequence_metrics(probabilities, gold, LabelSet("sequence", names, (1,) * labels, rows=labels))
    assert found == pytest.approx(expected, abs=1e-7)


def test_a_label_that_occurs_nowhere_has_no_figures_and_no_share_in_the_averages() -> None:
    """As scikit-learn has it when it is not told the labels."""
    probabilities, gold = random_rows(4)
    probabilities = np.delete(probabilities, 3, axis=1)[gold != 3]
    probabilities = np.column_stack([probabilities, np.zeros(len(probabilities))])
    gold = gold[gold != 3]
    found = sequence_metrics(probabilities, gold, LABELS)
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(gold, probabilities.argmax(-1), average="macro"))
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == {"f1/love", "precision/love", "recall/love"}
    areas = [metrics.roc_auc_score(gold == i, probabilities[:, i]) for i in range(3)]
    assert found["auc"] == pytest.approx(np.mean(areas))
    said = np.eye(4)[[3, 1, 1, 0]]  # love, which no row is
    assert sequence_metrics(said, np.array([0, 1, 1, 0]), LABELS)["f1/love"] == 0


@pytest.mark.filterwarnings("error")
def test_a_single_label_everywhere_needs_no_warning() -> None:
    found = sequence_metrics(np.eye(4)[[0, 0, 0]], np.array([0, 0, 0]), LABELS)
    assert (found["accuracy"], found["f1"], found["mcc"]) == (1, 1, 0)


def test_a_single_label_has_no_auc() -> None:
    probabilities, gold = random_rows(4)
    assert not np.isnan(one_against_rest_auc(probabilities, np.minimum(gold, 1)))
    assert np.isnan(one_against_rest_auc(probabilities, np.zeros_like(gold)))
    assert np.isnan(one_against_rest_auc(probabilities[:, :2], np.zeros_like(gold)))


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.9 sure and half right, 0.6 sure and always right."""
    error = expected_calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True]))
    assert error == pytest.approx((abs(0.9 - 0.5) + abs(0.6 - 1.0)) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_figures_are_those_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 2, (100, 4))
    probabilities = sigmoid(generator.normal(size=(100, 4)) + gold)
    thresholds = [0.4, 0.5, 0.6, 0.7]
    predicted = (probabilities >= thresholds).astype(int)
    micro = average("micro", gold, predicted)
    expected = {
        "f1": micro["f1_micro"],
        **micro,
        **average("macro", gold, predicted),
        "subset_accuracy": metrics.accuracy_score(gold, predicted),
        "map": metrics.average_precision_score(gold, probabilities, average="macro"),
        **by_label(gold, predicted, NAMES),
    }
    assert multi_label_metrics(probabilities, gold, thresholds, SEVERAL) == pytest.approx(expected)


def test_a_task_of_one_label_scores_having_it_and_not_lacking_it() -> None:
    """Two of three hits, one miss; scikit-learn would take the single column for two classes."""
    gold = np.array([[1], [1], [1], [0], [0], [0], [0], [0]])
    probabilities = np.array([[0.9], [0.5], [0.1], [0.7], [0.2], [0.2], [0.2], [0.2]])  # one just at the threshold
    found = multi_label_metrics(probabilities, gold, [0.5], LabelSet("multi_label", ("toxic",), (3,), rows=8))
    for name in ("f1", "f1_micro", "f1_macro", "precision_micro", "recall_macro", "f1/toxic", "recall/toxic"):
        assert found[name] == pytest.approx(2 / 3)
    assert found["subset_accuracy"] == 6 / 8


def test_map_leaves_out_labels_that_never_occur() -> None:
    gold, probabilities = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.8], [0.1, 0.7]])
    labels = LabelSet("multi_label", NAMES[:2], (1, 0), rows=2)
    found = multi_label_metrics(probabilities, gold, [0.5, 0.5], labels)
    assert found["map"] == 1.0
    assert (found["f1/anger"], found["f1_macro"]) == (0.0, 0.5), "though it was given to both rows"
    assert np.isnan(multi_label_metrics(probabilities, gold * 0, [0.5, 0.5], labels)["map"])


@pytest.mark.parametrize("seed", range(20))
def test_best_thresholds_give_the_best_smoothed_f1_there_is(seed: int) -> None:
    """Against every threshold that makes a difference; few distinct scores, so that many are equal."""

    def smoothed(gold: np.ndarray, chosen: np.ndarray) -> float:
        return float((2 * (gold & chosen).sum() + 1) / (gold.sum() + chosen.sum() + 1))

    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 2, (30, 3))
    scores = generator.choice([0.0, 0.1, 0.35, 0.5, 0.75, 1 - 2**-53, 1.0], (30, 3))
    for column, threshold in enumerate(best_thresholds(scores, gold)):
        best = max(smoothed(gold[:, column], scores[:, column] >= cut) for cut in np.unique(scores[:, column]))
        assert smoothed(gold[:, column], scores[:, column] >= threshold) == pytest.approx(best)


@pytest.mark.parametrize(("rare", "given"), [(1, 1), (2, 1), (60, 60)])
def test_a_rare_label_is_not_given_to_nearly_every_row(rare: int, given: int) -> None:
    """Though that has the best F1 where the true rows are ranked last, or nearly so."""
    scores = np.linspace(0.9, 0.1, 100)[:, None]
    last = np.arange(100)[:, None] >= 100 - rare if rare < 60 else np.arange(100)[:, None] < rare
    (threshold,) = best_thresholds(scores, last.astype(np.int64))
    assert (scores >= threshold).sum() == given


def test_the_best_threshold_lies_between_the_rows_it_parts() -> None:
    scores = np.array([[0.9, 0.3, 0.8], [0.8, 0.2, 0.4], [0.3, 0.1, 0.6]])
    gold = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1]])  # the second label never occurs, the third everywhere
    assert best_thresholds(scores, gold) == pytest.approx([0.55, 0.5, 0.2])


def test_the_best_threshold_parts_neighbouring_floats() -> None:
    """Saturated probabilities: the middle of two neighbours is one of them."""
    upper = 1 - 2**-53
    lower = np.nextafter(upper, 0)
    for pair in ([upper, lower], [1.0, upper]):
        (threshold,) = best_thresholds(np.array([[pair[0]], [pair[1]]]), np.array([[1], [0]]))
        assert pair[0] >= threshold > pair[1]


def test_probabilities_of_extreme_logits_are_finite() -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    assert softmax(logits).tolist() == [[1.0, 0.0, 0.0]]
    assert sigmoid(logits).tolist() == [[1.0, 0.0, 0.5]]


def test_tag_figures_are_those_of_scikit_learn() -> None:
    probabilities, gold = random_rows(4)
    predicted = probabilities.argmax(-1)
    found = tag_metrics(predicted, gold, LabelSet("token", NAMES, (1,) * 4))
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(gold, predicted),
            "f1": metrics.f1_score(gold, predicted, average="macro"),
            **average("macro", gold, predicted),
            **average("weighted", gold, predicted),
            **by_label(gold, predicted, NAMES),
        }
    )
