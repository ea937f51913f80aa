"""From batches to the figures of a whole split."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from thaw.errors import UserError
from thaw.labels import IGNORED, LabelSet
from thaw.metrics.outputs import Outputs, compute_metrics, metric_names
from thaw.metrics.probabilities import averaged
from thaw.metrics.scorers import scorer
from thaw.models.losses import make_loss

SEQUENCE = LabelSet("sequence", ("joy", "anger", "fear"), (1, 1, 1), rows=3)
SEVERAL = LabelSet("multi_label", ("joy", "anger", "fear"), (1, 1, 1), rows=3)
ENTITIES = LabelSet("token", ("O", "B-PER", "I-PER"), (1, 1, 1))
TAGS = LabelSet("token", ("NOUN", "VERB", "ADJ"), (1, 1, 1))
LOSS = {"class_weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0}


def sequence_batch(rows: list[int]) -> Outputs:
    """Row 4 has the logits 4, 5, 6 and so on, and a label of its own."""
    number = torch.tensor(rows)
    logits = number[:, None] + torch.arange(3.0)
    return Outputs.of_batch({"rows": number, "labels": number % 3}, logits)


def token_batch(rows: list[int], lengths: list[int], kept: list[int]) -> Outputs:
    """Sentences of some words, of which the first few have tokens; each has two, between two special ones, and its
    logits name the word.
    """
    words = torch.full((len(rows), 2 * max(kept) + 2), -1)
    tags = torch.full((len(rows), max(lengths)), IGNORED)
    logits = torch.zeros((*words.shape, 3))
    for row, (length, own) in enumerate(zip(lengths, kept, strict=True)):
        words[row, 1 : 2 * own + 1 : 2] = torch.arange(own)
        tags[row, :length] = 1
        logits[row, :, 1] = torch.arange(words.shape[1])
    return Outputs.of_batch(
        {"rows": torch.tensor(rows), "sentences": torch.tensor(rows), "words": words, "tags": tags}, logits
    )


def test_join_restores_the_order_of_rows() -> None:
    joined = Outputs.join([sequence_batch([4, 1]), sequence_batch([0, 3]), sequence_batch([2])])
    assert joined.rows.tolist() == [0, 1, 2, 3, 4]
    assert joined.logits[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert joined.gold.tolist() == [0, 1, 2, 0, 1]


def test_join_restores_the_order_of_sentences() -> None:
    joined = Outputs.join([token_batch([2, 0], [3, 1], [3, 1]), token_batch([1], [2], [2])])
    assert joined.rows.tolist() == [0, 1, 2]
    assert [len(row) for row in joined.gold] == [1, 2, 3]
    assert [row.tolist() for row in joined.words] == [[0], [0, 1], [0, 1, 2]]
    assert [row[:, 1].tolist() for row in joined.logits] == [[1], [1, 3], [1, 3, 5]]  # of the first sub-tokens


def test_join_puts_the_windows_of_a_sentence_together() -> None:
    whole = token_batch([7], [5], [5])
    parts = [
        replace(whole, logits=[whole.logits[0][own]], words=[whole.words[0][own]])
        for own in (slice(4, 5), slice(0, 2), slice(2, 4))
    ]
    joined = Outputs.join([parts[0], token_batch([3], [1], [1]), *parts[1:]])
    assert joined.rows.tolist() == [3, 7]
    assert [len(row) for row in joined.gold] == [1, 5]
    assert joined.words[1].tolist() == [0, 1, 2, 3, 4]
    assert joined.logits[1].tolist() == whole.logits[0].tolist()


def test_words_without_a_token_count_as_outside() -> None:
    outputs = token_batch([0], [5], [2])
    (tags,) = outputs.tags(ENTITIES)
    assert [ENTITIES.names[i] for i in tags] == [ENTITIES.names[1]] * 2 + ["O"] * 3
    assert compute_metrics(outputs, ENTITIES)["accuracy"] == 2 / 5


def test_words_without_a_token_are_wrong_where_no_tag_is_outside() -> None:
    outputs = token_batch([0], [5], [2])
    outputs.gold[0][2:] = 0  # the id that was once taken for outside
    found, resampled = compute_metrics(outputs, TAGS), scorer(outputs, TAGS)(np.ones((1, 1)))
    first, second = TAGS.names[:2]
    assert (found["accuracy"], found[f"recall/{first}"], found[f"recall/{second}"]) == (2 / 5, 0, 1)
    assert found["f1_macro"] == 1 / 2  # of the two tags that occur
    for name in ("accuracy", "f1_macro", "f1_weighted", "precision_macro"):
        assert resampled[name][0] == pytest.approx(found[name])


def test_the_loss_is_that_of_all_words_at_once() -> None:
    """Sentences of different length: a mean over batches would be another figure."""
    outputs = Outputs.join([token_batch([0], [1], [1]), token_batch([1, 2], [4, 3], [4, 2])])
    logits = torch.tensor(np.concatenate(outputs.logits))
    expected = torch.nn.functional.cross_entropy(logits, torch.ones(7, dtype=torch.long))
    assert outputs.loss(make_loss(LOSS, ENTITIES)) == pytest.approx(float(expected))


def test_the_loss_is_that_of_all_rows_at_once() -> None:
    parts = [sequence_batch([0, 1]), sequence_batch([2])]
    logits, gold = torch.arange(3.0)[:, None] + torch.arange(3.0), torch.tensor([0, 1, 2])
    expected = float(torch.nn.functional.cross_entropy(logits, gold))
    assert Outputs.join(parts).loss(make_loss(LOSS, SEQUENCE)) == pytest.approx(expected)


def test_thresholds_are_the_best_for_these_rows_unless_given() -> None:
    logits, gold = np.array([[2.0, -1.0, 0.0], [1.0, -2.0, 0.0]]), np.array([[1, 1, 0], [0, 0, 0]])
    outputs = Outputs(np.arange(2), logits, gold)
    assert compute_metrics(outputs, SEVERAL)["f1/anger"] == 1.0
    assert compute_metrics(outputs, SEVERAL, thresholds=[0.5, 0.5, 0.9])["f1/anger"] == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_say_that_training_diverged(value: float) -> None:
    for outputs, labels in ((sequence_batch([0, 1]), SEQUENCE), (token_batch([0], [2], [2]), ENTITIES)):
        outputs.logits[0][0] = value
        with pytest.raises(UserError, match="training has diverged"):
            compute_metrics(outputs, labels)


@pytest.mark.parametrize("labels", [SEQUENCE, SEVERAL, ENTITIES, TAGS], ids=["sequence", "several", "entities", "tags"])
def test_the_names_are_those_of_the_figures(labels: LabelSet) -> None:
    rows = {"sequence": sequence_batch([0, 1, 2]), "token": token_batch([0], [3], [2])}
    several = Outputs(np.arange(2), np.zeros((2, 3)), np.array([[1, 1, 0], [0, 0, 0]]))
    assert metric_names(labels) == list(compute_metrics(rows.get(labels.task, several), labels))


def test_the_windows_of_each_text_are_averaged() -> None:
    values = np.array([[1, 2], [3, 4], [5, 6], [0, 9]], dtype=np.float32)
    means = averaged(values, np.array([0, 1, 1, 2]))
    assert means.tolist() == [[1, 2], [4, 5], [0, 9]]
    assert means.dtype == np.float32


def test_windows_of_one_text_in_several_batches_are_one_row() -> None:
    """As two processes read them: text 1 is in three windows."""
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [0.0, 3.0, 0.0]])
    sentences, labels = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 1])
    parts = []
    for index in ([3, 0], [2, 1]):
        batch = {"rows": torch.tensor(index), "sentences": sentences[index], "labels": labels[index]}
        parts.append(Outputs.of_batch(batch, logits[index]))
    joined = Outputs.join(parts)
    assert joined.rows.tolist() == [0, 1]
    assert joined.gold.tolist() == [0, 1]
    np.testing.assert_allclose(joined.logits, [[1, 0, 0], [0, 2, 1]])
