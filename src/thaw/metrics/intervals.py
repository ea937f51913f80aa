"""Confidence intervals of metrics: Wilson's for proportions, bootstrap for everything else."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from thaw.labels import LabelSet
from thaw.metrics.scorers import Scorer, by_row, calibration_scorer, scorer

if TYPE_CHECKING:
    from thaw.metrics.outputs import Outputs  # importing it at run time would import torch

RESAMPLES = 1_000
SEED = 0
TAILS = (2.5, 97.5)  # percentiles at the ends of a 95 % interval
CELLS = 4_000_000  # weights held at once
SHARES = {"sequence": ("accuracy", "recall_weighted"), "multi_label": ("subset_accuracy",)}  # proportions of rows


def intervals(
    outputs: "Outputs",
    labels: LabelSet,
    *,
    strict: bool = False,
    thresholds: Sequence[float] | None = None,
    terms: tuple[np.ndarray, np.ndarray] | None = None,
    temperature: float | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, list[float]]:
    """The 95 % interval of each headline metric, by the percentile bootstrap (Efron and Tibshirani 1993).

    Proportions of rows (accuracy) have Wilson's interval instead: if there are no mistakes, all resamples are the same,
    and other metrics then have no interval. What is drawn is rows, or whole sentences, and not within each class, which
    would ignore how the mix of classes varies. Averages over classes leave out classes that a resample lacks, so that
    with rare classes they vary a lot, and lie off the metric, to which their intervals are moved back (`recentred`).

    The calibration error is biased upwards by sampling, and by resampling again. Its interval is the basic bootstrap
    interval, mirrored about the metric to correct for both, and widened to contain the metric. For errors near 0 it is
    too narrow: it covers a true 0 in two of three samples, a true 0.02 in nine of ten.

    Args:
        outputs, labels, strict, thresholds: as for `compute_metrics`.
        terms: losses and weights of each entry of ``outputs.flat()``, for the interval of the loss.
        temperature: for the calibration error after scaling.
        groups: as for `bootstrap`; proportions of rows are then resampled as well.

    Returns:
        Metric -> [low, high]; none for metrics that are undefined, or the same in every resample.
    """
    errors = {
        name: calibration_scorer(outputs, labels, own)
        for name, own in (("ece", 1.0), ("ece_calibrated", temperature))
        if own
    }
    task = scorer(outputs, labels, strict=strict, thresholds=thresholds)
    losses = [] if terms is None else [by_row(outputs, values) for values in terms]

    def score(weights: np.ndarray) -> dict[str, np.ndarray]:
        result = {**task(weights), **{name: error(weights) for name, error in errors.items()}}
        if losses:
            result["loss"] = (weights @ losses[0]) / (weights @ losses[1])
        return result

    found = of_scorer(score, labels, len(outputs.rows), groups)
    for name, error in errors.items():
        if name not in found:
            continue
        (value,) = error(np.ones((1, len(outputs.rows))))
        low, high = 2 * value - np.array(found[name][::-1])
        found[name] = [max(min(low, value), 0.0), max(high, value)]
    return {name: list(pair) for name, pair in found.items() if np.isfinite(pair).all()}


def of_scorer(score: Scorer, labels: LabelSet, rows: int, groups: np.ndarray | None) -> dict[str, list[float]]:
    """The 95 % interval of each metric of so many rows, or sentences, as `intervals` describes."""
    drawn = bootstrap(score, rows, groups)
    with np.errstate(all="ignore"):
        whole = score(np.ones((1, rows)))
    found = {}
    for name, values in drawn.items():
        if is_macro(name, drawn):
            values = np.clip(recentred(values, whole[name]), 0, 1)
        low, high = np.percentile(values, TAILS)
        if low < high:
            found[name] = [float(low), float(high)]
    if labels.task == "token" or groups is not None:  # words of one sentence, or rows of one group, go together
        return found
    shares = {name: float(whole[name][0]) for name in SHARES[labels.task] if name in whole}
    return found | {name: list(proportion(round(value * rows), rows)[1:]) for name, value in shares.items()}


def is_macro(name: str, drawn: Mapping[str, np.ndarray]) -> bool:
    """Whether a metric is a macro average; ``f1`` is one of some tasks."""
    return name.endswith("_macro") or (name == "f1" and np.array_equal(drawn[name], drawn.get("f1_macro", ())))


def recentred(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The resamples of a macro average, moved so that their mean is that of the rows as they are.

    Rare classes that are never found drop out of resamples, which score better for it: with 30 uneven classes the
    metric itself lay below its interval.
    """
    return values + whole - values.mean()


def proportion(part: int, whole: int) -> tuple[float, float, float]:
    """A proportion and its 95 % interval (Wilson 1927), by scipy; nan if ``whole`` is 0."""
    if not whole:
        return float("nan"), float("nan"), float("nan")
    found = stats.binomtest(part, whole).proportion_ci(method="wilson")
    return part / whole, float(found.low), float(found.high)


def group_numbers(names: Sequence[str | None]) -> np.ndarray | None:
    """A number from 0 for each group, (rows,), for `bootstrap`; a row without one is a group of its own.

    Returns:
        None if no row has a group.
    """
    if not any(name is not None for name in names):
        return None
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(i if name is None else name, len(numbers)) for i, name in enumerate(names)])


def bootstrap(score: Scorer, rows: int, groups: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The metrics of `RESAMPLES` resamples of so many rows.

    Args:
        groups: the group of each row, from 0, if whole groups are drawn: rows of one customer vary together (the
            cluster bootstrap, Field and Welsh 2007).
    """
    generator = np.random.default_rng(SEED)
    together = max(1, CELLS // rows)
    units = rows if groups is None else int(groups.max()) + 1
    parts = []
    for start in range(0, RESAMPLES, together):
        drawn = generator.integers(units, size=(min(together, RESAMPLES - start), units))
        weights = np.stack([np.bincount(line, minlength=units) for line in drawn]).astype(np.float64)
        weights = weights if groups is None else weights[:, groups]
        with np.errstate(all="ignore"):
            parts.append(score(weights))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
