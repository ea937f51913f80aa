"""How far a figure may be off: Wilson's intervals of shares, bootstrap intervals of all else."""

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
SHARES = {"sequence": ("accuracy", "recall_weighted"), "multi_label": ("subset_accuracy",)}  # of rows that are right


def intervals(
    outputs: "Outputs",
    labels: LabelSet,
    *,
    strict: bool = False,
    thresholds: Sequence[float] | None = None,
    terms: tuple[np.ndarray, np.ndarray] | None = None,
    temperature: float | None = None,
) -> dict[str, list[float]]:
    """The 95 % interval of each headline figure: by percentiles of the bootstrap (Efron and Tibshirani 1993).

    A share of rows (accuracy) has Wilson's, since of rows without a mistake every resample is alike; other figures then
    have none. Rows are drawn, and sentences whole; not within each class, which would leave out how the mix of classes
    varies. Averages over classes leave out a class that a resample lacks: of rare classes they vary much, and lie off
    the figure, to which their intervals are moved back.
    Resampling moves the calibration error upwards, as sampling does; its interval is the basic one, mirrored about the
    figure, which takes both back, and widened to hold the figure. Of an error near 0 it is too narrow: it holds a true
    0 in two of three samples, a true 0.02 in nine of ten.

    Args:
        outputs, labels, strict, thresholds: as for `figures`.
        terms: what the loss is the mean of: losses and weights of each entry of ``outputs.flat()``.
        temperature: for the calibration error with it.

    Returns:
        Figure -> [low, high]; none for figures that are not defined, or the same in every resample.
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

    drawn = bootstrap(score, len(outputs.rows))
    found: dict[str, Sequence[float]] = {
        name: pair for name, values in drawn.items() if (pair := np.percentile(values, TAILS).tolist())[0] < pair[1]
    }
    whole = np.ones((1, len(outputs.rows)))
    known = {name: float(value) for name, (value,) in task(whole).items()}
    for name in known.keys() & found.keys():
        # Rare classes that are never found drop out of resamples, which score better for it: with 30 uneven classes
        # the figure itself lay below its interval.
        if name.endswith("_macro") or np.array_equal(drawn[name], drawn.get("f1_macro", ())):
            found[name] = np.clip(np.array(found[name]) + known[name] - drawn[name].mean(), 0, 1).tolist()
    if labels.task != "token":  # words of one sentence are not on their own
        shares = {name: value for name, value in known.items() if name in SHARES[labels.task]}
        found |= {name: proportion(round(value * whole.size), whole.size)[1:] for name, value in shares.items()}
    for name, error in errors.items():
        if name not in found:
            continue
        (value,) = error(whole)
        low, high = 2 * value - np.array(found[name][::-1])
        found[name] = [max(min(low, value), 0.0), max(high, value)]
    return {name: list(pair) for name, pair in found.items() if np.isfinite(pair).all()}


def proportion(part: int, whole: int) -> tuple[float, float, float]:
    """A share and its 95 % interval (Wilson 1927), by scipy; nan of nothing."""
    if not whole:
        return float("nan"), float("nan"), float("nan")
    found = stats.binomtest(part, whole).proportion_ci(method="wilson")
    return part / whole, float(found.low), float(found.high)


def bootstrap(score: Scorer, rows: int) -> dict[str, np.ndarray]:
    """The figures of `RESAMPLES` resamples of so many rows."""
    generator = np.random.default_rng(SEED)
    together = max(1, CELLS // rows)
    parts = []
    for start in range(0, RESAMPLES, together):
        drawn = generator.integers(rows, size=(min(together, RESAMPLES - start), rows))
        weights = np.stack([np.bincount(line, minlength=rows) for line in drawn]).astype(np.float64)
        with np.errstate(all="ignore"):
            parts.append(score(weights))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
