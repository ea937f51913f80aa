"""Metrics that a config adds: functions of true and predicted labels, of scikit-learn or of one's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from thaw.errors import UserError, raised
from thaw.instantiate import build_function
from thaw.labels import ALPHABETICAL, LabelSet
from thaw.metrics.classification import best_thresholds
from thaw.metrics.outputs import Outputs, metric_names, one_of_each
from thaw.metrics.probabilities import probabilities

Metrics = Mapping[str, Callable[[np.ndarray, np.ndarray], Any]]


def build_metrics(config: Mapping[str, Any], labels: LabelSet) -> Metrics:
    """The functions of the group ``metrics``, by name.

    Raises:
        UserError: when one cannot be built or fails for rows of each label, or its name is taken or has a slash, which
            separates split and label.
    """
    known = ("loss", "ece", "ece_calibrated", *metric_names(labels))
    for name in config:
        if "/" in name or name in known:
            problem = "a name has no slash" if "/" in name else "there is such a metric"
            raise UserError(f"metrics.{name}: {problem}", "Choose another name.")
    metrics = {name: build_function(one, f"metrics.{name}") for name, one in config.items()}
    own_metrics(one_of_each(labels), labels, metrics)  # now, not after an epoch
    return metrics


def misordered(config: Mapping[str, Any], labels: LabelSet) -> list[str]:
    """The metrics that weigh mistakes by the order of the labels, as a weighted kappa, if it is alphabetical."""
    return [name for name, one in config.items() if one.get("weights") and labels.order == ALPHABETICAL]


def own_metrics(
    outputs: Outputs, labels: LabelSet, metrics: Metrics, thresholds: Sequence[float] | None = None
) -> dict[str, float]:
    """The value of each metric for the rows, or for all words of a token task.

    Each function gets true and predicted ids, in the order of the labels, as (n,) arrays; of a multi-label task 0 and 1
    for each label, as (n, labels) arrays. A word without a token has the predicted id of O, or -1 if there is no O.

    Args:
        thresholds: of a multi-label task; None takes those that are best for these rows, as `compute_metrics` does.

    Raises:
        UserError: when one fails, or gives no number.
    """
    if not metrics:
        return {}
    gold, predicted = outputs.gold, outputs.logits
    if labels.task == "token":
        gold, predicted = np.concatenate(gold), np.concatenate(outputs.tags(labels))
    elif labels.task == "multi_label":
        scores = probabilities(predicted, labels)
        limits = best_thresholds(scores, gold) if thresholds is None else thresholds
        predicted = (scores >= np.asarray(limits)).astype(gold.dtype)
    else:
        predicted = predicted.argmax(-1)
    values = {}
    for name, function in metrics.items():
        try:
            values[name] = float(function(gold, predicted))
        except Exception as error:  # whatever a function of the user's may raise
            remedy = (
                f"Check its settings: it gets true and predicted ids of {labels.task} labels, and must return a number."
            )
            raise UserError(f"metrics.{name}: {raised(error)}", remedy) from error
    return values
