"""Cross-validation: every row as a run saw it that did not train on it, and which labels that puts in doubt."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thaw import files, runs
from thaw.data.formats import format_of
from thaw.data.sources import options
from thaw.data.tables import delimiter_of
from thaw.errors import UserError, counted, first_few
from thaw.files import named_by
from thaw.labels import LabelSet
from thaw.metrics.intervals import of_scorer
from thaw.reporting.members import FOLD, Group
from thaw.reporting.predictions import Rows, groups_of, row_text, scorer_of
from thaw.reporting.reading import suspects, suspicious
from thaw.reporting.summary import interval, number
from thaw.settings import plain, written_since

PREDICTIONS, ERRORS = "out_of_fold.jsonl", "label_errors.csv"
PROBABILITIES = {"own": "label_probability", "sure": "suggested_probability"}


@dataclass
class OutOfFold:
    """The test rows of all folds.

    Args:
        rows: as in ``predictions/``, in the order of the data, with the ``fold`` that each was in.
        labels: of the runs.
        figures: of all rows together.
        intervals: 95 % of these.
        unseen: of each fold the labels that its run had no row of to learn from.
        delimiter: of the data, if that is a csv file: what Excel takes for one depends on the country.
    """

    rows: Rows
    labels: LabelSet
    figures: dict[str, float]
    intervals: dict[str, list[float]]
    unseen: dict[int, set[str]] = field(default_factory=dict)
    delimiter: str = ","


def every_out_of_fold(groups: Sequence[Group]) -> tuple[list[tuple[Group, OutOfFold]], list[str]]:
    """What each group that has all folds made of the rows, and a finding if folds are of different data.

    So they are where the data was saved while the sweep ran. Their rows are then not those of one data set, and some
    may have been trained on by the run that tested them.
    """
    found, problems = list[tuple[Group, OutOfFold]](), list[str]()
    for group in groups:
        try:
            if own := out_of_fold(group):
                found.append((group, own))
        except UserError as problem:
            problems.append(str(problem))
    if not problems:
        return found, []
    remove = outdated([member.folder for group in groups for member in group.members if FOLD in member.settings])
    every = sum(FOLD in member.settings for group in groups for member in group.members)
    some = 0 < len(remove) < every  # else nothing tells them from the others, or all are of data that is no more
    named = first_few(list(map(runs.shell_path, remove)), 10) if some else "the folder of the sweep"
    return found, [f"Nothing out of fold: {problems[0]} Remove {named}, and repeat the command."]


def outdated(folders: Sequence[Path]) -> list[Path]:
    """The runs that began before their data was last written; if that tells nothing, those on other data than most."""
    if old := [run for run in folders if written_since(plain(runs.load_config(run))["data"], run / "data.json")]:
        return old
    kinds = []
    for run in folders:
        totals = Counter[str]()
        for split in files.read_json(run / "data.json")["splits"].values():
            totals.update(split["labels"])
        kinds.append(json.dumps(totals, sort_keys=True) if has_all_rows(run) else sorted(totals))
    usual = max(kinds, key=kinds.count)
    return [run for run, kind in zip(folders, kinds, strict=True) if kind != usual]


def has_all_rows(run: Path) -> bool:
    """Whether a run of a fold has all rows of the data, in one split or another."""
    data = runs.load_config(run).data
    return data.train_size is None and data.eval_size is None


def contradiction(folds: Mapping[str, Path], rows: Rows) -> str:
    """How the folds of a run on each show that they are not of the same data, in words; empty if they do not.

    Args:
        folds: the run of each.
        rows: that they were tested on.
    """
    (_, run), *others = folds.items()
    for _, other in others:
        if difference := runs.labels_of(run).difference(runs.labels_of(other)):
            return difference
    data = [files.read_json(folder / "data.json") for folder in folds.values()]
    names = [Path(file).name for own in data[0]["files"].values() for file in own]
    # Places are without the folder.
    most = 1 if len(set(names)) == len(names) else len(names)
    if twice := sum(count > most for count in Counter(row["place"] for row in rows).values()):
        return f"{counted(twice, 'row')} tested by several of them"
    if has_all_rows(run):
        totals = {sum(split["rows"] for split in own["splits"].values()) for own in data}
        if totals != {len(rows)}:
            return f"of {' or '.join(f'{one:,}' for one in sorted(totals))} rows {len(rows):,} tested"
    return ""


def out_of_fold(group: Group) -> OutOfFold | None:
    """What the first run of each fold made of its test rows; None unless all folds are there.

    Raises:
        UserError: when they are of different data.
    """
    first = {member.settings[FOLD]: member.folder for member in reversed(group.members) if FOLD in member.settings}
    if not first:
        return None
    run = next(iter(first.values()))
    config, labels = runs.load_config(run), runs.labels_of(run)
    if set(first) != set(map(str, range(1, config.data.folds + 1))):
        return None
    rows = [{**row, "fold": int(fold)} for fold, folder in first.items()
            for row in files.read_jsonl(runs.predictions_path(folder, "test"))]  # fmt: skip
    if reason := contradiction(first, rows):
        raise UserError(f"the folds are of different data, as where it was saved while they ran: {reason}")
    rows.sort(key=lambda row: in_order(row["place"]))
    score = scorer_of(labels, rows, bool(config.strict_iob2))
    figures = {name: float(value) for name, (value,) in score(np.ones((1, len(rows)))).items()}
    learnt = {int(fold): runs.labels_of(folder) for fold, folder in first.items()}
    unseen = {fold: {name for name, count in zip(own.names, own.counts, strict=True) if not count}
              for fold, own in learnt.items()}  # fmt: skip
    ranges = of_scorer(score, labels, len(rows), groups_of(rows))
    return OutOfFold(rows, labels, figures, ranges, unseen, delimiter_of_data(plain(config)["data"]))


def delimiter_of_data(data: dict[str, Any]) -> str:
    """The delimiter for files made of the first csv file of some data; a comma if there is none any more."""
    with suppress(UserError, OSError):
        for path in named_by(data["path"] or ""):
            if path.is_file() and format_of(path) == "csv":
                return delimiter_of(path, options(data))
    return ","


def in_order(place: str) -> list[Any]:
    """A key that sorts places by their numbers: ``tickets.csv:9`` before ``tickets.csv:10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", place)]


def label_errors(found: OutOfFold) -> list[dict[str, Any]]:
    """Likely label errors among all rows, by confident learning (Northcutt et al. 2021), the most suspicious first.

    Not those of labels that the run could not know, since all their rows are in its fold.
    """
    unseen = [(fold, label) for fold, names in found.unseen.items() for label in names]
    everywhere = suspects(found.rows, found.labels)
    return [one for one in everywhere if (found.rows[one["row"]].get("fold"), one["label"]) not in unseen]


def write(folder: Path, found: OutOfFold) -> dict[str, Any]:
    """Write ``out_of_fold.jsonl`` and ``label_errors.csv`` into the folder of a multirun.

    Returns:
        ``errors``: how many labels are in doubt; ``reading``: the first of them, as the page shows them.
    """
    files.write_jsonl(folder / PREDICTIONS, found.rows)
    errors, token = label_errors(found), found.labels.task == "token"
    columns = ["place", *(["word"] if token else []), "label", "suggested", *PROBABILITIES.values(), "text"]
    cells = []
    for one in errors:
        row = found.rows[one["row"]]
        place = [row["place"], row["words"][one["word"]]] if token else [row["place"]]
        scores = [f"{one[name]:.4f}" for name in PROBABILITIES]
        cells.append([*place, one["label"], one["suggested"], *scores, row_text(row)])
    files.write_csv(folder / ERRORS, columns, cells, found.delimiter, marked=True)
    return {"errors": len(errors), "reading": suspicious(errors, found.rows, found.labels)}


def table_rows(found: Sequence[tuple[Group, OutOfFold]], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The figures of all rows together, a line for each group: header and cells."""
    names = [name for name in names if any(name in own.figures for _, own in found)]
    header = [*(found[0][0].settings or ["settings"]), "rows", *(cell for name in names for cell in (name, "95 %"))]
    cells = [
        [*(group.settings.values() or ["all"]), f"{len(own.rows):,}",
         *(cell for name in names for cell in (number(own.figures[name]), interval(own.intervals.get(name))))]
        for group, own in found
    ]  # fmt: skip
    return header, cells
