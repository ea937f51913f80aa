"""How far a figure may be off: bootstrap intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from thaw.labels import LabelSet
from thaw.metrics.scorers import Scorer, by_row, calibration_scorer, scorer

if TYPE_CHECKING:
    from thaw.metrics.outputs import Outputs  # its torch is not wanted where figures are only read

RESAMPLES = 1_000
SEED = 0
TAILS = (2.5, 97.5)  # per cent: what a 95 % interval leaves out lies beyond
CELLS = 4_000_000  # weights held at once


def intervals(
    outputs: "Outputs",
    labels: LabelSet,
    *,
    strict: bool = False,
    thresholds: Sequence[float] | None = None,
    terms: tuple[np.ndarray, np.ndarray] | None = None,
    temperature: float | None = None,
) -> dict[str, list[float]]:
    """The 95 % percentile bootstrap interval of each headline figure (Efron and Tibshirani 1993), by scipy.

    Rows are drawn within each true class where a row has one, so that no class vanishes; sentences are drawn whole.
    Resampling moves the calibration error upwards, as sampling does; its interval is the basic one, mirrored about the
    figure, which takes both back (and so may lie below it). Of an error near 0 it is too narrow: it holds a true 0 in
    two of three samples, a true 0.02 in nine of ten.

    Args:
        outputs, labels, strict, thresholds: as for `figures`.
        terms: what the loss is the mean of: losses and weights of each entry of ``outputs.flat()``.
        temperature: for the calibration error with it.

    Returns:
        Figure -> [low, high]; none for figures that are not defined.
    """
    strata = outputs.gold if labels.task == "sequence" else np.zeros(len(outputs.rows), dtype=np.int64)
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

    drawn = bootstrap(score, strata)
    found = {name: np.percentile(values, TAILS).tolist() for name, values in drawn.items()}
    for name, error in errors.items():
        (value,) = error(np.ones((1, len(strata))))
        found[name] = np.maximum(2 * value - np.array(found[name][::-1]), 0).tolist()
    return {name: pair for name, pair in found.items() if np.isfinite(pair).all()}


def bootstrap(score: Scorer, strata: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `RESAMPLES` resamples.

    Args:
        score: from weights to figures.
        strata: (rows,); rows are drawn within each stratum.
    """
    rows = len(strata)
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    drawn = [group for group in groups if len(group) > 1]
    with np.errstate(all="ignore"):
        whole = score(np.ones((1, rows)))
    names = list(whole)
    if not drawn:  # nothing to draw from: each resample is the sample
        return {name: np.repeat(value, RESAMPLES) for name, value in whole.items()}
    single = [group[0] for group in groups if len(group) == 1]

    def statistic(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        index = np.concatenate([np.atleast_2d(own) for own in indices], axis=-1).astype(np.int64)
        weights = np.zeros((len(index), rows))
        for line, own in zip(weights, index, strict=True):
            line += np.bincount(own, minlength=rows)
        weights[:, single] = 1
        values = score(weights)
        return np.stack([values[name] for name in names])

    with np.errstate(all="ignore"):
        result = stats.bootstrap(
            drawn,
            statistic,
            n_resamples=RESAMPLES,
            vectorized=True,
            batch=max(1, CELLS // rows),
            method="percentile",
            rng=np.random.default_rng(SEED),
        )
    return dict(zip(names, result.bootstrap_distribution, strict=True))
