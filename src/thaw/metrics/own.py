"""Metrics that a config adds: functions of true and predicted labels, of scikit-learn or of one's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from thaw.errors import UserError, reason
from thaw.instantiate import build_function
from thaw.labels import LabelSet
from thaw.metrics.outputs import Outputs, figure_names
from thaw.metrics.probabilities import probabilities

Metrics = Mapping[str, Callable[[np.ndarray, np.ndarray], Any]]


def build_metrics(config: Mapping[str, Any], labels: LabelSet) -> Metrics:
    """The functions of the group ``metrics``, by name.

    Raises:
        UserError: when one cannot be built, or its name is taken or has a slash, which separates split and label.
    """
    known = figure_names(labels)
    for name in config:
        if "/" in name or name in ("loss", *known):
            raise UserError(f"metrics.{name}: there is such a metric, or its name has a slash", "Choose another name.")
    return {name: build_function(one, f"metrics.{name}") for name, one in config.items()}


def own_figures(
    outputs: Outputs, labels: LabelSet, metrics: Metrics, thresholds: Sequence[float] | None = None
) -> dict[str, float]:
    """The value of each metric for the rows, or for all words of a token task.

    Each function gets true and predicted ids, in the order of the labels, as (n,) arrays; of a multi-label task 0 and 1
    for each label, as (n, labels) arrays.

    Args:
        thresholds: of a multi-label task; None takes 0.5.

    Raises:
        UserError: when one fails, or gives no number.
    """
    if not metrics:
        return {}
    gold, predicted = outputs.gold, outputs.logits
    if labels.task == "token":
        gold, predicted = np.concatenate(gold), np.concatenate(outputs.tags(labels))
    elif labels.task == "multi_label":
        limits = [0.5] * len(labels) if thresholds is None else thresholds
        predicted = (probabilities(predicted, labels) >= np.asarray(limits)).astype(gold.dtype)
    else:
        predicted = predicted.argmax(-1)
    values = {}
    for name, function in metrics.items():
        try:
            values[name] = float(function(gold, predicted))
        except Exception as error:  # whatever a function of the user's may raise
            raise UserError(
                f"metrics.{name}: {reason(error)}", "It takes true and predicted ids, and gives a number."
            ) from error
    return values
