"""Rows whose labels are likely wrong, by confident learning (Northcutt et al. 2021)."""

import numpy as np


def likely_label_errors(probabilities: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that confidently belong to another class than their label says, the most suspicious first.

    A row counts towards a class if its probability reaches the mean probability of that class among the rows with that
    label. A row that counts towards another class than its own is suspicious; the larger the gap, the more so.

    Args:
        probabilities: (rows, labels), of rows that were not trained on.
        gold: label ids (rows,).

    Returns:
        Row numbers, and the class that each counts towards, which need not be the likeliest one.
    """
    size = probabilities.shape[1]
    # A class without rows has a threshold that cannot be reached.
    thresholds = np.array([probabilities[gold == i, i].mean() if (gold == i).any() else np.inf for i in range(size)])
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(-1)
    rows = np.flatnonzero((reached.max(-1) >= 0) & (suggested != gold))
    gap = probabilities[rows, suggested[rows]] - probabilities[rows, gold[rows]]
    # A row may count towards a class with a low threshold although its own class is more likely.
    rows, gap = rows[gap > 0], gap[gap > 0]
    rows = rows[np.argsort(-gap, kind="stable")]
    return rows, suggested[rows]


def likely_tag_errors(sure: np.ndarray, own: np.ndarray, predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The same as `likely_label_errors` for words, of which only two probabilities are kept.

    Args:
        sure: probability of the predicted tag, (words,).
        own: probability of the true tag, (words,).
        predicted, gold: tag ids, (words,).
    """
    counts = np.bincount(gold, minlength=predicted.max(initial=0) + 1)
    sums = np.bincount(gold, weights=own, minlength=len(counts))
    thresholds = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    words = np.flatnonzero((predicted != gold) & (sure >= thresholds[predicted]))
    return words[np.argsort(own[words] - sure[words], kind="stable")]
