"""The page and the table of a study: its best trial, the scores over time, the importance of parameters."""

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw import files, runs
from thaw.reporting.drawing import BLUE, MUTED, ORANGE, around, name_rows, panel, picture, styled
from thaw.reporting.html import write_html
from thaw.reporting.summary import number

Rows = Sequence[Mapping[str, Any]]


def write_study(
    folder: Path,
    rows: Rows,
    importance: Mapping[str, float],
    monitor: str,
    mode: str,
    script: str,
    fixed: Sequence[str],
) -> list[str]:
    """Write ``study.html`` and ``study.csv``.

    Args:
        folder: of the sweep.
        rows: the trials in order, as `thaw.study.rows` gives them.
        importance: of each parameter, from 0 to 1; may be empty.
        monitor, mode: the score, and whether ``max`` or ``min`` is better.
        script: the script that runs a trial, ``train.py``.
        fixed: the overrides that all trials share.

    Returns:
        Lines for the terminal.
    """
    done = [row for row in rows if row["state"] == "complete"]
    best = (max if mode == "max" else min)(done, key=lambda row: row["score"], default=None)
    command = ""
    if best is not None:
        command = shlex.join(["python", script, *fixed, *(f"{k}={v}" for k, v in best["parameters"].items())])
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    table = [[*_start(row, folder), *(row["parameters"].get(name, "") for name in names)] for row in rows]
    header = ["trial", "state", monitor, "seconds", "run", *names]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(row["state"] for row in rows).items())
    context = {
        "title": f"Study {folder.name}",
        "counts": counts,
        "monitor": monitor,
        "best": best and {**best, "folder": runs.display(Path(best["folder"]))},
        "link": best and Path(os.path.relpath(best["folder"], folder)).as_posix() + "/report.html",
        "command": command,
        "pictures": [*([course(rows, monitor, mode)] if done else []), *([weights(importance)] if importance else [])],
        "header": header,
        "rows": table,
        "errors": [(row["trial"], row["error"]) for row in rows if row["error"]],
    }
    write_html(folder / "study.html", "study.html", context)
    cells = ([row["trial"], row["state"], row["score"], row["seconds"], row["folder"],
              *map(row["parameters"].get, names), row["error"]] for row in rows)  # fmt: skip
    files.write_csv(folder / "study.csv", [*header, "error"], cells)
    lines = [f"Trials     {counts}"]
    if best is not None:
        lines += [f"Best       {monitor} {best['score']:.4f}, trial {best['trial']}", f"Again      {command}"]
    return [*lines, f"Study      {runs.display(folder)}/study.html"]


def _start(row: Mapping[str, Any], folder: Path) -> list[str]:
    run = Path(row["folder"])
    place = run.name if run.parent == folder else row["folder"]
    return [str(row["trial"]), row["state"], number(row["score"]), number(row["seconds"], 1), place]


@styled
def course(rows: Rows, monitor: str, mode: str) -> str:
    """The scores of all trials in order, and the best so far."""
    points = [(row["trial"], row["score"], row["state"]) for row in rows if row["score"] is not None]
    figure, axes = panel(560, 290, "Scores")
    for state, colour, mark in (("complete", BLUE, "o"), ("pruned", MUTED, "x")):
        of_state = [(trial, score) for trial, score, kind in points if kind == state]
        if of_state:
            axes.plot(*np.array(of_state).T, mark, color=colour, markersize=5, label=state)
    x, y = np.array([(trial, score) for trial, score, state in points if state == "complete"]).T
    best = (np.maximum if mode == "max" else np.minimum).accumulate(y)
    axes.step(x, best, where="post", color=ORANGE, label="best", zorder=1)
    axes.set(xlabel="trial", ylabel=monitor)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    told = {row["trial"]: ", ".join(f"{k}={v}" for k, v in row["parameters"].items()) for row in rows}
    areas = around(axes, [(a, b, f"trial {a}: {b:.4f}, {state}; {told[a]}") for a, b, state in points])
    return picture(figure, "Scores by trial", [(axes, areas)])


@styled
def weights(importance: Mapping[str, float]) -> str:
    """How much of the variation between trials each parameter explains."""
    figure, axes = panel(430, 90 + 28 * len(importance), "Importance")
    names, values = list(importance)[::-1], list(importance.values())[::-1]
    axes.barh(range(len(names)), values, color=BLUE, height=0.6)
    name_rows(axes, range(len(names)), names, 28)
    axes.set_xlim(0, 1)
    areas = [
        (0, i - 0.4, 1, 0.8, f"{name}: {value:.3f}") for i, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    return picture(figure, "Importance of the parameters", [(axes, areas)])
