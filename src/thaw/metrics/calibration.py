"""Calibration of the confidence, and temperature scaling to improve it."""

from typing import Any

import numpy as np

BINS = 15
RANGE = (0.05, 20.0)  # of the temperatures that are tried
SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the rows, the most confident first


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017), computed by torchmetrics.

    Args:
        confidence: probability of the predicted label, (rows,).
        correct: whether it was right, (rows,).
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    # With the confidence as the probability of being right, the binary error equals the multi-class one. Torchmetrics
    # would put a confidence of exactly 1 into a bin of its own.
    sure = torch.from_numpy(np.minimum(np.asarray(confidence, dtype=np.float64), np.nextafter(1, 0)))
    return float(binary_calibration_error(sure, torch.from_numpy(correct.astype(np.int64)), BINS))


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """The temperature that minimises the loss of held-out rows (Guo et al. 2017); logits are divided by it.

    If all rows were right, the best temperature would make the network certain. So the true label gets a target of
    (n + 1) / (n + 2) for n rows, as in Platt (1999).

    Args:
        logits: (rows, labels), of rows that were not trained on.
        gold: label ids (rows,), or 0 and 1 (rows, labels) in multi-label tasks.
    """
    from scipy.optimize import minimize_scalar

    doubt = 1 / (len(gold) + 2)
    if gold.ndim > 1:
        target = np.where(gold, 1 - doubt, doubt)
    else:
        labels = logits.shape[1]
        target = np.where(np.arange(labels) == gold[:, None], 1 - doubt, doubt / (labels - 1))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        if gold.ndim > 1:
            return float((np.logaddexp(0, scaled) - scaled * target).mean())
        return float((np.logaddexp.reduce(scaled, axis=-1) - (scaled * target).sum(-1)).mean())

    minimum = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded")
    return float(np.exp(minimum.x))


def confidence(probabilities: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How confident each prediction is, and whether it is right.

    Args:
        probabilities: (rows, labels).
        gold: as for `fit_temperature`.

    Returns:
        The probability of the predicted label and whether it is right, (rows,); in multi-label tasks, the probability
        of every label and whether it is true, (rows * labels,).
    """
    if gold.ndim > 1:
        return probabilities.ravel(), gold.ravel().astype(bool)
    return probabilities.max(-1), probabilities.argmax(-1) == gold


def bins_of(sure: np.ndarray) -> np.ndarray:
    """The bin of a reliability diagram that each confidence falls into."""
    return np.minimum((sure * BINS).astype(int), BINS - 1)


def reliability(sure: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """The non-empty bins of a reliability diagram: ``rows``, mean ``confidence``, ``accuracy``."""
    position = bins_of(sure)
    return [
        {"rows": int(own.sum()), "confidence": float(sure[own].mean()), "accuracy": float(correct[own].mean())}
        for i in range(BINS)
        if (own := position == i).any()
    ]


def selective(sure: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """How often the most confident predictions are right: the risk-coverage curve (El-Yaniv and Wiener 2010).

    Args:
        sure: probability of the predicted label, (rows,).
        correct: whether it is right, (rows,).

    Returns:
        For `SHARES` of the rows: ``score``, from which on they are kept, the ``rows`` and ``right`` ones among them.
        Rows of the same score are kept or left out together.
    """
    order = np.sort(sure)[::-1]
    limits = dict.fromkeys(float(order[max(int(np.ceil(share * len(order))), 1) - 1]) for share in SHARES)
    kept = ((limit, sure >= limit) for limit in limits)
    return [{"score": limit, "rows": int(own.sum()), "right": int(correct[own].sum())} for limit, own in kept]
