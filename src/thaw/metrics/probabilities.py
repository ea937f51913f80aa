"""From logits to probabilities. Needs only numpy."""

import numpy as np

from thaw.labels import LabelSet

DIGITS = 9  # decimals of those that a run keeps: with six, rows tie that do not, and their AUC is another


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Independent probabilities of each label, in float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def probabilities(logits: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Probabilities of the labels over the last axis: sigmoid for multi-label tasks, otherwise softmax."""
    return sigmoid(logits) if labels.task == "multi_label" else softmax(logits)


def averaged(values: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The mean over the rows of each text, of which one that is read in windows has several.

    Args:
        values: (rows, any), in the order of the texts.
        texts: the text that each row belongs to, (rows,).
    """
    starts = np.flatnonzero(np.diff(texts, prepend=-1))
    sums = np.add.reduceat(values, starts)
    return (sums / np.diff(starts, append=len(texts))[:, None]).astype(values.dtype)
