"""Metrics for one label per text, and for several."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from thaw.labels import LabelSet
from thaw.metrics.calibration import expected_calibration_error


def sequence_metrics(probabilities: np.ndarray, gold: np.ndarray, labels: LabelSet) -> dict[str, float]:
    """Metrics for one label per text, equal to scikit-learn's; averages leave out labels that occur nowhere.

    Args:
        probabilities: (rows, labels).
        gold: label ids (rows,).

    Returns:
        ``accuracy``, ``f1`` (the macro average), F1, precision and recall ``_macro`` and ``_weighted`` and by label
        (``f1/joy``), ``auc`` (one against the rest, mean over the labels that occur; nan if only one does), ``mcc``,
        ``ece``.
    """
    predicted = probabilities.argmax(-1)
    result = {"accuracy": float(metrics.accuracy_score(gold, predicted))}
    result |= _averages(gold, predicted, labels, ("macro", "weighted"))
    result["auc"] = one_against_rest_auc(probabilities, gold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # if all rows have one label it is 0, which needs no warning
        result["mcc"] = float(metrics.matthews_corrcoef(gold, predicted))
    result["ece"] = expected_calibration_error(probabilities.max(-1), predicted == gold)
    return result | _by_label(gold, predicted, labels)


def one_against_rest_auc(probabilities: np.ndarray, gold: np.ndarray) -> float:
    """Area under the ROC curve, one label against the rest, mean over the labels that occur; nan if only one does."""
    occurring = np.unique(gold)
    if len(occurring) < 2:
        return float("nan")
    return float(np.mean([metrics.roc_auc_score(gold == i, probabilities[:, i]) for i in occurring]))


def multi_label_metrics(
    probabilities: np.ndarray, gold: np.ndarray, thresholds: Sequence[float], labels: LabelSet
) -> dict[str, float]:
    """Metrics for several labels per text; averages leave out labels that occur nowhere.

    Args:
        probabilities: (rows, labels).
        gold: 0 or 1 (rows, labels).
        thresholds: the probability from which on each label is predicted.

    Returns:
        ``f1`` (the micro average), ``f1_micro``, ``f1_macro`` and so on for precision and recall,
        ``subset_accuracy`` (rows with exactly the right labels), ``map`` (mean average precision over the labels that
        occur), and F1, precision and recall by label.
    """
    predicted = (probabilities >= np.asarray(thresholds)).astype(np.int64)
    occurring = np.flatnonzero(gold.any(axis=0))
    precisions = [metrics.average_precision_score(gold[:, i], probabilities[:, i]) for i in occurring]
    return {
        **_averages(gold, predicted, labels, ("micro", "macro")),
        "subset_accuracy": float((predicted == gold).all(axis=1).mean()),
        "map": float(np.mean(precisions)) if precisions else float("nan"),
        **_by_label(gold, predicted, labels),
    }


def best_thresholds(probabilities: np.ndarray, gold: np.ndarray) -> list[float]:
    """For each label the threshold with the best smoothed F1; 0.5 if the label never occurs.

    It is halfway between the two probabilities that separate the chosen rows from the rest. With one or two true rows,
    the best plain F1 may be to give the label to nearly all rows. Smoothed by 1 above and below (Lin and Lin 2023, On
    the Thresholding Strategy for Infrequent Labels), it is then to give it to the highest score alone; for labels with
    a dozen rows or more both are nearly the same.
    """
    thresholds = []
    for scores, truth in zip(probabilities.T, gold.T, strict=True):
        if not truth.any():
            thresholds.append(0.5)
            continue
        order = np.argsort(-scores, kind="stable")
        ranked, hits = scores[order], np.cumsum(truth[order])
        f1 = (2 * hits + 1) / (np.arange(1, len(ranked) + 1) + truth.sum() + 1)
        f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal scores cannot be separated
        best = int(f1.argmax())
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        # The midpoint of neighbouring floats may be rounded down to the lower one.
        thresholds.append(float(max((ranked[best] + below) / 2, min(np.nextafter(below, 1.0), ranked[best]))))
    return thresholds


def tag_metrics(predicted: np.ndarray, gold: np.ndarray, labels: LabelSet) -> dict[str, float]:
    """Metrics per word, for tags that mark no spans, such as parts of speech."""
    return {
        "accuracy": float((predicted == gold).mean()),
        **_averages(gold, predicted, labels, ("macro", "weighted")),
        **_by_label(gold, predicted, labels),
    }


def _averages(gold: np.ndarray, predicted: np.ndarray, labels: LabelSet, kinds: Sequence[str]) -> dict[str, float]:
    """F1, precision and recall, averaged in several ways; ``f1`` is the first of these."""
    # Labels that occur neither in the rows nor in the predictions would count as zeros. Without explicit labels,
    # scikit-learn leaves them out as well.
    present = np.flatnonzero(_occurring(gold, predicted, len(labels)))
    result: dict[str, float] = {}
    for kind in kinds:
        precision, recall, f1 = _scores(gold, predicted, present, kind)
        result |= {f"f1_{kind}": float(f1), f"precision_{kind}": float(precision), f"recall_{kind}": float(recall)}
    return {"f1": result[f"f1_{kinds[0]}"], **result}


def _by_label(gold: np.ndarray, predicted: np.ndarray, labels: LabelSet) -> dict[str, float]:
    """The scores of each label; nan for labels that occur nowhere, which the averages leave out as well."""
    scores = _scores(gold, predicted, np.arange(len(labels)), None)
    absent = ~_occurring(gold, predicted, len(labels))
    result: dict[str, float] = {}
    for name, values in zip(("precision", "recall", "f1"), scores, strict=True):
        known = np.where(absent, np.nan, values)
        result |= {f"{name}/{label}": float(value) for label, value in zip(labels.names, known, strict=True)}
    return result


def _occurring(gold: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Whether each label occurs in the rows or the predictions."""
    if gold.ndim > 1:
        return np.asarray((gold | predicted).any(axis=0))
    return np.isin(np.arange(size), [gold, predicted])


def _scores(gold: np.ndarray, predicted: np.ndarray, ids: np.ndarray, average: str | None) -> tuple[Any, Any, Any]:
    """Precision, recall and F1; 0 where a label is never predicted, or never right."""
    if gold.ndim > 1 and gold.shape[1] == 1:
        # A single label, which a text has or lacks: scikit-learn would score "lacks" as a class of its own.
        gold, predicted, ids = gold[:, 0], predicted[:, 0], np.array([1])
    scores = metrics.precision_recall_fscore_support(gold, predicted, labels=ids, average=average, zero_division=0.0)
    return scores[:3]
