"""Temperature, reliability, label errors and baselines."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thaw.labels import LabelSet, Task
from thaw.metrics import baselines
from thaw.metrics.baselines import bag_of_words, baseline_metrics, baseline_outputs, frequent_tags, majority
from thaw.metrics.calibration import confidence, expected_calibration_error, fit_temperature, reliability, selective
from thaw.metrics.label_noise import likely_label_errors, likely_tag_errors
from thaw.metrics.outputs import Outputs
from thaw.metrics.probabilities import sigmoid, softmax
from thaw.scoring import fit_on_validation, score_baselines


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    generator = np.random.default_rng(0)
    honest = 2 * generator.normal(size=(20_000, 3))
    gold = np.array([generator.choice(3, p=row) for row in softmax(honest)])
    assert fit_temperature(honest * temperature, gold) == pytest.approx(temperature, rel=0.05)
    before = expected_calibration_error(*confidence(softmax(honest * 3), gold))
    after = expected_calibration_error(*confidence(softmax(honest), gold))
    assert after < 0.01 < before


def test_the_most_confident_predictions_are_counted_with_those_of_the_same_score() -> None:
    sure = np.array([0.9, 0.5, 0.8, 0.7, 0.7, 0.6, 0.95, 0.7, 0.99, 0.4])
    correct = np.array([True, False, True, False, True, False, True, True, True, False])
    found = [(part["score"], part["rows"], part["right"]) for part in selective(sure, correct)]
    assert found == [(0.4, 10, 6), (0.5, 9, 6), (0.6, 8, 6), (0.7, 7, 6)]
    assert selective(np.array([0.5]), np.array([True])) == [{"score": 0.5, "rows": 1, "right": 1}]
    few = selective(np.array([0.7, 0.9, 0.8]), np.array([True, True, True]))
    assert [part["rows"] for part in few] == [3, 2], "half of three rows is two of them"


@pytest.mark.parametrize("rows", [2, 44, 1_000])
def test_rows_without_a_mistake_make_as_sure_as_their_number_allows(rows: int) -> None:
    """Not certain, and not left as unsure as the network may be: of n right ones one more is right with n+1 in n+2."""
    logits = np.tile([[0.5, -0.5], [-0.5, 0.5]], (rows // 2, 1))
    gold = np.tile([0, 1], rows // 2)
    sure = (rows + 1) / (rows + 2)
    assert softmax(logits / fit_temperature(logits, gold)).max(-1) == pytest.approx(sure, abs=1e-4)
    each = sigmoid(logits / fit_temperature(logits, np.eye(2, dtype=np.int64)[gold]))
    assert each.max(-1) == pytest.approx(sure, abs=1e-4)
    assert fit_temperature(logits, np.zeros_like(gold)) > 5


def test_labels_that_do_not_exclude_one_another_have_a_temperature_too() -> None:
    generator = np.random.default_rng(0)
    honest = 2 * generator.normal(size=(5_000, 4))
    truth = (generator.random(honest.shape) < sigmoid(honest)).astype(np.int64)
    assert fit_temperature(honest * 2, truth) == pytest.approx(2, rel=0.05)
    sure, true = confidence(sigmoid(honest), truth)
    assert sure.shape == true.shape == (20_000,)


def test_bins_add_up_and_give_the_error() -> None:
    generator = np.random.default_rng(0)
    sure = generator.random(500)
    sure[:50] = 1.0
    correct = generator.random(500) < sure**2
    correct[:10] = False
    sure[50:100], correct[50:100] = 0.95, True  # in the same bin, with the other sign
    bins = reliability(sure, correct)
    assert sum(one["rows"] for one in bins) == 500
    error = sum(one["rows"] * abs(one["confidence"] - one["accuracy"]) for one in bins) / 500
    assert error == pytest.approx(expected_calibration_error(sure, correct), abs=1e-6)
    few = reliability(np.array([0.9, 0.9, 0.6]), np.array([True, False, True]))
    assert [(one["rows"], one["accuracy"]) for one in few] == [(1, 1.0), (2, 0.5)], "none of the bins without a row"


def test_flipped_labels_are_found_first() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 3, 300)
    probabilities = softmax(generator.normal(size=(300, 3)) + 4 * np.eye(3)[true])
    gold = true.copy()
    flipped = generator.choice(300, 15, replace=False)
    gold[flipped] = (gold[flipped] + 1) % 3
    found, suggested = likely_label_errors(probabilities, gold)
    assert set(found.tolist()) <= set(flipped.tolist())
    assert len(found) >= 12
    assert suggested.tolist() == true[found].tolist()
    gaps = probabilities[found, true[found]] - probabilities[found, gold[found]]
    assert gaps.tolist() == sorted(gaps, reverse=True)


def test_words_with_a_wrong_tag_are_found_first() -> None:
    gold = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    predicted = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    sure = np.array([0.9, 0.8, 0.9, 0.9, 0.8, 0.7, 0.85, 0.95])
    own = np.where(gold == predicted, sure, 0.02)
    assert likely_tag_errors(sure, own, predicted, gold).tolist() == [7, 6]
    nothing = np.empty(0, dtype=np.int64)
    assert not len(likely_tag_errors(nothing, nothing, nothing, nothing))


def test_a_tag_that_no_word_bears_is_no_ground_for_suspicion() -> None:
    """As for rows: there is no probability of it that would be high."""
    gold, predicted = np.array([0, 0, 1]), np.array([0, 0, 2])
    assert not len(likely_tag_errors(np.array([0.9, 0.9, 0.4]), np.array([0.9, 0.9, 0.35]), predicted, gold))
    probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.1, 0.2, 0.7]])
    assert not len(likely_label_errors(probabilities, np.array([0, 1, 1]))[0])


def test_a_label_that_is_likelier_than_the_one_suggested_is_none_to_suspect() -> None:
    """The second row is as likely of the other class as rows of that class are, and still likelier of its own."""
    probabilities = np.array([[0.9, 0.1], [0.55, 0.45], [0.7, 0.3], [0.7, 0.3]])
    assert not len(likely_label_errors(probabilities, np.array([0, 0, 1, 1]))[0])


def test_baselines_of_sequences() -> None:
    labels = LabelSet("sequence", ("bad", "good", "odd"), (2, 4, 0), "", 6)
    texts, gold = ["a dull film", "dull indeed", "a good film", "good", "so good", "good fun"], [0, 0, 1, 1, 1, 1]
    assert majority(labels).argmax() == 1
    logits = bag_of_words(texts, gold, ["dull", "a good one", ""], labels)
    assert logits.argmax(-1).tolist() == [0, 1, 1]
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(("task", "label"), [("sequence", 1), ("multi_label", [1]), ("multi_label", [])])
def test_a_sample_of_one_class_is_no_end_of_a_baseline(task: Task, label: object) -> None:
    """Of many rows a part is learnt from, which may lack what is rare."""
    labels = LabelSet(task, ("bad", "good"), (1, 3), "", 4)
    assert (bag_of_words(["fun", "good"], [label] * 2, ["dull"], labels) == majority(labels)).all()


def test_what_a_baseline_learns_from_is_taken_from_all_over_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are often sorted by label."""
    monkeypatch.setattr(baselines, "ROWS", 9)
    labels = LabelSet("sequence", ("bad", "good", "odd"), (40, 40, 40), "", 120)
    texts, gold = ["dull"] * 40 + ["fun"] * 40 + ["strange"] * 40, np.repeat([0, 1, 2], 40).tolist()
    assert bag_of_words(texts, gold, ["strange", "fun", "dull"], labels).argmax(-1).tolist() == [2, 1, 0]
    monkeypatch.setattr(baselines, "ROWS", 1)
    assert (bag_of_words(texts, gold, ["fun"], labels) == majority(labels)).all(), "and of no more than so many"


@pytest.mark.parametrize("texts", [("oh !", "oh ?"), ("की ला", "का ली")], ids=["punctuation", "vowel signs"])
def test_signs_tell_texts_apart(texts: tuple[str, str]) -> None:
    labels = LabelSet("sequence", ("a", "b"), (5, 5), "", 10)
    logits = bag_of_words(texts * 5, [0, 1] * 5, texts, labels)
    assert logits.argmax(-1).tolist() == [0, 1]
    assert np.ptp(logits[0]) > 1


def test_baselines_of_several_labels() -> None:
    labels = LabelSet("multi_label", ("always", "fun", "never"), (4, 2, 0), "", 4)
    texts, gold = ["good fun", "fun", "dull", "grey"], [[0, 1], [0, 1], [0], [0]]
    assert (majority(labels) > 0).tolist() == [True, False, False]
    often = LabelSet("multi_label", ("a", "b", "c"), (3, 3, 1), "", 4)
    assert (majority(often) > 0).tolist() == [True, True, False], "more than half of the rows, not of the labels"
    logits = bag_of_words(texts, gold, ["such fun", "grey"], labels)
    assert (logits > 0).tolist() == [[True, True, False], [True, False, False]]


def test_the_most_frequent_tag_of_a_word() -> None:
    labels = LabelSet("token", ("B-LOC", "O", "I-LOC"), (3, 5, 0), "", 3)
    first, second = frequent_tags(
        [["in", "Paris"], ["Paris", "Hilton"], ["Paris"]], [[1, 0], [1, 1], [0]], [["Paris", "in", "Oslo"], []], labels
    )
    assert first.argmax(-1).tolist() == [0, 1, 1]
    assert np.exp(first).sum(-1) == pytest.approx(1, abs=1e-4), "of an unknown word too"
    assert second.shape == (0, 3)


def test_a_baseline_is_of_the_rows_and_labels_that_are_given() -> None:
    """It is kept for all runs on the same data, and for no others."""
    labels = LabelSet("sequence", ("bad", "good"), (2, 2), "", 4)
    texts, gold = ["dull", "grey", "fun", "glad"], [0, 0, 1, 1]
    rows = Outputs(np.arange(4), np.zeros((4, 2), dtype=np.float32), np.array(gold))

    def accuracy(own: list[int], key: str, known: LabelSet = labels) -> float:
        train, test = {"text": texts, "label": own}, {"text": texts, "label": gold}
        found = baseline_metrics(baseline_outputs(rows, train, test, known, [key, "rows"]), known, strict=False)
        assert {name for figures in found.values() for name in figures} == {
            "accuracy", "f1", "auc", "mcc", "ece",
            *(f"{name}_{kind}" for name in ("f1", "precision", "recall") for kind in ("macro", "weighted")),
        }, "none of a single label"  # fmt: skip
        return found[baselines.BAG_OF_WORDS]["accuracy"]

    assert accuracy(gold, "one") == 1.0
    assert accuracy([1, 1, 0, 0], "one") == 1.0, "from the cache"
    assert accuracy([1, 1, 0, 0], "other") == 0.0
    uneven = LabelSet("sequence", ("bad", "good"), (1, 3), "", 4)
    assert accuracy([1, 1, 1, 1], "one", uneven) == 0.5


def test_thresholds_are_not_fitted_to_the_rows_that_a_baseline_is_scored_on() -> None:
    labels = LabelSet("multi_label", ("rare",), (1,), "", 4)
    gold = np.array([[1], [0], [0], [0]])
    rows = Outputs(np.arange(4), np.where(gold, -1.0, -2.0).astype(np.float32), gold)
    train = {"text": ["fun", "dull", "grey", "odd"], "label": [[0], [], [], []]}
    found = baseline_metrics(baseline_outputs(rows, train, train, labels, ["rare", "rows"]), labels, strict=False)
    assert (found[baselines.UNTRAINED]["f1"], found[baselines.UNTRAINED]["map"]) == (0.0, 1.0)


@pytest.mark.parametrize(("strict", "expected"), [(True, 0.0), (False, 1.0)])
def test_entities_of_a_baseline_are_scored_as_strictly_as_those_of_the_run(strict: bool, expected: float) -> None:
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC"), (1, 1, 3), "", 3)
    words, tags = [["Rome", "York"], ["York", "is"], ["York"]], [[1, 2], [2, 0], [2]]
    rows = Outputs(np.arange(1), [np.zeros((1, 3), dtype=np.float32)], [np.array([1])], [np.arange(1)])
    train, test = {"text": words, "label": tags}, {"text": [["York"]], "label": [[1]]}
    found = baseline_metrics(baseline_outputs(rows, train, test, labels, []), labels, strict=strict)
    assert found[baselines.FREQUENT_TAGS]["f1"] == expected
    assert baselines.BAG_OF_WORDS not in found


def test_a_label_that_no_row_of_train_has_is_never_given() -> None:
    labels = LabelSet("multi_label", ("known", "new"), (5, 0), "", 9)
    predictor: Any = SimpleNamespace(labels=labels, thresholds=None, temperature=None)
    outputs = Outputs(np.arange(4), np.array([[2, 1], [1, 2], [-1, -2], [-2, -1]], dtype=np.float32),
                      np.array([[1, 0], [1, 1], [0, 0], [0, 0]]))  # fmt: skip
    known, new = fit_on_validation(predictor, outputs)["thresholds"]
    assert 0 < known < 1
    assert new == 1


def test_how_far_a_run_is_ahead_of_the_best_baseline_is_told_with_that_baseline() -> None:
    labels = LabelSet("sequence", ("a", "b"), (20, 20))
    gold = np.arange(40) % 2
    right, half = gold, np.where(np.arange(40) < 20, gold, 1 - gold)

    def outputs(predicted: np.ndarray) -> Outputs:
        return Outputs(np.arange(40), np.eye(2, dtype=np.float32)[predicted], gold)

    predictor: Any = SimpleNamespace(labels=labels, thresholds=None)
    beside = {"wrong": outputs(1 - gold), "half": outputs(half)}
    found = score_baselines(beside, predictor, outputs(right), {"strict_iob2": False})
    low, high = found["half"]["f1_ahead"]
    assert 0.2 < low < 0.5 < high < 0.8
    assert "f1_ahead" not in found["wrong"]
    low, high = score_baselines({"right": outputs(right)}, predictor, outputs(half), {"strict_iob2": False})["right"][
        "f1_ahead"
    ]
    assert low < high < 0
    assert score_baselines({}, predictor, outputs(right), {"strict_iob2": False}) == {}
