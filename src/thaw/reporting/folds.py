"""Cross-validation: every row as a run saw it that did not train on it, and which labels that puts in doubt."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thaw import files, runs
from thaw.data.formats import format_of
from thaw.data.sources import options
from thaw.data.tables import delimiter_of
from thaw.errors import UserError
from thaw.files import named_by
from thaw.labels import LabelSet
from thaw.metrics.intervals import of_scorer
from thaw.reporting.members import FOLD, Group
from thaw.reporting.predictions import Rows, groups_of, row_text, scorer_of
from thaw.reporting.reading import suspects, suspicious
from thaw.reporting.summary import interval, number
from thaw.settings import plain

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


def out_of_fold(group: Group) -> OutOfFold | None:
    """What the first run of each fold made of its test rows; None unless all folds are there."""
    first = {member.settings[FOLD]: member.folder for member in reversed(group.members) if FOLD in member.settings}
    if not first:
        return None
    run = next(iter(first.values()))
    config, labels = runs.load_config(run), runs.labels_of(run)
    if set(first) != set(map(str, range(1, config.data.folds + 1))):
        return None
    rows = [{**row, "fold": int(fold)} for fold, folder in first.items()
            for row in files.read_jsonl(runs.predictions_path(folder, "test"))]  # fmt: skip
    rows.sort(key=lambda row: in_order(row["place"]))
    score = scorer_of(labels, rows, bool(config.strict_iob2))
    figures = {name: float(value) for name, (value,) in score(np.ones((1, len(rows)))).items()}
    learnt = {int(fold): runs.labels_of(folder) for fold, folder in first.items()}
    unseen = {fold: {name for name, count in zip(own.names, own.counts, strict=True) if not count}
              for fold, own in learnt.items()}  # fmt: skip
    ranges = of_scorer(score, labels, len(rows), groups_of(rows))
    return OutOfFold(rows, labels, figures, ranges, unseen, delimiter_of_data(plain(config)["data"]))


def delimiter_of_data(data: dict[str, Any]) -> str:
    """The delimiter of the first csv file of some data; a comma if there is none any more."""
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
