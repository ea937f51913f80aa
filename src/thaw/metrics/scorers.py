"""Metrics as functions of row weights, for fast resampling.

A resample is a weight for each row: how often it is drawn. Every metric here is computed from such weights, so that a
thousand resamples take a few matrix products instead of a thousand evaluations.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from thaw.labels import UNREAD, LabelSet
from thaw.metrics.calibration import BINS, bins_of, confidence
from thaw.metrics.entities import entity_counts
from thaw.metrics.probabilities import probabilities

if TYPE_CHECKING:
    from thaw.metrics.outputs import Outputs  # importing it at run time would import torch

Scorer = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights (resamples, rows) to the metrics of each resample."""


def scorer(
    outputs: "Outputs", labels: LabelSet, *, strict: bool = False, thresholds: Sequence[float] | None = None
) -> Scorer:
    """The headline metrics of a task as a function of weights; with weights of one, those of `compute_metrics`.

    Args:
        thresholds: of a multi-label task; else 0.5.
    """
    if labels.task == "token":
        return word_scorer(outputs.gold, outputs.tags(labels), labels, strict)
    scores = probabilities(outputs.logits, labels)
    if labels.task == "multi_label":
        limits = thresholds if thresholds is not None else [0.5] * len(labels)
        return label_scorer(outputs.gold.astype(bool), scores >= np.asarray(limits), scores, labels)
    same = np.eye(len(labels), dtype=bool)
    return label_scorer(same[outputs.gold], same[scores.argmax(-1)], scores, labels)


def label_scorer(truth: np.ndarray, chosen: np.ndarray, scores: np.ndarray, labels: LabelSet) -> Scorer:
    """The scorer of a sequence or multi-label task.

    Args:
        truth, chosen: whether each label is true, and whether it is predicted, (rows, labels).
        scores: probabilities, (rows, labels).
    """
    counts = np.stack([chosen & truth, truth, chosen], axis=-1)
    exact, ones = (chosen == truth).all(axis=1), np.ones(len(truth))
    if labels.task == "multi_label":
        averages = {"_micro": "micro", "_macro": "macro"}
        return _counted(
            counts, {"subset_accuracy": (exact, ones)}, averages, _areas("map", average_precision, truth, scores)
        )
    averages = {"_macro": "macro", "_weighted": "weighted"}
    areas = _areas("auc", auc, truth, scores)
    return _counted(counts, {"accuracy": (exact, ones)}, averages, areas, mcc=True)


def word_scorer(gold: Sequence[np.ndarray], predicted: Sequence[np.ndarray], labels: LabelSet, strict: bool) -> Scorer:
    """The scorer of a token task.

    Args:
        gold, predicted: the tag ids of each sentence.
        strict: as the setting ``strict_iob2``.
    """
    right = {"accuracy": words_right(gold, predicted)}
    if not labels.entities:
        counts = np.stack([_tag_counts(own, other, len(labels)) for own, other in zip(gold, predicted, strict=True)])
        return _counted(counts, right, {"_macro": "macro", "_weighted": "weighted"}, {})
    names = np.array([*labels.names, "O"])  # the last for `UNREAD`
    counts = entity_counts([names[row] for row in predicted], [names[row] for row in gold], labels, strict)
    return _counted(counts, right, {"": "micro", "_macro": "macro"}, {}, f1_only_macro=True)


def words_right(gold: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """In each sentence, the number of words with the right tag, and of all words."""
    right = np.array([(own == other).sum() for own, other in zip(gold, predicted, strict=True)])
    return right, np.array([len(own) for own in gold])


def _areas(
    name: str, rank: Callable[..., tuple[float, np.ndarray]], truth: np.ndarray, scores: np.ndarray
) -> dict[str, tuple[float, np.ndarray]]:
    """The mean area over all labels that occur (for ``auc``, but not in every row); empty if there is none."""
    occurs = truth.any(axis=0) & ~truth.all(axis=0) if name == "auc" else truth.any(axis=0)
    each = [rank(truth[:, i], scores[:, i]) for i in np.flatnonzero(occurs)]
    if not each:
        return {}
    return {name: (float(np.mean([area for area, _ in each])), np.mean([slope for _, slope in each], axis=0))}


def _tag_counts(gold: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """(labels, 3): the correct, true and predicted words of each label in one sentence."""
    given = predicted[predicted != UNREAD]
    words = (gold[gold == predicted], gold, given)
    return np.stack([np.bincount(own, minlength=size) for own in words], axis=-1)


def _counted(
    counts: np.ndarray,
    shares: dict[str, tuple[np.ndarray, np.ndarray]],
    averages: dict[str, str],
    areas: dict[str, tuple[float, np.ndarray]],
    *,
    mcc: bool = False,
    f1_only_macro: bool = False,
) -> Scorer:
    """A scorer from what each row contributes to the metrics.

    Args:
        counts: (rows, labels, 3): correct, true and predicted.
        shares: metric -> (hits, total), each (rows,).
        averages: suffix of the metrics -> micro, macro or weighted; ``f1`` is that of the first.
        areas: ``auc`` or ``map`` -> (value, its derivative by the weight of each row). Sorting all rows again for each
            resample would take minutes; the first-order expansion differs from it in the fourth digit.
        mcc: also give Matthews' correlation coefficient.
        f1_only_macro: leave out precision and recall of the macro average, as for entities.
    """
    rows, size, _ = counts.shape
    table = sparse.csr_array(counts.reshape(rows, size * 3).astype(np.float64))

    def score(weights: np.ndarray) -> dict[str, np.ndarray]:
        right, true, predicted = np.moveaxis((weights @ table).reshape(-1, size, 3), -1, 0)
        result = {name: (weights @ hits) / (weights @ total) for name, (hits, total) in shares.items()}
        for suffix, average in averages.items():
            values = _average(right, true, predicted, average)
            for name, value in zip(("f1", "precision", "recall"), values, strict=True):
                if name == "f1" or suffix != "_macro" or not f1_only_macro:
                    result[f"{name}{suffix}"] = value
        result.setdefault("f1", result[f"f1{next(iter(averages))}"])
        if mcc:
            drawn = true.sum(-1)
            both = right.sum(-1) * drawn - (true * predicted).sum(-1)
            spread = (drawn**2 - (true**2).sum(-1)) * (drawn**2 - (predicted**2).sum(-1))
            result["mcc"] = np.divide(both, np.sqrt(spread), out=np.zeros_like(both), where=spread > 0)
        for name, (area, slope) in areas.items():
            result[name] = np.clip(area + (weights - 1) @ slope, 0, 1)
        return result

    return score


def _average(
    right: np.ndarray, true: np.ndarray, predicted: np.ndarray, average: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1, precision and recall; 0 if a label is never predicted or never right, as in the rest of `thaw.metrics`.

    The macro average leaves out labels that neither occur nor are predicted.
    """
    if average == "micro":
        right, true, predicted = (one.sum(-1, keepdims=True) for one in (right, true, predicted))
    values = [_ratio(2 * right, true + predicted), _ratio(right, predicted), _ratio(right, true)]
    weights = true if average == "weighted" else (true + predicted > 0).astype(np.float64)
    total = weights.sum(-1)
    f1, precision, recall = ((value * weights).sum(-1) / np.where(total, total, 1) for value in values)
    return f1, precision, recall


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def auc(truth: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """The area under the ROC curve, and its derivative by the weight of each row (DeLong et al. 1988).

    Args:
        truth, scores: (rows,).
    """
    order, first, last = _ranked(scores)
    true = truth[order]
    hits = np.cumsum(true)
    misses = np.arange(1, len(true) + 1) - hits
    total, others = hits[-1], misses[-1]
    # The share of rows of the other class that a row is ranked correctly against; a tie counts as half.
    above = (hits[last] + hits[first] - true[first]) / 2 / total
    below = 1 - (misses[last] + misses[first] - ~true[first]) / 2 / others
    area = float(below[true].mean())
    slope = np.empty(len(true))
    slope[order] = np.where(true, (below - area) / total, (above - area) / others)
    return area, slope


def average_precision(truth: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """The average precision (the mean precision at the rows with the label), and its derivative as for `auc`."""
    order, first, last = _ranked(scores)
    true = truth[order]
    hits, seen = np.cumsum(true)[last], np.arange(1, len(true) + 1)[last]
    precision, total = hits / seen, true.sum()
    average = float(precision[true].mean())
    # A row affects the precision at its own rank and at all ranks below.
    below = np.cumsum((true / seen)[::-1])[::-1][first]
    lost = np.cumsum((true * precision / seen)[::-1])[::-1][first]
    slope = np.empty(len(true))
    slope[order] = (true * (precision - average + below) - lost) / total
    return average, slope


def _ranked(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers by descending score, and for each rank the first and the last rank with the same score."""
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    return order, np.searchsorted(falling, falling, "left"), np.searchsorted(falling, falling, "right") - 1


def calibration_scorer(
    outputs: "Outputs", labels: LabelSet, temperature: float = 1.0
) -> Callable[[np.ndarray], np.ndarray]:
    """The expected calibration error as a function of weights (resamples, rows)."""
    logits, gold = outputs.flat()
    sure, correct = confidence(probabilities(logits / temperature, labels), gold)
    position = bins_of(sure)
    each = max(len(sure) // max(len(gold), 1), 1)  # the labels of a text count separately
    gaps = np.stack(
        [by_row(outputs, ((sure - correct) * (position == i)).reshape(-1, each).sum(1)) for i in range(BINS)]
    )
    sizes = by_row(outputs, np.full(len(gold), each))
    return lambda weights: np.abs(weights @ gaps.T).sum(-1) / (weights @ sizes)


def by_row(outputs: "Outputs", values: np.ndarray) -> np.ndarray:
    """Values for each entry of ``outputs.flat()``, summed by row: for token tasks, over the words of each sentence."""
    if not outputs.words:
        return np.asarray(values, dtype=np.float64)
    owners = np.repeat(np.arange(len(outputs.rows)), [len(words) for words in outputs.words])
    return np.bincount(owners, values, minlength=len(outputs.rows))
