"""Compares two runs on the same test rows: which differences are significant, and which rows only one has right."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw import files, runs
from thaw.errors import UserError, counted, first_few
from thaw.labels import LabelSet
from thaw.metrics.intervals import RESAMPLES
from thaw.metrics.paired import mcnemar, paired_bootstrap
from thaw.overrides import settings_of
from thaw.reporting.html import write_html
from thaw.reporting.members import differing
from thaw.reporting.predictions import Rows, groups_of, scorer_of, with_groups
from thaw.reporting.published import compare_with_paper
from thaw.reporting.reading import marked_parts, shown
from thaw.reporting.summary import interval, latex_table, markdown_table, number, table, titled
from thaw.reporting.sweep import summarise, summarise_several
from thaw.reporting.wandb_report import make_report
from thaw.settings import plain

FEW = 25  # rows that only one run has right, below which resampling them is a rough approximation
LEAST = 2 / (RESAMPLES + 1)  # p of the paired bootstrap where every resample has the same sign
SETTINGS, VALUE = 10, 40  # settings that are named where two runs differ, and characters of their values
FLIPS = 100  # changed rows on the page; all are counted


def report(config: DictConfig) -> None:
    """What ``report.py`` does: summarise a multirun, here or on W&B, compare two runs, or summarise several."""
    settings = plain(config)
    names = runs.listed(settings["runs"])
    folder = Path(names[0]).expanduser().absolute()
    if len(names) == 1 and names[0] and not (folder / "config.yaml").is_file():
        _report_multirun(folder, settings)
        return
    for key in ("paper", "wandb"):
        if settings[key]:
            raise UserError(f"{key}: this report needs a single multirun", "Give its folder as runs=...")
    if len(names) < 2 or not all(names):
        hint = "Give two run folders, runs=A,B, the folder of a multirun, or several of either."
        raise UserError(f"runs={','.join(names)}: {counted(len(names), 'run')} given", hint)
    folders = [Path(name).expanduser().resolve() for name in names]
    runs.check_once(names, "runs")
    path = Path(settings["output"]).expanduser().absolute()
    multiruns = [folder for folder in folders if not (folder / "config.yaml").is_file() and runs.members_of(folder)]
    if len(folders) > 2 or multiruns:
        if settings["split"] != "test":
            raise UserError("split is for two runs", "Leave it out.")
        for name, folder in zip(names, folders, strict=True):
            if folder not in multiruns:
                runs.open_run(name, needs="metrics.json")
        summarise_several(folders, path)
        return
    first, second = (runs.open_run(name, needs="metrics.json") for name in names)
    result = compare(first, second, settings["split"])
    write_html(path, "comparison.html", result)
    header, rows = ["", "first", "second", "difference", "95 %", "p"], figure_rows(result)
    findings = "".join(f"{line}\n\n" for line in result["findings"])
    files.write_text(path.with_suffix(".md"), f"# {result['title']}\n\n{markdown_table(header, rows)}\n\n{findings}")
    files.write_text(path.with_suffix(".tex"), latex_table(result["title"], header, rows))
    files.write_csv(path.with_suffix(".csv"), ["metric", *header[1:]], rows)
    figures = table(result["title"], header, rows)
    print("\n".join([figures, *result["findings"], f"\nReport  {runs.display(path)}"]))


def _report_multirun(folder: Path, settings: Mapping[str, Any]) -> None:
    given = settings_of(HydraConfig.get().overrides.task) if HydraConfig.initialized() else {}
    for key, use in {"split": "two runs", "output": "several folders"}.items():
        if key in given:
            raise UserError(f"{key} is for {use}; the summary of a multirun is in its own folder", "Leave it out.")
    if settings["paper"]:
        compare_with_paper(folder)
    if settings["wandb"]:
        make_report(folder, str(settings["wandb"]))
    if not (settings["paper"] or settings["wandb"]):
        summarise(folder)


def compare(first: Path, second: Path, split: str) -> dict[str, Any]:
    """The paired metrics of two runs, and the rows that only one of them has right.

    Raises:
        UserError: when the runs were not tested on the same rows, naming what differs.
    """
    labels, rows = paired_predictions([first, second], split)
    # The order of the names may differ; the first run's is used for both.
    known = labels[0]
    strict = bool(runs.load_config(first).strict_iob2)
    right = [np.array([row["label"] == row["predicted"] for row in own]) for own in rows]
    flips = np.flatnonzero(right[0] != right[1])
    groups = groups_of(with_groups(rows))
    test = mcnemar(*right) if known.task == "sequence" and groups is None else None  # it takes rows to be independent
    scorers = [scorer_of(known, own, strict) for own in rows]
    figures = paired_bootstrap(scorers[0], scorers[1], len(rows[0]), groups)
    return {
        "title": f"{runs.display(first)} against {runs.display(second)}",
        "runs": [_described(run) for run in (first, second)],
        "split": split,
        "rows": len(rows[0]),
        "unit": "sentences" if known.task == "token" else "rows",
        "grouped": groups is not None,
        "figures": figures,
        "p": {name: resampled_p(row["p"]) for name, row in figures.items()},
        "titles": titled(list(figures)),
        "test": test,
        "findings": [*_findings(right, test, known), *_settings(differing(first, second))],
        "flips": [_flip(int(i), rows, right, known) for i in flips[:FLIPS]],
        "flipped": len(flips),
    }


def paired_predictions(folders: Sequence[Path], split: str) -> tuple[list[LabelSet], list[Rows]]:
    """Labels and predictions of runs that were tested on the same rows.

    Raises:
        UserError: when they were not, naming what differs.
    """
    labels, rows = list[LabelSet](), list[Rows]()
    for run in folders:
        path = runs.predictions_path(run, split)
        if not path.is_file():
            held = ", ".join(sorted(other.stem for other in path.parent.glob("*.jsonl")))
            raise UserError(
                f"{runs.display(run)}: the run holds no predictions for {split}",
                f"It holds: {held}. Choose by split=...",
            )
        labels.append(runs.labels_of(run))
        rows.append(files.read_jsonl(path))
        if difference := different([labels[0], labels[-1]], [rows[0], rows[-1]]):
            names = f"{runs.display(folders[0])} and {runs.display(run)}"
            raise UserError(f"{names} were not scored on the same rows: {difference}", "Give runs on the same data.")
    return labels, rows


def different(labels: Sequence[LabelSet], rows: Sequence[Rows]) -> str:
    """How the test rows of two runs differ, in words; empty if they do not."""
    first, second = labels
    if known := first.difference(second):
        return known
    field = "words" if first.task == "token" else "text"
    ours, theirs = ([str(row[field]) for row in own] for own in rows)
    if len(ours) != len(theirs):
        only = sum((Counter(ours) - Counter(theirs)).values()), sum((Counter(theirs) - Counter(ours)).values())
        return f"{len(ours):,} rows against {len(theirs):,}, {only[0]:,} and {only[1]:,} of them in one only"
    if ours != theirs:
        if Counter(ours) == Counter(theirs):
            return "the texts are the same, in another order"
        changed = [i for i, (own, other) in enumerate(zip(ours, theirs, strict=True)) if own != other]
        return f"{len(changed):,} of {len(ours):,} texts differ, first in row {changed[0] + 1:,}"
    changed = [i for i, (own, other) in enumerate(zip(*rows, strict=True)) if _truth(own) != _truth(other)]
    return f"the true labels of {len(changed):,} rows differ, first in row {changed[0] + 1:,}" if changed else ""


def _truth(row: dict[str, Any]) -> Any:
    label = row["label"]
    return sorted(label) if isinstance(label, list) and "words" not in row else label


def _described(run: Path) -> dict[str, Any]:
    environment, metrics = files.read_json(run / "environment.json"), files.read_json(run / "metrics.json")
    return {
        "name": runs.display(run),
        "command": environment["command"],
        "trainable": metrics["trainable"],
        "parameters": metrics["parameters"],
        "seconds": metrics["seconds"]["train"],
    }


def _findings(right: Sequence[np.ndarray], test: Mapping[str, float] | None, labels: LabelSet) -> list[str]:
    first, second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    unit = "whole sentence" if labels.task == "token" else "row"
    lines = [f"Right in the first run alone: {counted(first, unit)}; in the second alone: {second:,}."]
    if test is not None:
        exact = f"McNemar's exact test: p {'' if test['p'] < 0.001 else '= '}{p_value(test['p'])}."
        few = " So few rows differ that it is to be preferred to the resampled p of accuracy."
        lines.append(exact + few * (0 < first + second < FEW))
    return lines


def _settings(odd: Mapping[str, tuple[str, str]]) -> list[str]:
    """In what settings two runs differ, as `differing` tells, and what else may be the cause of a difference."""

    def short(value: str) -> str:
        return value if len(value) <= VALUE else f"{value[: VALUE - 1]}…"

    if not odd:
        return []
    named = first_few([f"{key} ({', '.join(map(short, pair))})" for key, pair in odd.items()], SETTINGS)
    caution = ["One run each: a difference may also be due to the seed."] if odd.keys() - {"seed"} else []
    return [f"Settings that differ (first, second): {named}.", *caution]


def _flip(i: int, rows: Sequence[Rows], right: Sequence[np.ndarray], labels: LabelSet) -> dict[str, Any]:
    flip = {"row": i + 1, "better": "first" if right[0][i] else "second"}
    if labels.task == "token":
        return {**flip, "sides": [{"parts": marked_parts(own[i], labels)} for own in rows]}
    sides = [shown(own[i]) for own in rows]
    return {**flip, **sides[0], "predicted": [side["predicted"] for side in sides]}


def figure_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The paired metrics for the terminal."""
    return [
        [title, number(row["first"]), number(row["second"]), f"{row['difference']:+.4f}", interval(row["interval"]),
         result["p"][name]]
        for title, name, row in ((title, name, result["figures"][name]) for name, title in result["titles"].items())
    ]  # fmt: skip


def resampled_p(p: float) -> str:
    """p of the paired bootstrap, which cannot fall below what its number of resamples allows."""
    return f"≤ {LEAST:.3f}" if p <= LEAST else p_value(p)


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
