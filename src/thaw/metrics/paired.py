"""Tests of whether two runs on the same rows differ by more than chance."""

from typing import Any

import numpy as np
from scipy import stats

from thaw.metrics.intervals import TAILS, bootstrap, is_macro, recentred
from thaw.metrics.scorers import Scorer


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """McNemar's exact test (1947) for two classifiers on the same rows, by scipy's binomial test.

    Args:
        first, second: whether each row was right, (rows,).

    Returns:
        ``only_first``, ``only_second``: rows that only one of them has right; ``p``: the p-value.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    p = float(stats.binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def paired_bootstrap(
    first: Scorer, second: Scorer, rows: int, groups: np.ndarray | None = None
) -> dict[str, dict[str, Any]]:
    """The difference between two runs in each metric, scored on the same resamples (Koehn 2004).

    Args:
        first, second: scorers of the same rows.
        rows, groups: as for `bootstrap`.

    Returns:
        Metric -> ``first``, ``second``, ``difference`` (second minus first), its ``interval``, and ``p``: twice the
        share of resamples on the other side of zero.
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = first(weights), second(weights)
        return {name: theirs[name] - ours[name] for name in ours}

    whole = np.ones((1, rows))
    with np.errstate(all="ignore"):
        ours, theirs = first(whole), second(whole)
    result = {}
    resamples = bootstrap(difference, rows, groups)
    for name, drawn in resamples.items():
        if not np.isfinite(drawn).all():
            continue
        if is_macro(name, resamples):
            drawn = recentred(drawn, theirs[name] - ours[name])
        low, high = np.percentile(drawn, TAILS)
        # The sample itself counts as one resample, so that p is never zero.
        beyond = 1 + min((drawn <= 0).sum(), (drawn >= 0).sum())
        result[name] = {
            "first": float(ours[name][0]),
            "second": float(theirs[name][0]),
            "difference": float(theirs[name][0] - ours[name][0]),
            "interval": [float(low), float(high)],
            "p": float(min(1.0, 2 * beyond / (len(drawn) + 1))),
        }
    return result
