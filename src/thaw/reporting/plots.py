"""The plots of a run page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thaw.metrics.calibration import BINS, bins_of
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
    around,
    matrix,
    name_rows,
    new_figure,
    panel,
    picture,
    short,
    styled,
)

PANEL = (430, 290)  # pixels of a plot: two or three fit side by side on a monitor, one on a phone
POINTS = 150  # of a curve; more would not be visible
CURVES = 6  # classes with a curve of their own


@styled
def radar(corners: Mapping[str, Sequence[float]]) -> str:
    """Metrics before and after training.

    Args:
        corners: metric -> its value, from 0 to 1, before and after training.
    """
    angles = np.linspace(0, 2 * np.pi, len(corners), endpoint=False)
    before, after = zip(*corners.values(), strict=True)
    figure = new_figure(PANEL[0], 350)
    axes: Any = figure.add_subplot(projection="polar")
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    for values, name, colour, dash in ((before, "before training", ORANGE, "--"), (after, "this run", BLUE, "-")):
        closed = [*values, values[0]]
        axes.plot([*angles, angles[0]], closed, dash, color=colour, label=name, marker="o", markersize=3)
        axes.fill([*angles, angles[0]], closed, color=colour, alpha=0.15)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1], ["", "0.5", "", "1"], fontsize=8)
    texts = [f"{name}\n{old:.2f} → {new:.2f}" for name, (old, new) in corners.items()]
    axes.set_xticks(angles, texts, color=INK)
    for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
        side = np.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    axes.spines["polar"].set_color(LINE)
    figure.legend(loc="outside lower center", ncols=2)
    return picture(figure, "Before and after training")


@styled
def baseline_bars(values: Mapping[str, float], interval: Sequence[float] | None) -> str:
    """The F1 of the run next to that of the baselines.

    Args:
        values: name -> F1, the run last.
        interval: of the run's F1.
    """
    figure, axes = panel(PANEL[0], 70 + 38 * len(values), "F1")
    places = np.arange(len(values))[::-1]
    colours = [MUTED] * (len(values) - 1) + [BLUE]
    axes.barh(places, list(values.values()), color=colours, height=0.6)
    if interval is not None:
        middle = list(values.values())[-1]
        axes.errorbar(middle, 0, xerr=[[max(middle - interval[0], 0)], [max(interval[1] - middle, 0)]], color=INK,
                      capsize=4, linewidth=1.2)  # fmt: skip
    for place, value in zip(places, values.values(), strict=True):
        end = max(value, interval[1] if interval and place == 0 else 0)
        axes.text(max(end, 0) + 0.02, place, f"{value:.3f}", va="center", color=INK)
    name_rows(axes, places, values)
    axes.set_xlim(min(0, *values.values()), 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    return picture(figure, "F1 beside the baselines")


@styled
def training_curves(history: Sequence[Mapping[str, str]], monitor: str, best: int) -> list[str]:
    """Loss, validation score and learning rate by optimizer step, with the best step marked.

    Args:
        history: the rows of ``history.csv``.
        monitor: the score that selected the best step.
        best: the best step.
    """
    panels = [
        ("Loss", [("train/loss", "training", BLUE, "-"), ("val/loss", "validation", ORANGE, "--")]),
        (f"Score on validation: {monitor.removeprefix('val/')}", [(monitor, "validation", ORANGE, "-")]),
        ("Learning rate", [("learning_rate", "lowest block", GREEN, "-"), ("learning_rate/head", "head", BLUE, "--")]),
    ]
    pictures = []
    for title, lines in panels:
        if monitor == "val/loss" and title.startswith("Score"):
            continue
        figure, axes = panel(355, 250, title)
        hover: list[Any] = []
        for column, label, colour, dash in lines:
            points = [(int(row["step"]), float(row[column])) for row in history if row.get(column)]
            if not points:
                continue
            x, y = thinned(np.array(points)).T
            validated = column.startswith("val/")
            few = len(x) <= (30 if validated else 1)  # of one point a line would not be seen
            axes.plot(x, y, dash, color=colour, label=label, marker="o" if few else "", markersize=4)
            hover += [(a, b, f"step {a:.0f}: {label} {b:.4g}") for a, b in zip(x, y, strict=True)] if validated else []
        axes.axvline(best, color=RED, linewidth=1, linestyle=":", label="best step")
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        axes.legend()
        if title == "Learning rate":
            axes.ticklabel_format(axis="y", scilimits=(0, 0), useMathText=False)
        pictures.append(picture(figure, title, [(axes, around(axes, hover))]))
    return pictures


def confusion(counts: np.ndarray, names: Sequence[str], unit: str = "rows") -> list[str]:
    """The confusion matrix, as counts of rows (or words) and as shares of the true class."""
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    told = [
        [
            f"{own} {'found' if i == j else f'taken for {other}'}: "
            f"{counts[i, j]:,} of {total[i, 0]:,} ({shares[i, j]:.1%})"
            for j, other in enumerate(names)
        ]
        for i, own in enumerate(names)
    ]
    few = len(names) <= 12
    whole = [[f"{value:,}" if value else "" for value in line] for line in counts] if few else None
    share = [[f"{value:.2f}".removeprefix("0") if value else "" for value in line] for line in shares] if few else None
    axes = ("predicted", "true")
    dark = counts / max(counts.max(), 1)
    return [
        matrix(counts, dark, names, names, unit.capitalize(), whole, told, axes),
        matrix(counts, shares, names, names, "Share of the true class", share, told, axes),
    ]


def entity_matrix(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """True entity types against predicted ones; see `thaw.reporting.entity_errors`."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    told = [[f"{row}: {column}: {counts[i, j]:,}" for j, column in enumerate(columns)] for i, row in enumerate(rows)]
    few = len(rows) <= 12
    written = [[f"{value:,}" if value else "" for value in line] for line in counts] if few else None
    return matrix(counts, shares, rows, columns, "Entities", written, told, ("predicted", "true"))


@styled
def ranking_curves(truth: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> list[str]:
    """Precision-recall and ROC curves; if there are many classes, of the hardest ones and of all pooled.

    Args:
        truth: 0 or 1 (rows, labels).
        scores: (rows, labels).
        names: of the labels; for binary classification give only the second class.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    varied = [i for i in range(len(names)) if 0 < truth[:, i].sum() < len(truth)]
    if not varied:
        return []
    quality = {i: float(average_precision_score(truth[:, i], scores[:, i])) for i in varied}
    chosen = varied if len(varied) <= CURVES else sorted(varied, key=lambda i: quality[i])[: CURVES - 1]
    pairs = [(short(names[i], 16), truth[:, i], scores[:, i]) for i in chosen]
    if len(chosen) < len(varied):
        pairs = [("all pooled", truth[:, varied].ravel(), scores[:, varied].ravel()), *pairs]
    some = f", {len(chosen)} hardest of {len(names)}" if len(chosen) < len(varied) else ""
    pictures = []
    for kind, title, x_name, y_name in (
        ("pr", f"Precision and recall{some}", "recall", "precision"),
        ("roc", f"ROC{some}", "false positive rate", "true positive rate"),
    ):
        figure, axes = panel(PANEL[0], 370, title)
        for (name, gold, score), colour, dash in zip(pairs, SERIES, DASHES, strict=False):
            if kind == "pr":
                precision, recall, _ = precision_recall_curve(gold, score)
                points, area = np.column_stack([recall, precision])[::-1], average_precision_score(gold, score)
            else:
                false, true, _ = roc_curve(gold, score)
                points, area = np.column_stack([false, true]), auc(false, true)
            x, y = thinned(points).T
            mark = "AP" if kind == "pr" else "AUC"
            axes.plot(x, y, linestyle=dash, color=colour, label=f"{name}: {mark} {area:.3f}")
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_name, ylabel=y_name)
        figure.legend(loc="outside lower center", ncols=2)
        pictures.append(picture(figure, title))
    return pictures


def thinned(points: np.ndarray) -> np.ndarray:
    """At most `POINTS` points of a curve, evenly spaced along its length on the page."""
    if len(points) <= POINTS:
        return points
    spread = np.ptp(points, axis=0)
    steps = np.abs(np.diff(points, axis=0)) / np.where(spread > 0, spread, 1)
    length = np.concatenate(([0.0], np.cumsum(steps.sum(axis=1))))
    wanted = np.linspace(0, length[-1], POINTS)
    return points[np.unique(np.concatenate(([0], np.searchsorted(length, wanted).clip(0, len(points) - 1))))]


@styled
def reliability_diagram(bins: Sequence[Mapping[str, Any]], title: str, error: float | None, across: str) -> str:
    """Accuracy by confidence; the bars below show how many rows are in each bin."""
    figure = new_figure(PANEL[0] * 0.85, 330)
    axes, below = figure.subplots(2, sharex=True, height_ratios=[4, 1])
    width = 1 / BINS
    right = np.array([one["accuracy"] for one in bins])
    rows = np.array([one["rows"] for one in bins])
    sure = np.array([one["confidence"] for one in bins])
    left = bins_of(sure) * width
    axes.bar(left, right, width=width, align="edge", color=BLUE, alpha=0.75, linewidth=0)
    axes.plot(sure, right, "o", color=INK, markersize=3)
    axes.plot([0, 1], [0, 1], "--", color=RED, linewidth=1)
    axes.set(ylim=(0, 1.02), ylabel=across)
    axes.set_title(title if error is None else f"{title}: error {error:.3f}")
    below.bar(left, rows / rows.sum(), width=width, align="edge", color=MUTED, linewidth=0)
    below.set(xlim=(0, 1), xlabel="confidence", ylabel="share")
    below.grid(visible=False)
    areas = [
        (start, 0, width, 1, f"confidence {one['confidence']:.3f}, {across} {one['accuracy']:.3f}, {one['rows']:,}")
        for start, one in zip(left, bins, strict=True)
    ]
    return picture(figure, title, [(axes, areas)])


@styled
def score_by_length(bins: Sequence[Mapping[str, Any]], across: str) -> str:
    """A score with its interval, for groups of texts of similar length.

    Args:
        bins: ``from``, ``to`` (words), ``rows``, ``score``, ``low``, ``high``.
        across: what the score is.
    """
    figure, axes = panel(355, 250, f"{across} by length".capitalize())
    places = np.arange(len(bins))
    score = np.array([one["score"] for one in bins])
    spread = np.array([[one["score"] - one["low"], one["high"] - one["score"]] for one in bins]).T
    axes.bar(places, score, color=BLUE, width=0.6, alpha=0.8)
    axes.errorbar(places, score, yerr=spread.clip(0), fmt="none", color=INK, capsize=4, linewidth=1.2)
    labels = [f"{one['from']}–{one['to']}" if one["from"] < one["to"] else f"{one['from']}" for one in bins]
    axes.set_xticks(places, labels)
    axes.set(ylim=(0, 1.02), xlabel="words")
    axes.grid(axis="x", visible=False)
    areas = [(i - 0.3, 0, 0.6, 1, f"{label} words: {one['score']:.3f}, {one['rows']:,} texts")
             for i, (label, one) in enumerate(zip(labels, bins, strict=True))]  # fmt: skip
    return picture(figure, f"{across} by length", [(axes, areas)])


@styled
def blocks(table: Sequence[Mapping[str, Any]]) -> str:
    """The blocks from embeddings to head: the length of a bar shows the parameters, its colour what trains."""
    figure, axes = panel(PANEL[0] * 1.1, 70 + 20 * len(table))
    places = np.arange(len(table))
    trains = np.array([row["trainable"] for row in table])
    frozen = np.array([row["parameters"] for row in table]) - trains
    axes.barh(places, trains, color=ORANGE, height=0.7, label="trains")
    axes.barh(places, frozen, left=trains, color=MUTED, alpha=0.45, height=0.7, label="frozen", hatch="///",
              edgecolor=LINE, linewidth=0)  # fmt: skip
    name_rows(axes, places, [row["block"] for row in table])
    axes.set_xlabel("parameters")
    axes.xaxis.set_major_formatter(lambda value, _: millions(value))
    most = max(row["parameters"] for row in table)
    areas = [(0, i - 0.5, most, 1, f"{row['block']}: {row['parameters']:,} parameters, {row['trainable']:,} train")
             for i, row in enumerate(table)]  # fmt: skip
    figure.legend(loc="outside upper right", ncols=2)
    return picture(figure, "Blocks, and what trains of them", [(axes, areas)])


def millions(value: float) -> str:
    """1500000 as 1.5M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
