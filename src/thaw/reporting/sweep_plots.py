"""The plots of a multirun: the score by one swept setting, or by two."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from thaw.reporting.drawing import BLUE, INK, MUTED, matrix, panel, picture, short, styled

Point = tuple[Mapping[str, str], float, float]
"""The swept settings of a group of runs, the mean of its scores and their standard deviation, 0 of a single one."""


def pictures(points: Sequence[Point], keys: Sequence[str], monitor: str, mode: str) -> list[str]:
    """A line for one swept setting, a heat map for two, and the score by each setting for more.

    Args:
        points: one for each group of runs.
        keys: the swept settings.
        monitor: the name of the score.
        mode: ``min`` where the lower score is the better one, else ``max``.
    """
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) < 2:
        return []
    if len(keys) == 2:
        return [heat_map(points, keys[0], keys[1], monitor, mode)]
    return [by_value(points, key, monitor) for key in keys]


def in_order(values: Sequence[str]) -> list[str]:
    """The distinct values, sorted if all of them are numbers."""
    once = list(dict.fromkeys(values))
    return sorted(once, key=float) if all(map(_is_number, once)) else once


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


@styled
def by_value(points: Sequence[Point], key: str, monitor: str) -> str:
    """The score at each value of a setting: a dot for each group of runs, with its standard deviation; for numbers, a
    line through the means."""
    values = in_order([settings[key] for settings, *_ in points])
    numeric = len(values) > 1 and all(map(_is_number, values))
    places = {value: float(value) if numeric else float(i) for i, value in enumerate(values)}
    figure, axes = panel(430, 290 if numeric else max(160, 70 + 30 * len(values)), f"{monitor} by {key}")
    x, y, error = np.array([(places[settings[key]], score, deviation) for settings, score, deviation in points]).T
    whiskers = {"ecolor": MUTED, "elinewidth": 1, "capsize": 2}
    if numeric:
        axes.plot(sorted(places.values()), [y[x == place].mean() for place in sorted(places.values())], color=BLUE)
        axes.errorbar(x, y, error, fmt="o", color=INK, markersize=4, **whiskers)
        if min(places.values()) > 0 and max(places.values()) / min(places.values()) >= 10:
            axes.set_xscale("log")
            axes.set_xticks(list(places.values()), list(places))  # as they were typed
            axes.minorticks_off()
        axes.set(xlabel=key, ylabel=monitor)
    else:
        axes.errorbar(y, x, xerr=error, fmt="o", color=BLUE, markersize=6, **whiskers)
        axes.set_yticks(range(len(values)), [short(value) for value in values])
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.set(xlabel=monitor)
    return picture(figure, f"{monitor} by {key}")


def heat_map(points: Sequence[Point], down: str, across: str, monitor: str, mode: str) -> str:
    """The mean score at each pair of values; better scores are darker, over the full range of shades."""
    rows, columns = (in_order([settings[key] for settings, *_ in points]) for key in (down, across))
    scores = np.full((len(rows), len(columns)), np.nan)
    for settings, score, _ in points:
        scores[rows.index(settings[down]), columns.index(settings[across])] = score
    worst, best = (np.nanmax(scores), np.nanmin(scores)) if mode == "min" else (np.nanmin(scores), np.nanmax(scores))
    shares = np.nan_to_num((scores - worst) / (best - worst if best != worst else 1)) * 0.9 + 0.1
    shares[np.isnan(scores)] = 0
    written = [["" if math.isnan(score) else f"{score:.3f}" for score in line] for line in scores]
    told = [
        [f"{down}={row}, {across}={column}: {monitor} {written[i][j] or 'no run'}" for j, column in enumerate(columns)]
        for i, row in enumerate(rows)
    ]
    return matrix(np.nan_to_num(scores), shares, rows, columns, monitor, written, told, (across, down))
