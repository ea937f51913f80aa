"""The plots of the page about a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thaw.reporting.drawing import (
    BLUE,
    DASHES,
    GREEN,
    INK,
    LINE,
    MUTED,
    ORANGE,
    RED,
    SERIES,
    SKY,
    name_rows,
    panel,
    picture,
    short,
    styled,
)
from thaw.reporting.plots import PANEL

BARS, BOXES = 40, 20  # classes with a bar or box of their own; the table lists all
FEW = 12  # so many classes keep their order; more are sorted by frequency
COLOURED = 6  # classes with a colour of their own
MARKERS = "os^Dvp"
LENGTHS = ("1 word", "2", "3", "4", "5 or more")


@styled
def class_bars(counts: Mapping[str, Mapping[str, int]], unit: str) -> str:
    """How often each class occurs, as a share of each split; for very many classes, a curve by rank.

    Args:
        counts: split -> class -> how often.
        unit: of the counts.
    """
    first = next(iter(counts.values()))
    names = list(first) if len(first) <= FEW else sorted(first, key=lambda name: -first[name])
    title = f"Share of the {unit} by class"
    totals = {split: max(sum(by_class.values()), 1) for split, by_class in counts.items()}
    many = len(names) > BARS
    figure, axes = panel(PANEL[0] * 1.2, 290 if many else 80 + len(names) * (8 + 9 * len(counts)), title)
    areas: list[Any] = []
    if many:
        for (split, by_class), colour, dash in zip(counts.items(), SERIES, DASHES, strict=False):
            ranked = np.sort([by_class[name] / totals[split] for name in names])[::-1]
            axes.plot(np.arange(1, len(names) + 1), ranked, linestyle=dash, color=colour, label=split)
        axes.set(xlabel="classes, the most frequent first", xlim=(0, len(names) + 1))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(percent)
    else:
        height = 0.8 / len(counts)
        widest = max(by_class[name] / totals[split] for split, by_class in counts.items() for name in names)
        for i, ((split, by_class), colour) in enumerate(zip(counts.items(), SERIES, strict=False)):
            places = np.arange(len(names)) - 0.4 + height * (i + 0.5)
            shares = [by_class[name] / totals[split] for name in names]
            axes.barh(places, shares, height=height * 0.9, color=colour, label=split)
            areas += [(0, place - height / 2, widest, height, f"{name}, {split}: {by_class[name]:,} ({share:.1%})")
                      for place, name, share in zip(places, names, shares, strict=True)]  # fmt: skip
        _named(axes, names)
        axes.xaxis.set_major_formatter(percent)
    figure.legend(loc="outside lower center", ncols=3)
    return picture(figure, title, [(axes, areas)])


def percent(value: float, _: Any) -> str:
    return f"{100 * value:.3g} %"


def _named(axes: Any, names: Sequence[str]) -> None:
    """Label the rows of a plot, the first on top."""
    name_rows(axes, range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)


@styled
def length_boxes(groups: Mapping[str, Mapping[str, float]], unit: str, by: str, mark: float | None = None) -> str:
    """Text lengths by class: a box from 25 to 75 % with the median, and whiskers from 5 to 95 %.

    Args:
        groups: class -> ``low``, ``first``, ``median``, ``third``, ``high``, ``rows``.
        unit: of the lengths.
        by: what the groups are.
        mark: a limit, shown as a line if it lies within the plot.
    """
    ranked = sorted(groups, key=lambda name: -groups[name]["rows"])[:BOXES]
    shown = groups if len(groups) <= FEW else {name: groups[name] for name in ranked}
    title = f"{unit} by {by}".capitalize() + (f", the {BOXES} most frequent" if len(groups) > BOXES else "")
    figure, axes = panel(PANEL[0], 70 + 26 * max(len(shown), 2), title)
    highest = max(box["high"] for box in shown.values())
    for place, box in enumerate(shown.values()):
        axes.plot([box["low"], box["high"]], [place, place], color=MUTED, linewidth=1.2)
        axes.barh(place, box["third"] - box["first"], left=box["first"], height=0.6, color=BLUE, alpha=0.45)
        axes.plot([box["median"]] * 2, [place - 0.3, place + 0.3], color=INK, linewidth=2)
    if mark is not None and mark <= highest * 1.05:
        axes.axvline(mark, color=RED, linestyle=":", linewidth=1.2)
        axes.text(mark, -0.52, " max_length", color=INK, fontsize=8, va="top", ha="right")
    axes.set_xlim(0, highest * 1.05)
    _named(axes, list(shown))
    axes.set_xlabel(unit)
    areas = [
        (0, place - 0.5, highest * 1.05, 1,
         f"{name}: median {box['median']:g}, 25 to 75 %: {box['first']:g} to {box['third']:g}, "
         f"5 to 95 %: {box['low']:g} to {box['high']:g}; {box['rows']:,} texts")
        for place, (name, box) in enumerate(shown.items())
    ]  # fmt: skip
    return picture(figure, title, [(axes, areas)])


@styled
def truncation(curve: Mapping[str, Sequence[float]], chosen: int, windows: bool) -> str:
    """How much each ``data.max_length`` cuts off; see `thaw.data.survey.truncation_curve`.

    Args:
        windows: nothing is cut off, but read in further windows.
    """
    title = "Windows" if windows else "Truncation"
    figure, axes = panel(PANEL[0], PANEL[1], title)
    x, texts, tokens = (np.array(curve[name]) for name in ("max_length", "texts", "tokens"))
    axes.plot(x, texts, "-", color=BLUE, label="sentences in windows" if windows else "texts that lose tokens")
    axes.plot(x, tokens, "--", color=ORANGE, label="tokens beyond the first" if windows else "tokens lost")
    if chosen <= x.max():
        axes.axvline(chosen, color=RED, linestyle=":", linewidth=1.2, label=f"max_length={chosen}")
    axes.set(xlabel="max_length", xlim=(0, x.max() * 1.02), ylim=(-0.02, 1.02))
    axes.yaxis.set_major_formatter(percent)
    figure.legend(loc="outside lower center", ncols=2)
    width = x.max() / len(x)
    areas = [(a - width / 2, 0, width, 1, f"max_length={a}: {b:.1%} of the texts are longer, by {c:.1%} of all tokens")
             for a, b, c in zip(x, texts, tokens, strict=True)]  # fmt: skip
    return picture(figure, f"{title} by max_length", [(axes, areas)])


@styled
def entity_lengths(types: Mapping[str, Mapping[str, Any]]) -> str:
    """How many words the entities of each type have."""
    figure, axes = panel(PANEL[0], 100 + 30 * max(len(types), 2), "Words of an entity by type")
    left = np.zeros(len(types))
    areas: list[Any] = []
    for i, (name, colour) in enumerate(zip(LENGTHS, (BLUE, SKY, GREEN, ORANGE, RED), strict=True)):
        counts = np.array([own["lengths"][i] for own in types.values()])
        shares = counts / [max(own["count"], 1) for own in types.values()]
        axes.barh(np.arange(len(types)), shares, left=left, height=0.7, color=colour, label=name)
        areas += [(start, place - 0.35, share, 0.7, f"{kind}, {name}: {count:,} ({share:.1%})")
                  for place, (kind, start, share, count) in enumerate(zip(types, left, shares, counts, strict=True))
                  if count]  # fmt: skip
        left += shares
    _named(axes, list(types))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent)
    figure.legend(loc="outside lower center", ncols=5)
    return picture(figure, "Words of an entity by type", [(axes, areas)])


@styled
def scatter(points: np.ndarray, gold: np.ndarray, names: Sequence[str], title: str) -> str:
    """Vectors in two dimensions by class; if there are many classes, only the most frequent have a colour.

    Args:
        points: (rows, 2).
        gold: label ids (rows,).
    """
    figure, axes = panel(PANEL[0], 400, title)
    counts = np.bincount(gold, minlength=len(names))
    chosen = [int(i) for i in np.argsort(-counts, kind="stable")[:COLOURED] if counts[i]]
    rest = ~np.isin(gold, chosen)
    if rest.any():
        axes.scatter(*points[rest].T, s=5, color=LINE, label=f"{np.count_nonzero(counts) - len(chosen)} others")
    for i, colour, marker in zip(sorted(chosen), SERIES, MARKERS, strict=False):
        axes.scatter(*points[gold == i].T, s=11, color=colour, marker=marker, linewidths=0, alpha=0.75,
                     label=short(names[i], 16))  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower center", ncols=3, markerscale=2)
    return picture(figure, f"Vectors by class: {title}")
