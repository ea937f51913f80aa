"""Temperature, reliability, label errors and baselines."""

import numpy as np
import pytest

from thaw.labels import LabelSet
from thaw.metrics.baselines import bag_of_words, frequent_tags, majority
from thaw.metrics.calibration import confidence, expected_calibration_error, fit_temperature, reliability, selective
from thaw.metrics.label_errors import likely_label_errors, likely_tag_errors
from thaw.metrics.probabilities import sigmoid, softmax


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


def test_flipped_labels_are_found_first() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 3, 300)
    probabilities = softmax(generator.normal(size=(300, 3)) + 4 * np.eye(3)[true])
    gold = true.copy()
    flipped = generator.choice(300, 15, replace=False)
    gold[flipped] = (gold[flipped] + 1) % 3
    found = likely_label_errors(probabilities, gold)
    assert set(found.tolist()) <= set(flipped.tolist())
    assert len(found) >= 12


def test_words_with_a_wrong_tag_are_found_first() -> None:
    gold = np.array([0, 0, 0, 1, 1, 1, 0])
    predicted = np.array([0, 0, 0, 1, 1, 1, 1])
    sure = np.array([0.9, 0.8, 0.9, 0.9, 0.8, 0.7, 0.95])
    own = np.where(gold == predicted, sure, 0.02)
    assert likely_tag_errors(sure, own, predicted, gold).tolist() == [6]


def test_a_tag_that_no_word_bears_is_no_ground_for_suspicion() -> None:
    """As for rows: there is no probability of it that would be high."""
    gold, predicted = np.array([0, 0, 1]), np.array([0, 0, 2])
    assert not len(likely_tag_errors(np.array([0.9, 0.9, 0.4]), np.array([0.9, 0.9, 0.35]), predicted, gold))


def test_baselines_of_sequences() -> None:
    labels = LabelSet("sequence", ("bad", "good", "odd"), (2, 4, 0), "", 6)
    texts, gold = ["a dull film", "dull indeed", "a good film", "good", "so good", "good fun"], [0, 0, 1, 1, 1, 1]
    assert majority(labels).argmax() == 1
    logits = bag_of_words(texts, gold, ["dull", "a good one", ""], labels)
    assert logits.argmax(-1).tolist() == [0, 1, 1]
    assert np.isfinite(logits).all()


def test_a_sample_of_one_class_is_no_end_of_a_baseline() -> None:
    """Of many rows a part is learnt from, which may lack what is rare."""
    labels = LabelSet("sequence", ("bad", "good"), (1, 3), "", 4)
    assert (bag_of_words(["fun", "good"], [1, 1], ["dull"], labels) == majority(labels)).all()


def test_baselines_of_several_labels() -> None:
    labels = LabelSet("multi_label", ("always", "fun", "never"), (4, 2, 0), "", 4)
    texts, gold = ["good fun", "fun", "dull", "grey"], [[0, 1], [0, 1], [0], [0]]
    assert (majority(labels) > 0).tolist() == [True, False, False]
    logits = bag_of_words(texts, gold, ["such fun", "grey"], labels)
    assert (logits > 0).tolist() == [[True, True, False], [True, False, False]]


def test_the_most_frequent_tag_of_a_word() -> None:
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC"), (5, 3, 0), "", 3)
    first, second = frequent_tags(
        [["in", "Paris"], ["Paris", "Hilton"], ["Paris"]], [[0, 1], [0, 0], [1]], [["Paris", "in", "Oslo"], []], labels
    )
    assert first.argmax(-1).tolist() == [1, 0, 0]
    assert second.shape == (0, 3)
