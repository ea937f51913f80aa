"""Logits to probabilities. Needs numpy only."""

import numpy as np

from thaw.labels import LabelSet

DIGITS = 9  # decimals of those that a run keeps: with six, rows tie that do not, and their AUC is another


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of each label on its own, in float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def probabilities(logits: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Of each label over the last axis; they exclude one another except in multi-label tasks."""
    return sigmoid(logits) if labels.task == "multi_label" else softmax(logits)
